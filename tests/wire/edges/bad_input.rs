//! Every odd request of `testdata/csr` over the wire: its verdict, one record, never a 500.

use std::path::Path;

use estd::model::{Class, Refusal};
use estd::pki::{CertificationRequest, to_est_text};

use super::{ENROLL, REENROLL, assert_refused, server};
use crate::support::device::name;
use crate::support::wire::{post, post_with};
use crate::support::{FACTORY, TestServer};

/// The rows of the corpus: a request and its verdict when whoever asks is entitled to its subject.
fn corpus() -> Vec<(String, Vec<u8>, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let table = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let rows = table.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, verdict] = cells.as_slice() else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let der = std::fs::read(folder.join("csr").join(format!("{name}.der"))).ok()?;
        Some((name.to_owned(), der, (*verdict).to_owned()))
    });
    rows.collect()
}

fn status(code: &str) -> u16 {
    let (_, class) = Refusal::ALL.iter().find(|(known, _)| *known == code).unwrap();
    match class {
        Class::Malformed => 400,
        Class::Forbidden => 403,
        other => panic!("{code} is {other:?}"),
    }
}

/// What the device CN=device-1 is told: another's subject, well formed, is none of its own.
fn expected(der: &[u8], verdict: &str) -> String {
    let own = name("device-1", FACTORY);
    let subject = CertificationRequest::from_der(der).map(|request| request.subject().clone());
    let san = CertificationRequest::from_der(der)
        .is_ok_and(|request| request.extensions().subject_alt_name.is_some());
    match subject {
        Ok(subject) if subject != own => "subject-mismatch".to_owned(),
        Ok(_) if san => "san-mismatch".to_owned(),
        _ => verdict.to_owned(),
    }
}

#[tokio::test]
async fn e_33_e_39_every_odd_request_gets_its_verdict_and_one_record() {
    let server = server().await;
    let device = server.device("device-1");
    let corpus = corpus();
    assert!(corpus.len() > 30, "{}", corpus.len());
    let mut refused = Vec::new();
    for path in [ENROLL, REENROLL] {
        for (name, der, verdict) in &corpus {
            let answer = server.send(Some(&device), &post(path, &to_est_text(der))).await.unwrap();
            let expected = expected(der, verdict);
            if expected == "accepted" {
                let asked = CertificationRequest::from_der(der).unwrap();
                let issued = answer.certificate();
                assert_eq!(issued.public_key().der(), asked.public_key().der(), "{name}");
                assert_eq!(issued.subject().der(), asked.subject().der(), "{name}");
            } else {
                assert_refused(&answer, status(&expected), &expected);
                refused.push(expected);
            }
        }
    }
    assert_eq!(server.refusals().await, refused);
    server.stop().await;
}

/// The refusals that come before the request itself is looked at.
#[tokio::test]
async fn h_14_a_refusal_before_the_body_is_on_record_once_too() {
    let server = server().await;
    let device = server.device("device-1");
    let body = device.request().1;
    let of_type = |line: &str| post_with(REENROLL, line, body.as_bytes());
    let cases = [
        (of_type(""), 415, "content-type"),
        (of_type("Content-Type: \r\n"), 415, "content-type"),
        (of_type("Content-Type: application/pkcs10x\r\n"), 415, "content-type"),
        (of_type("Content-Type: application/pkcs7-mime\r\n"), 415, "content-type"),
        (of_type("Content-Type: text/plain; x=application/pkcs10\r\n"), 415, "content-type"),
        (post("/.well-known/est/nobody/simplereenroll", &body), 404, "label-unknown"),
        (post("/.well-known/est/FIOCONFIG/simplereenroll", &body), 404, "label-unknown"),
    ];
    let mut refused = Vec::new();
    for (request, status, code) in cases {
        let answer = server.send(Some(&device), &request).await.unwrap();
        assert_refused(&answer, status, code);
        refused.push(code);
    }
    assert_eq!(server.refusals().await, refused);
    assert_nothing_issued(&server).await;
    server.stop().await;
}

async fn assert_nothing_issued(server: &TestServer) {
    let audit = server.audit().await;
    let issued = audit.iter().filter(|row| row.outcome == "done" && row.action.contains("enroll"));
    assert_eq!(issued.count(), 0, "{audit:?}");
}
