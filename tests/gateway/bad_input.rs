//! What devices must not send: refused with a plain reason, never a 500.

use serde_json::json;

use crate::agent::{event, say, send};
use crate::support::{Backend, TestServer};

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

/// Kept as they are: of unknown kinds, of other devices' rotations, with odd text in them.
#[tokio::test]
async fn odd_events_are_kept() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = server.device("device-1");
    let mut odd = event("o1", "someone-elses", "EcuDownloadStarted", None);
    odd["event"]["details"] = json!({ "a": ["\u{0}b"] });
    odd["more"] = json!(1);
    let long = event(&"l".repeat(5000), &"r".repeat(5000), &"s".repeat(5000), None);
    assert_eq!(say(&server, &device, &json!([odd, long])).await.status, 200);
    assert_eq!(say(&server, &device, &json!([])).await.status, 200);
    let events = server.story("device-1").await.events;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].details, r#"{"a":["\u0000b"]}"#);
    assert!(events[1].id.len() <= 1000 && events[1].step.len() <= 1000);
    server.stop().await;
}
