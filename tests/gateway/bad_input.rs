//! What devices must not send: refused with a plain reason, never a 500.

use serde_json::json;

use crate::agent::{event, say, send};
use crate::on_both_ledgers;
use crate::support::{Backend, Device, TestServer};

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = server.device("device-1");
    let large = format!("[{}]", "1,".repeat(200_000));
    for (method, path, body, status, code) in [
        ("PATCH", "/device", "", 400, "gateway-body"),
        ("PATCH", "/device", "{}", 400, "gateway-body"),
        ("PATCH", "/device", r#"{"next_pubkey":"x"}"#, 400, "gateway-body"),
        ("PATCH", "/config", "no JSON", 400, "gateway-body"),
        ("POST", "/events", "{}", 400, "gateway-body"),
        ("POST", "/events", r#"[{"id":1}]"#, 400, "gateway-body"),
        ("POST", "/events", &large, 413, "body-too-large"),
        ("POST", "/config", "{}", 405, "method-not-allowed"),
        ("GET", "/", "", 404, "path-unknown"),
        ("GET", "/repo/targets.json", "", 404, "path-unknown"),
    ] {
        let answer = send(&server, &device, (method, path), "", body).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.text().ends_with(&format!("({code})\n")), "{}", answer.text());
        assert_eq!(answer.header("Allow"), (status == 405).then_some("GET, PATCH"));
    }
    server.stop().await;
}

/// It sends fewer at once then: with 400 it would send as many again for ever.
#[tokio::test]
async fn too_many_events_at_once_are_refused() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = server.device("device-1");
    let events: Vec<_> = (0..101).map(|n| event(&n.to_string(), "r", "s", None)).collect();
    let answer = say(&server, &device, &json!(events)).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(say(&server, &device, &json!(events[1..])).await.status, 200);
    server.stop().await;
}

on_both_ledgers! {
    /// Kept as they are: of unknown kinds, of other devices' rotations, with odd text in them.
    async fn odd_events_are_kept(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        let mut odd = event("o1", "someone-elses", "EcuDownloadStarted", None);
        odd["event"]["details"] = json!({ "a": ["\u{0}b"] });
        odd["event"]["version"] = json!(290);
        odd["more"] = json!(1);
        let long = event(&"l".repeat(5000), &"r".repeat(5000), &"s".repeat(5000), None);
        // Four bytes each, and nothing that a database could make shorter.
        let wide: String = (0..5000).map(|n| char::from_u32(0x2_0000 + n * 7919 % 0xA000).unwrap()).collect();
        let wide = event(&wide, &wide, &wide, Some(false));
        assert_eq!(say(&server, &device, &json!([odd, long, wide])).await.status, 200);
        assert_eq!(say(&server, &device, &json!([])).await.status, 200);
        let events = server.story("device-1").await.events;
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].details, r#"{"a":["\u0000b"]}"#);
        assert_eq!(events[0].version, "290");
        assert!(events[1].id.len() <= 1000 && events[1].step.len() <= 1000);
        server.stop().await;
    }

    /// I10: also what is refused before the ledger is asked.
    async fn i10_who_is_refused_at_the_gateway_is_on_record(backend: Backend) {
        let server = TestServer::start(backend).await;
        let other = Device::new(&server.factory_line, "other", "device-1");
        for _ in 0..20 {
            let refused = send(&server, &other, ("GET", "/config"), "", "").await;
            assert_eq!(refused.status, 403);
            assert!(refused.text().ends_with("(ou-mismatch)\n"), "{}", refused.text());
        }
        assert_eq!(server.refusals().await, vec!["ou-mismatch"; 16], "the others are counted");
        server.stop().await;
    }
}
