//! Bad input: refused with a plain reason, on record once, and the server goes on.

use std::path::Path;

use estd::pki::{Extension, to_est_text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::device::{name, new_key, request};
use crate::support::wire::{get_with, post, post_with};
use crate::support::{Device, FACTORY, TestServer, Tls};
use crate::{CACERTS, ENROLL, REENROLL, assert_refused, server};

const PKCS10: &str = "Content-Type: application/pkcs10\r\n";

/// A request of the corpus in `testdata/csr`; its subject is CN=device-1, OU=factory.
fn corpus(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/csr");
    to_est_text(&std::fs::read(folder.join(format!("{name}.der"))).unwrap())
}

/// Each body with the status and code that it gets.
fn bodies(device: &Device) -> Vec<(String, u16, &'static str)> {
    let own = device.certificate.subject();
    let with = |extensions: &[Extension]| request(own, &new_key(), extensions, None);
    let mut table = vec![
        (String::new(), 400, "csr-malformed"),
        ("this is not base64".to_owned(), 400, "csr-malformed"),
        ("AQIDBA==".to_owned(), 400, "csr-malformed"),
        (to_est_text(device.certificate.der()), 400, "csr-malformed"),
        (request(&name("device-2", FACTORY), &new_key(), &[], None), 403, "subject-mismatch"),
        (request(&name("device-1", "other"), &new_key(), &[], None), 403, "subject-mismatch"),
        (with(&[Extension::dns_name("x.example").unwrap()]), 403, "san-mismatch"),
    ];
    let odd = [
        ("truncated", 400, "csr-malformed"),
        ("trailing-byte", 400, "csr-malformed"),
        ("deep-nesting", 400, "csr-malformed"),
        ("huge-length", 400, "csr-malformed"),
        ("broken-signature", 400, "csr-signature"),
        ("rsa-sha1", 400, "csr-signature-algorithm"),
        ("rsa1024", 400, "key-not-allowed"),
        ("secp256k1", 400, "key-not-allowed"),
        ("p521", 400, "key-not-allowed"),
        ("compressed-point", 400, "key-not-allowed"),
        ("ca-true", 400, "ca-requested"),
        ("key-cert-sign", 400, "key-usage-not-allowed"),
        ("server-auth", 400, "extended-key-usage-not-allowed"),
        ("change-subject-name", 403, "subject-change-requested"),
        ("empty-subject", 403, "subject-mismatch"),
    ];
    table.extend(odd.map(|(name, status, code)| (corpus(name), status, code)));
    table
}

#[tokio::test]
async fn each_bad_request_has_its_refusal_and_its_record() {
    let server = server().await;
    let device = server.device("device-1");
    let mut recorded = Vec::new();
    for path in [ENROLL, REENROLL] {
        for (body, status, code) in bodies(&device) {
            let answer = server.send(Some(&device), &post(path, &body)).await.unwrap();
            assert_refused(&answer, status, code);
            recorded.push(code.to_owned());
        }
    }
    assert_eq!(server.refusals().await, recorded);
    assert_eq!(server.states("device-1").await, ["current"], "nothing was issued");
    server.stop().await;
}

#[tokio::test]
async fn h_14_another_content_type_is_415() {
    let server = server().await;
    let device = server.device("device-1");
    for headers in
        ["", "Content-Type: application/json\r\n", "Content-Type: application/pkcs7-mime\r\n"]
    {
        let request = post_with(REENROLL, headers, device.request().1.as_bytes());
        let answer = server.send(Some(&device), &request).await.unwrap();
        assert_refused(&answer, 415, "content-type");
    }
    server.stop().await;
}

/// The body is announced and never comes: there is an answer all the same.
#[tokio::test]
async fn h_08_more_than_64_kib_is_413_without_reading_on() {
    let server = server().await;
    let device = server.device("device-1");
    let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
    let head =
        format!("POST {REENROLL} HTTP/1.1\r\nHost: x\r\n{PKCS10}Content-Length: 99999999\r\n\r\n");
    assert_refused(&wire.send(head.as_bytes()).await.unwrap(), 413, "body-too-large");
    server.stop().await;
}

/// The client is still sending when the answer comes, and can read it.
#[tokio::test]
async fn h_08_the_answer_reaches_a_client_that_goes_on_sending() {
    let server = server().await;
    let device = server.device("device-1");
    let body = "A".repeat(512 * 1024);
    let answer = server.send(Some(&device), &post(REENROLL, &body)).await.unwrap();
    assert_refused(&answer, 413, "body-too-large");
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let head = format!(
        "POST {REENROLL} HTTP/1.1\r\nHost: x\r\n{PKCS10}Transfer-Encoding: chunked\r\n\r\n{chunk}"
    );
    let answer = server.send(Some(&device), head.as_bytes()).await.unwrap();
    assert_refused(&answer, 413, "body-too-large");
    server.stop().await;
}

#[tokio::test]
async fn h_08_64_kib_are_read() {
    let server = server().await;
    let device = server.device("device-1");
    let padded = device.request().1 + &" ".repeat(60 * 1024);
    server.reenroll(&device, &padded).await.certificate();
    server.stop().await;
}

/// I11: whatever comes, nobody else notices.
#[tokio::test]
async fn i11_rubbish_ends_its_own_connection_only() {
    let server = server().await;
    let device = server.device("device-1");
    let mut open = server.connect(Some(&device), &Tls::default()).await.unwrap();
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 3000], &[0x16, 3, 1, 0xff, 0xff, 1, 0]] {
        let mut raw = TcpStream::connect(server.server.est_address()).await.unwrap();
        raw.write_all(rubbish).await.unwrap();
        raw.shutdown().await.unwrap();
        // An alert, a reset or nothing: what matters is that it ends.
        let _ended = raw.read_to_end(&mut Vec::new()).await;
    }
    for head in ["POST", "\r\n\r\n\r\n", "GET /\u{0} HTTP/1.1\r\n\r\n", "GET x y z\r\n\r\n"] {
        let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
        wire.write(head.as_bytes()).await.unwrap();
    }
    let huge = format!("X: {}\r\n", "y".repeat(100_000));
    let answer = server.send(None, &get_with(CACERTS, &huge)).await.unwrap();
    assert_eq!(answer.status, 431);
    hang_up_in_the_body(&server, &device).await;
    open.send(&post(REENROLL, &device.request().1)).await.unwrap().certificate();
    assert_eq!(server.get(None, CACERTS).await.status, 200);
    server.stop().await;
}

async fn hang_up_in_the_body(server: &TestServer, device: &Device) {
    let mut wire = server.connect(Some(device), &Tls::default()).await.unwrap();
    let head =
        format!("POST {REENROLL} HTTP/1.1\r\nHost: x\r\n{PKCS10}Content-Length: 400\r\n\r\nMII");
    wire.write(head.as_bytes()).await.unwrap();
}
