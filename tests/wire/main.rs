//! EST on the wire: what RFC 7030, RFC 8951 and real clients demand, by the ids of the conformance
//! checklist (E: RFC 7030, C: RFC 8951, H: forced by real clients).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod answers;
mod authentication;
mod bad_input;
mod binding;
mod edges;
mod enrollstatus;
mod paths;
mod renewal_info;
mod requests;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use support::{Answer, Backend, TestServer};

const CACERTS: &str = "/.well-known/est/cacerts";
const ENROLL: &str = "/.well-known/est/simpleenroll";
const REENROLL: &str = "/.well-known/est/simplereenroll";

/// These tests are about the wire; the ledger's are in `tests/enrolment`.
async fn server() -> TestServer {
    TestServer::start(Backend::Sqlite).await
}

async fn server_with(toml: &str) -> TestServer {
    TestServer::start_with(Backend::Sqlite, toml).await
}

/// Refused with this status, and this code in one plain sentence (E-39).
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{code}: {text}");
    assert!(text.ends_with(&format!("({code})\n")), "{code}: {text}");
    assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"), "{code}");
}
