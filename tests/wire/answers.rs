//! What answers look like, to the byte.

use estd::pki::to_est_text;

use crate::support::wire::{get_with, post, post_with};
use crate::support::{Device, TestServer, Tls};
use crate::{CACERTS, REENROLL, server};

const FIOCONFIG: &str = "/.well-known/est/fioconfig/simplereenroll";

async fn reenroll_with(
    server: &TestServer,
    device: &Device,
    headers: &str,
) -> crate::support::Answer {
    let headers = format!("Content-Type: application/pkcs10\r\n{headers}");
    let request = post_with(REENROLL, &headers, device.request().1.as_bytes());
    server.send(Some(device), &request).await.unwrap()
}

#[tokio::test]
async fn e_28_e_29_cacerts_are_the_root_and_every_device_ca_in_their_own_bytes() {
    let server = server().await;
    let answer = server.get(None, CACERTS).await;
    assert_eq!(answer.header("Content-Type"), Some("application/pkcs7-mime"));
    let factory = server.ledger().factories().await.unwrap().remove(0);
    let mut expected: Vec<Vec<u8>> =
        factory.ca_certificates().iter().map(|one| one.der().to_vec()).collect();
    assert_eq!(expected.len(), 3, "root, online Device CA, factory line");
    let mut found: Vec<Vec<u8>> =
        answer.certificates().iter().map(|one| one.der().to_vec()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    server.stop().await;
}

#[tokio::test]
async fn e_38_h_12_h_13_enrolments_answer_200_with_only_the_issued_certificate() {
    let server = server().await;
    let device = server.device("device-1");
    let (key, body) = device.request();
    let answer = server.reenroll(&device, &body).await;
    assert_eq!(answer.status, 200);
    let content_type = "application/pkcs7-mime; smime-type=certs-only";
    assert_eq!(answer.header("Content-Type"), Some(content_type));
    assert_eq!(answer.certificate().public_key(), key.public_key());
    server.stop().await;
}

#[tokio::test]
async fn h_13_the_label_fioconfig_answers_201_and_the_bare_type() {
    let server = server().await;
    let device = server.device("device-1");
    let answer = server.send(Some(&device), &post(FIOCONFIG, &device.request().1)).await.unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("Content-Type"), Some("application/pkcs7-mime"));
    answer.certificate();
    server.stop().await;
}

#[tokio::test]
async fn h_01_h_02_h_03_heads_are_small_title_case_and_tell_the_length() {
    let server = server().await;
    let device = server.device("device-1");
    let answers = [
        server.get(None, CACERTS).await,
        server.reenroll(&device, &device.request().1).await,
        server.reenroll(&device, "rubbish").await,
        server.get(None, "/nowhere").await,
    ];
    for answer in answers {
        let length = answer.header("Content-Length").unwrap().parse::<usize>().unwrap();
        assert_eq!(length, answer.body.len());
        assert!(answer.header("Transfer-Encoding").is_none());
        assert!(answer.head.len() < 1024);
        for line in answer.head.split("\r\n").skip(1) {
            let name = line.split(':').next().unwrap();
            let title_case = name.split('-').all(|part| part.starts_with(char::is_uppercase));
            assert!(title_case, "{name}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn h_04_nothing_is_compressed() {
    let server = server().await;
    let device = server.device("device-1");
    let answer = reenroll_with(&server, &device, "Accept-Encoding: gzip\r\n").await;
    assert!(answer.header("Content-Encoding").is_none());
    answer.certificate();
    server.stop().await;
}

#[tokio::test]
async fn h_05_connection_close_ends_in_close_notify() {
    let server = server().await;
    for tls in [Tls::tls12(), Tls::tls13()] {
        let mut wire = server.connect(None, &tls).await.unwrap();
        let request = get_with(CACERTS, "Connection: close\r\n");
        assert_eq!(wire.send(&request).await.unwrap().status, 200);
        assert!(wire.ends_cleanly().await);
    }
    server.stop().await;
}

#[tokio::test]
async fn h_05_without_it_the_connection_serves_on() {
    let server = server().await;
    let device = server.device("device-1");
    let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
    for _ in 0..3 {
        wire.send(&post(REENROLL, &device.request().1)).await.unwrap().certificate();
        assert_eq!(wire.send(&get_with(CACERTS, "")).await.unwrap().status, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn h_10_csrattrs_is_204_without_a_body() {
    let server = server().await;
    let answer = server.get(None, "/.well-known/est/csrattrs").await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    server.stop().await;
}

#[tokio::test]
async fn h_11_base64_is_one_line_with_one_line_feed() {
    let server = server().await;
    let device = server.device("device-1");
    let answers =
        [server.get(None, CACERTS).await, server.reenroll(&device, &device.request().1).await];
    for answer in answers {
        let text = answer.text();
        assert_eq!(text.find('\n'), Some(text.len() - 1));
    }
    server.stop().await;
}

#[tokio::test]
async fn h_11_a_big_bag_is_wrapped_for_libest_alone() {
    let server = server().await;
    for name in ["line 2", "line 3"] {
        server.add_device_ca(name).await;
    }
    let one_line = server.get(None, CACERTS).await;
    let request = get_with(CACERTS, "User-Agent: libest 3.2.0\r\n");
    let wrapped = server.send(None, &request).await.unwrap();
    assert!(one_line.text().lines().count() == 1 && one_line.body.len() > 1024);
    assert!(wrapped.text().lines().all(|line| line.len() < 1024));
    assert_eq!(wrapped.text().replace('\n', ""), one_line.text().trim_end());
    server.stop().await;
}

#[tokio::test]
async fn e_33_the_key_usage_asked_for_is_in_the_certificate() {
    use estd::pki::{Extension, KeyUsages};
    let server = server().await;
    let device = server.device("device-1");
    let signature = KeyUsages::DigitalSignature;
    let cases = [
        (None, &[0x03, 0x02, 0x07, 0x80]),
        (Some(signature.into()), &[0x03, 0x02, 0x07, 0x80]),
        (Some(signature | KeyUsages::KeyAgreement), &[0x03, 0x02, 0x03, 0x88]),
    ];
    for (asked, expected) in cases {
        let asked: Option<estd::pki::KeyUsageSet> = asked;
        let extensions: Vec<_> =
            asked.into_iter().map(|usages| Extension::key_usage(usages).unwrap()).collect();
        let key = crate::support::device::new_key();
        let subject = device.certificate.subject();
        let body = crate::support::device::request(subject, &key, &extensions, None);
        let issued = server.reenroll(&device, &body).await.certificate();
        let value: &[u8] = expected;
        let extension = [&[0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04], value];
        let extension = extension.concat();
        let found = issued.der().windows(extension.len()).any(|window| window == extension);
        assert!(found, "{asked:?}: {}", to_est_text(issued.der()));
        assert!(!issued.extensions().ca);
        assert_eq!(
            issued.extensions().extended_key_usage.as_deref().map(<[_]>::len),
            Some(1),
            "clientAuth alone"
        );
    }
    server.stop().await;
}
