//! What an answer says by its status and head, for every outcome.

use data_encoding::{BASE64_NOPAD, BASE64URL};
use estd::pki::from_est_text;

use super::{CACERTS, ENROLL, PKCS10, REENROLL, assert_refused, server, server_with};
use crate::support::wire::{get_with, post, post_with};
use crate::support::{Answer, Device, TestServer};

const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";
const PKCS7: &str = "application/pkcs7-mime";
const TEXT: &str = "text/plain; charset=utf-8";

/// One answer of every kind that this device and nobody get.
async fn every_kind(
    server: &TestServer,
    device: &Device,
) -> Vec<(Answer, u16, Option<&'static str>)> {
    let good = || device.request().1;
    let json = "Content-Type: application/json\r\n";
    let too_long = format!(
        "POST {REENROLL} HTTP/1.1\r\nHost: localhost\r\n{PKCS10}Content-Length: 65537\r\n\r\n"
    );
    let fioconfig = "/.well-known/est/fioconfig/simplereenroll";
    let cases = [
        (Some(device), get_with(CACERTS, ""), 200, Some(PKCS7)),
        (Some(device), post(ENROLL, &good()), 200, Some(CERTS_ONLY)),
        (Some(device), post(REENROLL, &good()), 200, Some(CERTS_ONLY)),
        (Some(device), post(fioconfig, &good()), 201, Some(PKCS7)),
        (Some(device), get_with("/.well-known/est/csrattrs", ""), 204, None),
        (Some(device), post(REENROLL, "rubbish"), 400, Some(TEXT)),
        (None, post(REENROLL, &good()), 401, Some(TEXT)),
        (Some(device), post(REENROLL, &server.device("another").request().1), 403, Some(TEXT)),
        (Some(device), post("/.well-known/est/nobody/simpleenroll", &good()), 404, Some(TEXT)),
        (Some(device), get_with("/nowhere", ""), 404, Some(TEXT)),
        (Some(device), get_with(REENROLL, ""), 405, Some(TEXT)),
        (Some(device), too_long.into_bytes(), 413, Some(TEXT)),
        (Some(device), post_with(REENROLL, json, good().as_bytes()), 415, Some(TEXT)),
        (Some(device), post("/.well-known/est/serverkeygen", &good()), 501, Some(TEXT)),
    ];
    let mut answers = Vec::new();
    for (device, request, status, content_type) in cases {
        answers.push((server.send(device, &request).await.unwrap(), status, content_type));
    }
    answers
}

#[tokio::test]
async fn e_06_e_39_status_and_content_type_carry_the_outcome() {
    let server = server().await;
    let device = server.device("device-1");
    for (answer, status, content_type) in every_kind(&server, &device).await {
        assert_eq!(answer.status, status, "{}", answer.head);
        assert_eq!(answer.header("Content-Type"), content_type, "{}", answer.head);
        if status >= 400 {
            let reason = answer.text();
            assert_eq!(reason.lines().count(), 1, "{reason}");
            let (sentence, code) = reason.trim_end().split_once(" (").unwrap();
            assert!(sentence.split(' ').count() >= 3 && code.ends_with(')'), "{reason}");
        }
    }
    server.stop().await;
}

/// 204 has no length (RFC 9110 §8.6); every other answer has.
#[tokio::test]
async fn h_01_h_02_h_03_hold_for_every_kind_of_answer() {
    let server = server().await;
    let device = server.device("device-1");
    for (answer, status, _) in every_kind(&server, &device).await {
        let head = &answer.head;
        let length = answer.header("Content-Length").map(|text| text.parse::<usize>().unwrap());
        assert_eq!(length, (status != 204).then_some(answer.body.len()), "{head}");
        assert!(answer.header("Transfer-Encoding").is_none(), "{head}");
        assert!(head.len() + 4 < 1024, "{head}");
        for line in head.split("\r\n").skip(1) {
            let name = line.split(':').next().unwrap();
            assert!(name.split('-').all(is_title_case), "{name}");
        }
    }
    server.stop().await;
}

fn is_title_case(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_uppercase())
        && !part[1..].contains(|c: char| c.is_ascii_uppercase())
}

#[tokio::test]
async fn e_09_nothing_rests_on_cookies_or_basic() {
    let server = server().await;
    let device = server.device("device-1");
    let headers = format!("{PKCS10}Authorization: Basic OnNlY3JldA==\r\nCookie: session=1\r\n");
    let request = post_with(REENROLL, &headers, device.request().1.as_bytes());
    server.send(Some(&device), &request).await.unwrap().certificate();
    for (answer, ..) in every_kind(&server, &device).await {
        assert!(!answer.head.to_ascii_lowercase().contains("set-cookie"), "{}", answer.head);
    }
    server.stop().await;
}

/// Who offers no way to log on is never asked for a password: the scheme is none that clients know.
#[tokio::test]
async fn e_10_only_401_asks_for_credentials_and_never_for_a_password() {
    let server = server().await;
    let device = server.device("device-1");
    for (answer, status, _) in every_kind(&server, &device).await {
        let asks = answer.header("Www-Authenticate");
        assert_eq!(asks.is_some(), status == 401, "{}", answer.head);
        let scheme = asks.map(|text| text.split(' ').next().unwrap().to_ascii_lowercase());
        assert!(!matches!(scheme.as_deref(), Some("basic" | "digest")), "{}", answer.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn e_27_e_31_each_operation_takes_one_method() {
    let server = server().await;
    let device = server.device("device-1");
    let operations = [
        ("cacerts", "GET"),
        ("csrattrs", "GET"),
        ("simpleenroll", "POST"),
        ("simplereenroll", "POST"),
        ("fioconfig/simplereenroll", "POST"),
    ];
    for (operation, right) in operations {
        let wrong = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        for method in wrong.into_iter().filter(|method| *method != right) {
            let request = format!(
                "{method} /.well-known/est/{operation} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            );
            let answer = server.send(Some(&device), request.as_bytes()).await.unwrap();
            assert_refused(&answer, 405, "method-not-allowed");
            assert_eq!(answer.header("Allow"), Some(right), "{method} {operation}");
        }
    }
    server.stop().await;
}

/// 202 where an operator must decide, 503 where no Device CA can sign.
#[tokio::test]
async fn h_06_retry_after_is_a_number_of_seconds() {
    let server = server_with("[est.labels.manual]\napproval = 'manual'").await;
    let device = server.device("device-1");
    let manual = post("/.well-known/est/manual/simplereenroll", &device.request().1);
    let waiting = server.send(Some(&device), &manual).await.unwrap();
    server.sql("UPDATE device_ca SET state = 'disabled' WHERE kind = 'online'").await;
    let unavailable = server.reenroll(&device, &device.request().1).await;
    for (answer, status) in [(waiting, 202), (unavailable, 503)] {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.header("Retry-After").unwrap().parse::<u32>().unwrap() > 0);
    }
    server.stop().await;
}

/// RFC 4648 §4: that alphabet, padded, and nothing but the DER in it.
#[tokio::test]
async fn c_01_payloads_are_base64_of_der() {
    let server = server().await;
    let device = server.device("device-1");
    for answer in
        [server.get(None, CACERTS).await, server.reenroll(&device, &device.request().1).await]
    {
        let text = answer.text().trim_end_matches('\n');
        let of_alphabet = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        assert!(text.len().is_multiple_of(4) && text.chars().all(of_alphabet), "{text}");
        answer.certificates();
    }
    for body in other_encodings(&device) {
        let answer = server.send(Some(&device), &post_with(REENROLL, PKCS10, &body)).await.unwrap();
        assert_refused(&answer, 400, "csr-malformed");
    }
    server.stop().await;
}

/// A good request as bare DER, hexadecimal, base64url, and without the padding that it needs.
fn other_encodings(device: &Device) -> [Vec<u8>; 4] {
    let good = || from_est_text(device.request().1.as_bytes()).unwrap();
    let until = |fits: fn(&[u8]) -> bool| loop {
        let der = good();
        if fits(&der) {
            return der;
        }
    };
    let differs = |der: &[u8]| BASE64URL.encode(der).contains(['-', '_']);
    let is_padded = |der: &[u8]| !der.len().is_multiple_of(3);
    [
        good(),
        data_encoding::HEXLOWER.encode(&good()).into_bytes(),
        BASE64URL.encode(&until(differs)).into_bytes(),
        BASE64_NOPAD.encode(&until(is_padded)).into_bytes(),
    ]
}
