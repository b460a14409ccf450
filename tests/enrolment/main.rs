//! Enrolment end to end: the rules I1 to I12 on a whole server, over sockets, on both ledgers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod audit;
mod bootstrap;
mod credentials;
mod device_cas;
mod durable;
mod factories;
mod identity;
mod issuing;
mod load;
mod phase_out;
mod pinning;
mod revocation_lists;
#[path = "../support/mod.rs"]
mod support;
mod truth_table;

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::factory::{Installing, RequestedKey, install, pending_requests, request_keys};
use estd::keys::KeyStore;
use estd::ledger::CredentialStory;
use estd::model::{DeviceName, FactoryTrust};
use estd::pki::{
    Certificate, CertificationRequest, Extension, KeyUsages, Serial, Template, Validity,
};

use support::{Answer, Device, TestServer};

const ENROLMENTS: [&str; 2] = ["simpleenroll", "simplereenroll"];
const DAY: i64 = 24 * 3600;

fn path(operation: &str) -> String {
    format!("/.well-known/est/{operation}")
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert!(text.contains(&format!("({code})")), "{text}");
}

fn device_name(name: &str) -> DeviceName {
    DeviceName::parse(name).unwrap()
}

/// What the ledger knows of the credential that this device holds.
async fn credential(server: &TestServer, device: &Device) -> CredentialStory {
    let name = device.certificate.subject().common_name().unwrap();
    let held = device.certificate.fingerprint().to_string();
    let credentials = server.story(&name).await.credentials;
    credentials.into_iter().find(|one| one.sha256 == held).expect("the ledger knows it")
}

async fn state(server: &TestServer, device: &Device) -> String {
    credential(server, device).await.state
}

/// How many decisions of this kind were taken and not refused.
async fn done(server: &TestServer, action: &str) -> usize {
    let rows = server.audit().await;
    rows.iter().filter(|row| row.action == action && row.outcome == "done").count()
}

async fn issued(server: &TestServer) -> usize {
    done(server, "simpleenroll").await + done(server, "simplereenroll").await
}

/// The test's Factory with its Device CAs.
async fn trust(server: &TestServer) -> FactoryTrust {
    let factories = server.ledger().factories().await.unwrap();
    factories.into_iter().find(|trust| trust.factory.id == server.factory).unwrap()
}

/// The Device CA that signs.
async fn issuing_ca(server: &TestServer) -> Certificate {
    trust(server).await.issuing_ca(UnixTime::now(), 0).expect("one is enabled").certificate.clone()
}

/// Makes an online Device CA whose certificate ends in so many days. The server signs with it from
/// its next reload on.
async fn add_online_ca(server: &TestServer, days: i64) -> Certificate {
    let random = SystemRandom::new();
    let ledger = server.ledger();
    let key = KeyStore::open(ledger, &server.config).await.unwrap();
    let factory = trust(server).await.factory;
    let wanted = [RequestedKey::DeviceCa];
    request_keys(ledger, &key, &factory, &wanted, &random, "test").await.unwrap();
    let pending = pending_requests(ledger, &factory).await.unwrap();
    let request = CertificationRequest::from_der(&pending[0].der).unwrap();
    let certificate = sign_device_ca(server, &request, days);
    let certificates = [certificate.clone()];
    install(ledger, &factory, &certificates, Installing::SetUp, "test").await.unwrap();
    certificate
}

fn sign_device_ca(server: &TestServer, request: &CertificationRequest, days: i64) -> Certificate {
    let random = SystemRandom::new();
    let now = UnixTime::now();
    let template = Template {
        serial: &Serial::random(&random).unwrap(),
        issuer: server.root.certificate().subject(),
        validity: Validity { not_before: now.plus(-DAY), not_after: now.plus(days * DAY) },
        subject: request.subject(),
        public_key: request.public_key(),
        extensions: &[
            Extension::certificate_authority(Some(0)).unwrap(),
            Extension::key_usage(KeyUsages::KeyCertSign).unwrap(),
            Extension::subject_key_identifier(request.public_key()).unwrap(),
        ],
    };
    let root = server.root.key();
    let to_be_signed = template.to_be_signed(root.algorithm()).unwrap();
    Certificate::from_der(&root.sign(to_be_signed, &random).unwrap()).unwrap()
}
