//! What a device says of its enrolment (RFC 8995 §5.9.4).

use crate::support::wire::{get_with, post_with};
use crate::support::{Answer, Device, TestServer, Tls};
use crate::{assert_refused, server};

const PATH: &str = "/.well-known/brski/enrollstatus";
const JSON: &str = "Content-Type: application/json\r\n";
const WELL: &[u8] = br#"{"version":1,"status":true}"#;

async fn say(server: &TestServer, device: Option<&Device>, said: &[u8]) -> Answer {
    server.send(device, &post_with(PATH, JSON, said)).await.unwrap()
}

#[tokio::test]
async fn i3_enrollstatus_with_the_new_certificate_proves_the_switch() {
    let server = server().await;
    let old = server.device("device-1");
    let new = server.rotate(&old).await;
    assert_eq!(server.states("device-1").await, ["current", "pending"]);
    assert_eq!(say(&server, Some(&new), WELL).await.status, 200);
    assert_eq!(server.states("device-1").await, ["superseded", "current"]);
    server.stop().await;
}

/// What is claimed is on record, and never overrides what is seen.
#[tokio::test]
async fn what_a_device_says_goes_on_record_and_changes_nothing() {
    let server = server().await;
    let old = server.device("device-1");
    server.rotate(&old).await;
    let said = r#"{"version":1,"status":false,"reason":"disk full\n","reason-context":{"a":1}}"#;
    assert_eq!(say(&server, Some(&old), said.as_bytes()).await.status, 200);
    assert_eq!(server.states("device-1").await, ["current", "pending"]);
    let audit = server.audit().await;
    let row = audit.iter().find(|row| row.action == "enrollstatus").unwrap();
    assert_eq!((row.actor.as_str(), row.outcome.as_str()), ("device-1", "done"));
    let fingerprint = old.certificate.fingerprint().to_string();
    assert!(row.detail.starts_with("it went wrong"), "{}", row.detail);
    assert!(row.detail.contains(&fingerprint), "{}", row.detail);
    assert!(row.detail.ends_with(r#""disk full\n""#), "{}", row.detail);
    server.stop().await;
}

/// Its holder must not put it in the place of one that is accepted.
#[tokio::test]
async fn i7_a_certificate_that_is_not_accepted_any_more_is_told_so() {
    let server = server().await;
    let old = server.device("device-1");
    let new = server.rotate(&old).await;
    server.session(&new).await;
    let mut wire = server.connect(Some(&old), &Tls::default()).await.unwrap();
    for _ in 0..2 {
        let answer = wire.send(&post_with(PATH, JSON, WELL)).await.unwrap();
        assert_refused(&answer, 403, "credential-superseded");
    }
    drop(wire);
    let said = async || server.audit().await.into_iter().filter(|row| row.action == "enrollstatus");
    assert_eq!(said().await.count(), 0, "it does not speak for the device");
    assert_eq!(server.refusals().await, ["credential-superseded"; 2], "each time, and not more");
    assert_eq!(say(&server, Some(&new), WELL).await.status, 200);
    server.stop().await;
}

/// Else one device would fill the disk of the ledger.
#[tokio::test]
async fn i11_what_a_device_says_again_and_again_is_on_record_a_few_times() {
    let server = server().await;
    let device = server.device("device-1");
    let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
    for number in 0..40 {
        let said = format!(r#"{{"version":1,"status":true,"reason":"{number}"}}"#);
        let answer = wire.send(&post_with(PATH, JSON, said.as_bytes())).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let rows = server.audit().await.into_iter();
    let rows = rows.filter(|row| row.action == "enrollstatus" && !row.detail.contains(" more "));
    assert!((16..=32).contains(&rows.count()), "an hour may end meanwhile");
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_enrollment_status_is_refused() {
    let server = server().await;
    let device = server.device("device-1");
    assert_refused(&say(&server, None, WELL).await, 401, "client-certificate-required");
    for malformed in ["", "{}", "[]", r#"{"status":"yes"}"#, r#"{"status":true,"reason":1}"#] {
        let answer = say(&server, Some(&device), malformed.as_bytes()).await;
        assert_refused(&answer, 400, "status-malformed");
    }
    let plain = post_with(PATH, "Content-Type: text/plain\r\n", WELL);
    let answer = server.send(Some(&device), &plain).await.unwrap();
    assert_refused(&answer, 415, "json-wanted");
    let answer = server.send(Some(&device), &get_with(PATH, "")).await.unwrap();
    assert_refused(&answer, 405, "method-not-allowed");
    server.stop().await;
}
