//! Whose certificate is asked for: subject, SubjectAltName, registration authorities.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::ID_KP_CLIENT_AUTH;
use estd::clock::UnixTime;
use estd::keys::SigningKey;
use estd::pki::{Certificate, Extension, Serial, Template, Validity, to_est_text};

use super::{ENROLL, REENROLL, assert_refused, server, server_with};
use crate::support::device::{name, new_key, request};
use crate::support::wire::post;
use crate::support::{Device, FACTORY, TestServer};

const CMC_RA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.28");

/// The value is compared, not how critical it is.
#[tokio::test]
async fn e_36_the_san_asked_for_is_the_one_that_is_there() {
    let server = server().await;
    let own = name("device-1", FACTORY);
    let san = Extension::dns_name("device-1.example").unwrap();
    let device = with_extension(&server, "device-1", san.clone());
    let value = device.certificate.extensions().subject_alt_name.clone().unwrap();
    let critical = Extension::subject_alt_name(&value, true);
    let other = Extension::dns_name("device-2.example").unwrap();
    for path in [ENROLL, REENROLL] {
        for same in [&san, &critical] {
            let body = request(&own, &new_key(), std::slice::from_ref(same), None);
            let issued = server.send(Some(&device), &post(path, &body)).await.unwrap();
            let issued = issued.certificate();
            assert_eq!(issued.extensions().subject_alt_name.as_ref(), Some(&value));
        }
        for different in [&[][..], std::slice::from_ref(&other)] {
            let body = request(&own, &new_key(), different, None);
            let answer = server.send(Some(&device), &post(path, &body)).await.unwrap();
            assert_refused(&answer, 403, "san-mismatch");
        }
    }
    server.stop().await;
}

/// The current certificate is the one that the device presents, whatever it had before.
#[tokio::test]
async fn e_36_the_certificate_in_use_is_the_measure() {
    let server = server().await;
    let first = with_extension(&server, "device-1", Extension::dns_name("one.example").unwrap());
    let second = server.rotate(&first).await;
    let third = server.rotate(&second).await;
    assert_eq!(third.certificate.subject().der(), first.certificate.subject().der());
    let without = request(third.certificate.subject(), &new_key(), &[], None);
    assert_refused(&server.reenroll(&third, &without).await, 403, "san-mismatch");
    server.stop().await;
}

#[tokio::test]
async fn e_34_change_subject_name_is_granted_to_nobody() {
    let authority = new_key();
    let listed = authority.public_key().fingerprint();
    let server = server_with(&format!("[est]\nregistration_authorities = ['{listed}']")).await;
    let authority = registration_authority(&server, authority, vec![ID_KP_CLIENT_AUTH, CMC_RA]);
    let file = "testdata/csr/change-subject-name.der";
    let der = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    for asker in [&server.device("device-1"), &authority] {
        for path in [ENROLL, REENROLL] {
            let answer = server.send(Some(asker), &post(path, &to_est_text(&der))).await.unwrap();
            assert_refused(&answer, 403, "subject-change-requested");
        }
    }
    assert_eq!(server.refusals().await, ["subject-change-requested"; 4]);
    server.stop().await;
}

/// Listed by its key, and yet without id-kp-cmcRA in its certificate.
#[tokio::test]
async fn e_25_a_listed_key_without_the_purpose_is_no_authority() {
    let key = new_key();
    let listed = key.public_key().fingerprint();
    let server = server_with(&format!("[est]\nregistration_authorities = ['{listed}']")).await;
    let device = registration_authority(&server, key, vec![ID_KP_CLIENT_AUTH]);
    let body = request(&name("device-1", FACTORY), &new_key(), &[], None);
    assert_refused(&server.enroll(&device, &body).await, 403, "subject-mismatch");
    assert!(server.maybe_story("device-1").await.is_none());
    server.stop().await;
}

/// What an authority enrols has the rules of any other request, its own renewal too.
#[tokio::test]
async fn e_25_an_authority_is_bound_by_the_rules_of_requests() {
    let key = new_key();
    let listed = key.public_key().fingerprint();
    let server = server_with(&format!("[est]\nregistration_authorities = ['{listed}']")).await;
    let authority = registration_authority(&server, key, vec![ID_KP_CLIENT_AUTH, CMC_RA]);

    let san = Extension::dns_name("device-1.example").unwrap();
    let ca = Extension::certificate_authority(None).unwrap();
    let subject = name("device-1", FACTORY);
    let nobody = name("", FACTORY);
    let refused =
        [(&subject, ca, "ca-requested", 400), (&nobody, san.clone(), "identity-malformed", 403)];
    for (subject, extension, code, status) in refused {
        let body = request(subject, &new_key(), &[extension], None);
        assert_refused(&server.enroll(&authority, &body).await, status, code);
    }

    let key = new_key();
    let body = request(&subject, &key, &[san], None);
    let certificate = server.enroll(&authority, &body).await.certificate();
    assert_eq!(certificate.extensions().dns_names(), ["device-1.example"]);
    let purposes = certificate.extensions().extended_key_usage.clone().unwrap();
    assert_eq!(purposes, [ID_KP_CLIENT_AUTH], "no authority makes another");
    server.session(&Device::switched(certificate, key)).await;
    assert_eq!(server.states("device-1").await, ["current"]);
    server.stop().await;
}

/// It is a device itself: it stays an authority, by its key, and its Device CA is needed.
#[tokio::test]
async fn e_25_an_authority_renews_itself_with_its_key() {
    let key = new_key();
    let listed = key.public_key().fingerprint();
    let server = server_with(&format!("[est]\nregistration_authorities = ['{listed}']")).await;
    let authority = registration_authority(&server, key, vec![ID_KP_CLIENT_AUTH, CMC_RA]);
    let rekeyed = server.reenroll(&authority, &authority.request().1).await;
    assert_refused(&rekeyed, 403, "authority-rekeyed");

    let body = authority.request_for(&authority.key);
    let certificate = server.reenroll(&authority, &body).await.certificate();
    let renewed = Device::switched(certificate, authority.key);
    let purposes = renewed.certificate.extensions().extended_key_usage.clone().unwrap();
    assert_eq!(purposes, [ID_KP_CLIENT_AUTH, CMC_RA]);
    let body = request(&name("device-1", FACTORY), &new_key(), &[], None);
    server.enroll(&renewed, &body).await.certificate();
    assert_eq!(server.states("authority").await, ["superseded", "current"]);
    server.stop().await;
}

/// A device of the factory line with this extension.
fn with_extension(server: &TestServer, device: &str, extension: Extension) -> Device {
    let subject = name(device, FACTORY);
    Device::with_certificate(&server.factory_line, &subject, &[extension], -1..30)
}

/// A certificate of the factory line for this key, with these purposes.
fn registration_authority(
    server: &TestServer,
    key: SigningKey,
    purposes: Vec<ObjectIdentifier>,
) -> Device {
    let (random, now, line) = (SystemRandom::new(), UnixTime::now(), &server.factory_line);
    let template = Template {
        serial: &Serial::random(&random).unwrap(),
        issuer: line.certificate().subject(),
        validity: Validity { not_before: now.plus(-60), not_after: now.plus(3600) },
        subject: &name("authority", FACTORY),
        public_key: key.public_key(),
        extensions: &[Extension::extended_key_usage(purposes, true).unwrap()],
    };
    let to_be_signed = template.to_be_signed(line.key().algorithm()).unwrap();
    let der = line.key().sign(to_be_signed, &random).unwrap();
    Device { certificate: Certificate::from_der(&der).unwrap(), key }
}
