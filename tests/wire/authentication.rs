//! Who may ask: no certificate, an accepted one, a registration authority.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use estd::pki::Extension;

use crate::support::device::{name, new_key, request};
use crate::support::wire::{post, post_with};
use crate::support::{Device, FACTORY, TestServer, Tls};
use crate::{ENROLL, REENROLL, assert_refused, server, server_with};

const CMC_RA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.28");

#[tokio::test]
async fn e_10_e_16_h_14_without_a_certificate_it_is_401() {
    let server = server().await;
    let body = server.device("device-1").request().1;
    for (path, headers) in [
        (ENROLL, ""),
        (REENROLL, ""),
        (ENROLL, "Authorization: Basic OnNlY3JldA==\r\n"),
        (ENROLL, "Authorization: Basic ZGV2aWNlOnNlY3JldA==\r\nCookie: a=b\r\n"),
    ] {
        let headers = format!("Content-Type: application/pkcs10\r\n{headers}");
        let answer = server.send(None, &post_with(path, &headers, body.as_bytes())).await.unwrap();
        assert_refused(&answer, 401, "client-certificate-required");
        assert!(answer.header("Www-Authenticate").is_some(), "{}", answer.head);
    }
    assert_eq!(server.refusals().await, ["client-certificate-required"; 4]);
    server.stop().await;
}

/// E-18: who asks is settled before what is asked is read.
#[tokio::test]
async fn e_18_nobodys_body_is_read() {
    let server = server().await;
    let answer = server.send(None, &post_with(ENROLL, "", &[0; 100])).await.unwrap();
    assert_refused(&answer, 401, "client-certificate-required");
    server.stop().await;
}

/// E-17, and each refusal on record although the client sees an alert only.
#[tokio::test]
async fn e_17_certificates_that_do_not_verify_end_the_handshake() {
    let server = server().await;
    let stranger = TestServer::start(crate::Backend::Sqlite).await;
    let client_auth = || Extension::extended_key_usage(vec![ID_KP_CLIENT_AUTH], true).unwrap();
    let server_auth = || Extension::extended_key_usage(vec![ID_KP_SERVER_AUTH], true).unwrap();
    let device = |extension: Extension, days| {
        let subject = name("device-1", FACTORY);
        Device::with_certificate(&server.factory_line, &subject, &[extension], days)
    };
    let cases = [
        (stranger.device("device-1"), "certificate-untrusted"),
        (device(client_auth(), -30..-1), "certificate-expired"),
        (device(client_auth(), 1..30), "certificate-not-yet-valid"),
        (device(server_auth(), -1..30), "certificate-unusable"),
    ];
    for (device, code) in &cases {
        for tls in [Tls::tls12(), Tls::tls13()] {
            let before = server.refusals().await.len();
            let refused = match server.connect(Some(device), &tls).await {
                Err(_) => true,
                Ok(mut wire) => wire.send(&post(REENROLL, &device.request().1)).await.is_err(),
            };
            assert!(refused, "{code}");
            crate::support::eventually(code, async || server.refusals().await.len() > before).await;
            assert_eq!(server.refusals().await[before..], [*code]);
        }
    }
    assert!(server.maybe_story("device-1").await.is_none());
    server.stop().await;
    stranger.stop().await;
}

#[tokio::test]
async fn e_25_a_listed_registration_authority_enrols_others() {
    let purposes = vec![ID_KP_CLIENT_AUTH, CMC_RA];
    let extension = Extension::extended_key_usage(purposes, true).unwrap();
    let plain = server().await;
    let subject = name("authority", FACTORY);
    let authority = Device::with_certificate(
        &plain.factory_line,
        &subject,
        std::slice::from_ref(&extension),
        -1..30,
    );
    let body = request(&name("device-1", FACTORY), &new_key(), &[], None);
    // The purpose alone makes nobody an authority: a stolen Device CA could give it to itself.
    let answer = plain.enroll(&authority, &body).await;
    assert_refused(&answer, 403, "subject-mismatch");
    plain.stop().await;

    let key = authority.certificate.public_key().fingerprint();
    let listed = server_with(&format!("[est]\nregistration_authorities = ['{key}']")).await;
    let authority =
        Device { certificate: certify_again(&listed, &authority, &extension), key: authority.key };
    let answer = listed.enroll(&authority, &body).await;
    assert_eq!(answer.certificate().subject(), &name("device-1", FACTORY));
    assert_eq!(listed.states("device-1").await, ["pending"]);
    let stranger = request(&name("device-1", "other"), &new_key(), &[], None);
    assert_refused(&listed.enroll(&authority, &stranger).await, 403, "ou-mismatch");
    let answer = listed.reenroll(&authority, &body).await;
    assert_refused(&answer, 403, "subject-mismatch");
    listed.stop().await;
}

/// The same key and name under another server's factory line.
fn certify_again(
    server: &TestServer,
    device: &Device,
    extension: &Extension,
) -> estd::pki::Certificate {
    use aws_lc_rs::rand::SystemRandom;
    use estd::clock::UnixTime;
    use estd::pki::{Certificate, Serial, Template, Validity};
    let (random, now, line) = (SystemRandom::new(), UnixTime::now(), &server.factory_line);
    let template = Template {
        serial: &Serial::random(&random).unwrap(),
        issuer: line.certificate().subject(),
        validity: Validity { not_before: now.plus(-60), not_after: now.plus(3600) },
        subject: device.certificate.subject(),
        public_key: device.key.public_key(),
        extensions: std::slice::from_ref(extension),
    };
    let to_be_signed = template.to_be_signed(line.key().algorithm()).unwrap();
    Certificate::from_der(&line.key().sign(to_be_signed, &random).unwrap()).unwrap()
}

/// I11: a stranger fills no disk with the names in its certificates.
#[tokio::test]
async fn i11_a_rejected_name_is_cut_on_record() {
    let server = server().await;
    let stranger = TestServer::start(crate::Backend::Sqlite).await;
    let subject = name(&"x".repeat(5000), FACTORY);
    let device = Device::with_certificate(&stranger.factory_line, &subject, &[], -1..30);
    if let Ok(mut wire) = server.connect(Some(&device), &Tls::tls13()).await {
        assert!(wire.send(&post(REENROLL, "")).await.is_err());
    }
    crate::support::eventually("a record", async || !server.refusals().await.is_empty()).await;
    let row = server.audit().await.pop().unwrap();
    assert_eq!(row.code, "certificate-untrusted");
    assert_eq!(row.subject.chars().count(), 256);
    server.stop().await;
    stranger.stop().await;
}
