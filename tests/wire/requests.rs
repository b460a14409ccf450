//! What is tolerated in requests.

use crate::support::Tls;
use crate::support::wire::{post, post_with};
use crate::{REENROLL, server};

const PKCS10: &str = "Content-Type: application/pkcs10\r\n";

#[tokio::test]
async fn c_02_content_transfer_encoding_is_ignored() {
    let server = server().await;
    let device = server.device("device-1");
    for encoding in ["base64", "binary", "7bit", "8bit", "rubbish", ""] {
        let headers = format!("{PKCS10}Content-Transfer-Encoding: {encoding}\r\n");
        let request = post_with(REENROLL, &headers, device.request().1.as_bytes());
        server.send(Some(&device), &request).await.unwrap().certificate();
    }
    server.stop().await;
}

#[tokio::test]
async fn c_03_h_07_wrapped_armoured_and_chunked_bodies_are_read() {
    let server = server().await;
    let device = server.device("device-1");
    let one_line = || device.request().1.trim_end().to_owned();
    let wrapped = |line_end: &str| {
        let text = one_line();
        let lines: Vec<&[u8]> = text.as_bytes().chunks(64).collect();
        String::from_utf8(lines.join(line_end.as_bytes())).unwrap() + line_end
    };
    let armoured = |label: &str| {
        format!("-----BEGIN {label}-----\r\n{}-----END {label}-----\r\n", wrapped("\r\n"))
    };
    let bodies = [
        one_line(),
        wrapped("\n"),
        wrapped("\r\n"),
        wrapped(" \t\r\n"),
        armoured("CERTIFICATE REQUEST"),
        armoured("NEW CERTIFICATE REQUEST"),
    ];
    for body in bodies {
        let plain = post(REENROLL, &body);
        server.send(Some(&device), &plain).await.unwrap().certificate();
        let chunked = chunked(&body);
        server.send(Some(&device), &chunked).await.unwrap().certificate();
    }
    server.stop().await;
}

fn chunked(body: &str) -> Vec<u8> {
    let head = format!(
        "POST {REENROLL} HTTP/1.1\r\nHost: localhost\r\n{PKCS10}Transfer-Encoding: chunked\r\n\r\n"
    );
    let chunks: Vec<String> = body
        .as_bytes()
        .chunks(100)
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap()))
        .collect();
    format!("{head}{}0\r\n\r\n", chunks.concat()).into_bytes()
}

#[tokio::test]
async fn h_07_the_content_type_may_have_parameters_and_any_case() {
    let server = server().await;
    let device = server.device("device-1");
    for of_type in
        ["application/pkcs10; charset=us-ascii", "Application/PKCS10", "APPLICATION/PKCS10 ;x=y"]
    {
        let headers = format!("content-type: {of_type}\r\n");
        let request = post_with(REENROLL, &headers, device.request().1.as_bytes());
        server.send(Some(&device), &request).await.unwrap().certificate();
    }
    server.stop().await;
}

#[tokio::test]
async fn h_09_a_client_may_send_its_ca_along() {
    let server = server().await;
    let device = server.device("device-1");
    let chain = vec![server.factory_line.certificate().clone(), server.root.certificate().clone()];
    for tls in [Tls::tls12(), Tls::tls13()] {
        let tls = Tls { extra_chain: chain.clone(), ..tls };
        let mut wire = server.connect(Some(&device), &tls).await.unwrap();
        wire.send(&post(REENROLL, &device.request().1)).await.unwrap().certificate();
    }
    server.stop().await;
}

#[tokio::test]
async fn e_37_renewing_with_the_same_key_and_rekeying_both_work() {
    let server = server().await;
    let device = server.device("device-1");
    let renewed = server.reenroll(&device, &device.request_for(&device.key)).await.certificate();
    assert_eq!(renewed.public_key(), device.certificate.public_key());
    assert_ne!(renewed.serial(), device.certificate.serial());
    let (key, body) = device.request();
    let rekeyed = server.reenroll(&device, &body).await.certificate();
    assert_eq!(rekeyed.public_key(), key.public_key());
    server.stop().await;
}
