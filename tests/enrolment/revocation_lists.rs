//! The CRLs of online Device CAs, for gateways that are not ours.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::BASE64;
use estd::factory::RevocationLists;
use estd::keys::{ActiveSnapshot, KeyStore};
use estd::pki::{RevocationList, Serial};

use crate::support::{Backend, TestServer, root_file};
use crate::{on_both_ledgers, trust};

/// RFC 5280 §5.3.1.
const SUPERSEDED: u8 = 4;
const PRIVILEGE_WITHDRAWN: u8 = 9;

/// The online Device CA's CRL as a server that starts now would make it.
async fn der(server: &TestServer) -> Vec<u8> {
    let key = KeyStore::open(server.ledger(), &server.config).await.unwrap();
    let profiles = server.config.profiles.clone();
    let active = ActiveSnapshot::load(server.ledger(), &key, None, profiles, HashSet::new()).await;
    let active = Arc::new(ArcSwap::from_pointee(active.unwrap()));
    let lists = RevocationLists::new(server.ledger().clone(), active);
    let trust = trust(server).await;
    lists.of(trust.online_cas().next().unwrap()).await.unwrap().to_vec()
}

/// Its serial numbers with their reasons.
async fn revoked(server: &TestServer) -> Vec<(Serial, u8)> {
    let list = RevocationList::from_der(&der(server).await).unwrap();
    let trust = trust(server).await;
    list.verify_issued_by(&trust.online_cas().next().unwrap().certificate).unwrap();
    list.entries().iter().map(|entry| (entry.serial.clone(), entry.reason.unwrap())).collect()
}

on_both_ledgers! {
    async fn crl_names_what_was_superseded_or_denied_and_nothing_else(backend: Backend) {
        let server = TestServer::start(backend).await;
        let old = server.device("device-1");
        let first = server.rotate(&old).await;
        server.session(&first).await;
        // The factory line's own certificates are not this Device CA's to revoke.
        assert_eq!(revoked(&server).await, []);

        let second = server.rotate(&first).await;
        assert_eq!(revoked(&server).await, []);
        server.session(&second).await;
        let gone = (first.certificate.serial().clone(), SUPERSEDED);
        assert_eq!(revoked(&server).await, std::slice::from_ref(&gone));

        server.sql("UPDATE credential SET state = 'denied' WHERE state = 'current'").await;
        let denied = (second.certificate.serial().clone(), PRIVILEGE_WITHDRAWN);
        assert_eq!(revoked(&server).await, [gone.clone(), denied]);
        // What has expired is refused anyway.
        server.sql("UPDATE credential SET not_after = 1 WHERE state = 'denied'").await;
        assert_eq!(revoked(&server).await, [gone]);
        server.stop().await;
    }

    async fn crl_has_a_new_and_larger_number_when_it_says_something_new(backend: Backend) {
        let server = TestServer::start(backend).await;
        let number = async || {
            let text = openssl(&server, &["crl", "-noout", "-crlnumber"], &der(&server).await);
            u64::from_str_radix(text.trim().trim_start_matches("crlNumber=0x"), 16).unwrap()
        };
        assert_eq!(number().await, 1);
        assert_eq!(number().await, 1);
        let first = server.rotate(&server.device("device-1")).await;
        server.session(&first).await;
        let second = server.rotate(&first).await;
        server.session(&second).await;
        assert_eq!(number().await, 2);

        // Six hours on, the same is said again, with a later end.
        server.sql("UPDATE revocation_list SET made_at = made_at - 6 * 3600").await;
        assert_eq!(number().await, 3);
        assert_eq!(number().await, 3);
        server.stop().await;
    }

    /// Two replicas sign at once: one number is one CRL.
    async fn crl_of_one_number_is_the_same_everywhere(backend: Backend) {
        let server = TestServer::start(backend).await;
        let made: Vec<Vec<u8>> = {
            let (a, b, c) = tokio::join!(der(&server), der(&server), der(&server));
            vec![a, b, c]
        };
        assert_eq!(made[0], made[1]);
        assert_eq!(made[1], made[2]);
        server.stop().await;
    }
}

/// What openssl makes of it: verified by the Device CA, refused certificate and all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crl_is_what_openssl_checks_certificates_by() {
    let server = TestServer::start(Backend::Sqlite).await;
    let first = server.rotate(&server.device("device-1")).await;
    server.session(&first).await;
    let second = server.rotate(&first).await;
    server.session(&second).await;

    let ca = trust(&server).await.online_cas().next().unwrap().certificate.clone();
    let path = |name: &str| server.folder.path().join(name).display().to_string();
    let pem = |label, der: &[u8]| estd::pki::to_pem(label, der).unwrap();
    let root = std::fs::read_to_string(root_file(&server)).unwrap();
    std::fs::write(path("cas.pem"), root + &pem("CERTIFICATE", ca.der())).unwrap();
    std::fs::write(path("crl.pem"), pem("X509 CRL", &der(&server).await)).unwrap();
    for (device, revoked) in [(&first, true), (&second, false)] {
        std::fs::write(path("device.pem"), pem("CERTIFICATE", device.certificate.der())).unwrap();
        let verified = Command::new("openssl")
            .args(["verify", "-crl_check", "-CAfile", &path("cas.pem"), "-CRLfile"])
            .args([path("crl.pem"), path("device.pem")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        assert_eq!(verified.status.success(), !revoked, "{said}");
        assert_eq!(said.contains("certificate revoked"), revoked, "{said}");
    }
    server.stop().await;
}

/// RFC 8295, and a plain file over HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crl_is_handed_out_to_anybody() {
    let server = TestServer::start(Backend::Sqlite).await;
    let answer = server.get(None, "/.well-known/est/crls").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let content_type = answer.header("Content-Type");
    assert_eq!(content_type, Some("application/pkcs7-mime; smime-type=crls-only"));
    let pkcs7 = BASE64.decode(answer.text().trim().as_bytes()).unwrap();
    let text = openssl(&server, &["pkcs7", "-print"], &pkcs7);
    assert!(text.contains("lastUpdate"), "{text}");

    let ca = trust(&server).await.online_cas().next().unwrap().certificate.clone();
    let key = ca.public_key().fingerprint();
    let url = |name: &str| format!("http://{}/crl/{name}.crl", server.server.api_address());
    let curl = |name: &str| Command::new("curl").args(["-sf", &url(name)]).output().unwrap();
    let list = RevocationList::from_der(&curl(&key.to_string()).stdout).unwrap();
    list.verify_issued_by(&ca).unwrap();
    let line = server.factory_line.certificate().public_key().fingerprint();
    for nothing in [line.to_string(), "x".to_owned(), "%00".to_owned()] {
        assert_eq!(curl(&nothing).status.code(), Some(22), "{nothing}");
    }
    server.stop().await;
}

fn openssl(server: &TestServer, arguments: &[&str], der: &[u8]) -> String {
    let path = server.folder.path().join("openssl.der");
    std::fs::write(&path, der).unwrap();
    let mut command = Command::new("openssl");
    command.args(arguments).args(["-inform", "DER", "-in"]).arg(&path);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
