//! When a certificate should be renewed (draft-ietf-lamps-est-renewal-info).

use data_encoding::BASE64URL_NOPAD;
use estd::clock::UnixTime;
use estd::pki::Certificate;
use serde_json::Value;

use crate::support::wire::post;
use crate::support::{Answer, TestServer};
use crate::{assert_refused, server};

/// What a client makes of its certificate: the key identifier of its issuer and its serial number.
fn id(certificate: &Certificate, issuer: &Certificate) -> String {
    let key = BASE64URL_NOPAD.encode(&issuer.key_identifier().unwrap());
    format!("{key}.{}", BASE64URL_NOPAD.encode(certificate.serial().contents()))
}

async fn ask(server: &TestServer, id: &str) -> Answer {
    server.get(None, &format!("/.well-known/est/renewal-info/{id}")).await
}

fn window(answer: &Answer) -> (UnixTime, UnixTime) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert!(answer.header("Retry-After").unwrap().parse::<u32>().unwrap() > 0);
    let told: Value = serde_json::from_str(answer.text()).unwrap();
    let time = |key: &str| UnixTime::parse(told["suggestedWindow"][key].as_str().unwrap()).unwrap();
    (time("start"), time("end"))
}

async fn issuing_ca(server: &TestServer) -> Certificate {
    let trust = server.ledger().factories().await.unwrap().pop().unwrap();
    trust.issuing_ca(UnixTime::now(), 0).unwrap().certificate.clone()
}

#[tokio::test]
async fn renewal_info_is_a_window_before_the_end() {
    let server = server().await;
    let old = server.device("device-1");
    let line = server.factory_line.certificate();
    let new = server.rotate(&old).await;
    let online = issuing_ca(&server).await;
    for (certificate, issuer) in [(&old.certificate, line), (&new.certificate, &online)] {
        let id = id(certificate, issuer);
        let (start, end) = window(&ask(&server, &id).await);
        let validity = certificate.validity();
        assert!(validity.not_before < start && start < end && end < validity.not_after);
        let labelled = format!("/.well-known/est/fioconfig/renewal-info/{id}");
        assert_eq!(window(&server.get(None, &labelled).await), (start, end));
    }
    // What was replaced is nobody's to renew.
    server.session(&new).await;
    assert_refused(&ask(&server, &id(&old.certificate, line)).await, 404, "certificate-unknown");
    server.stop().await;
}

#[tokio::test]
async fn renewal_info_tells_a_malformed_id_from_an_unknown_one() {
    let server = server().await;
    let device = server.device("device-1");
    server.session(&device).await;
    let known = id(&device.certificate, server.factory_line.certificate());
    let (key, serial) = known.split_once('.').unwrap();
    let long = "A".repeat(2000);
    for malformed in [
        "",
        ".",
        key,
        &format!("{key}."),
        &format!(".{serial}"),
        &format!("{key}={serial}"),
        &format!("{key}.{serial}="),
        &format!("{key}.{serial}.x"),
        &format!("{key}.%00"),
        &format!("{long}.{serial}"),
        &format!("{key}.{long}"),
    ] {
        assert_refused(&ask(&server, malformed).await, 400, "renewal-id-malformed");
    }
    let other = BASE64URL_NOPAD.encode(b"another key");
    for unknown in [format!("{other}.{serial}"), format!("{key}.{other}")] {
        assert_refused(&ask(&server, &unknown).await, 404, "certificate-unknown");
    }
    assert_refused(&ask(&server, &format!("{known}/more")).await, 404, "path-unknown");
    let posted = post(&format!("/.well-known/est/renewal-info/{known}"), "");
    let answer = server.send(None, &posted).await.unwrap();
    assert_refused(&answer, 405, "method-not-allowed");
    assert_eq!(server.refusals().await, Vec::<String>::new(), "nothing is decided about anybody");
    server.stop().await;
}
