//! The edges: what stands beside the main cases.

mod bad_input;
mod identity;
mod limits;
mod outcomes;
mod tls;
mod trust;

use crate::support::wire::get_with;
use crate::support::{Device, TestServer, Tls, eventually};
use crate::{CACERTS, ENROLL, REENROLL, assert_refused, server, server_with};

const PKCS10: &str = "Content-Type: application/pkcs10\r\n";

/// A POST whose body comes in chunks of at most 4 KiB; `ended` says whether the last one comes.
fn chunked(path: &str, body: &[u8], ended: bool) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{PKCS10}Transfer-Encoding: chunked\r\n\r\n"
    );
    let mut request = head.into_bytes();
    for chunk in body.chunks(4096) {
        request.extend(format!("{:x}\r\n", chunk.len()).bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    if ended {
        request.extend(b"0\r\n\r\n");
    }
    request
}

/// The device is not let in, and that leaves exactly one record, with this code.
async fn assert_handshake_refused(server: &TestServer, device: &Device, tls: &Tls, code: &str) {
    let before = server.refusals().await.len();
    let refused = match server.connect(Some(device), tls).await {
        Err(_) => true,
        Ok(mut wire) => wire.send(&get_with(CACERTS, "")).await.is_err(),
    };
    assert!(refused, "{code}");
    eventually(code, async || server.refusals().await.len() > before).await;
    assert_eq!(server.refusals().await[before..], [code]);
}
