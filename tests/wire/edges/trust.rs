//! Which certificates are trusted, and which are handed out.

use aws_lc_rs::rand::SystemRandom;
use const_oid::db::rfc5280::ID_KP_CLIENT_AUTH;
use estd::clock::UnixTime;
use estd::factory::{Authority, Installing, install};
use estd::keys::SigningKey;
use estd::pki::{
    Certificate, CertificationRequest, Extension, KeyUsages, Name, PublicKey, Serial, Template,
    Validity,
};

use super::{CACERTS, assert_handshake_refused, server};
use crate::support::device::{name, new_key};
use crate::support::{Device, FACTORY, TestServer, Tls};

/// A serial number that takes 21 bytes, as half of those that fioctl makes do.
const LONG_SERIAL: [u8; 21] =
    [0, 0xc3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// The explicit trust anchors are the Device CAs alone: not the root above them, nor what a device
/// signed.
#[tokio::test]
async fn e_17_only_what_a_device_ca_signed_is_trusted() {
    let server = server().await;
    let owned = server.device("device-1");
    let by_root = signed(server.root.certificate(), server.root.key(), &random_serial());
    let by_device = signed(&owned.certificate, &owned.key, &random_serial());
    let foreign = foreign_twin(&server);
    let by_twin = signed(foreign.certificate(), foreign.key(), &random_serial());
    let chain = vec![owned.certificate.clone(), server.factory_line.certificate().clone()];
    for tls in [Tls::tls12(), Tls::tls13()] {
        let with_chain = Tls { extra_chain: chain.clone(), ..tls.clone() };
        assert_handshake_refused(&server, &by_root, &tls, "certificate-untrusted").await;
        assert_handshake_refused(&server, &by_device, &with_chain, "certificate-untrusted").await;
        assert_handshake_refused(&server, &by_twin, &tls, "certificate-untrusted").await;
    }
    assert!(server.maybe_story("device-2").await.is_none());
    server.stop().await;
}

/// Seen on real CAs and real devices.
#[tokio::test]
async fn e_17_serials_of_21_bytes_are_accepted_and_never_made() {
    let server = server().await;
    let serial = Serial::from_contents(&LONG_SERIAL);
    let line = device_ca(&server, &name("second line", FACTORY), &serial).await;
    let device = signed(&line.0, &line.1, &serial);
    assert_eq!(device.certificate.serial().contents().len(), 21);

    let answer = server.reenroll(&device, &device.request().1).await;
    assert!(answer.certificate().serial().contents().len() <= 17);
    assert_eq!(server.states("device-2").await, ["current", "pending"]);
    server.stop().await;
}

/// A name that is not DER (its SET is unsorted) would change if anybody encoded it again.
#[tokio::test]
async fn e_28_e_29_a_device_ca_is_handed_out_in_the_bytes_that_it_came_in() {
    let server = server().await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/csr/unsorted-rdn.der");
    let request = CertificationRequest::from_der(&std::fs::read(file).unwrap()).unwrap();
    let serial = Serial::from_contents(&LONG_SERIAL);
    let (odd, _) = device_ca(&server, request.subject(), &serial).await;

    let found = server.get(None, CACERTS).await.certificates();
    let found: Vec<&[u8]> = found.iter().map(Certificate::der).collect();
    let known = [server.root.certificate(), server.factory_line.certificate(), &odd];
    for certificate in known {
        assert!(found.contains(&certificate.der()), "{}", certificate.subject());
    }
    assert_eq!(found.len(), 4, "these and the online Device CA");
    server.stop().await;
}

/// What is issued can be verified with what cacerts hands out, up to the root.
#[tokio::test]
async fn e_29_an_issued_certificate_chains_to_the_root() {
    let server = server().await;
    let device = server.device("device-1");
    let issued = server.reenroll(&device, &device.request().1).await.certificate();
    let bag = server.get(None, CACERTS).await.certificates();
    let issuers: Vec<_> = bag.iter().filter(|one| issued.verify_issued_by(one).is_ok()).collect();
    assert_eq!(issuers.len(), 1);
    let root = bag.iter().find(|one| issuers[0].verify_issued_by(one).is_ok()).unwrap();
    assert_eq!(root.der(), server.root.certificate().der());
    root.verify_issued_by(root).unwrap();
    server.stop().await;
}

fn random_serial() -> Serial {
    Serial::random(&SystemRandom::new()).unwrap()
}

/// A certificate for device-2, signed by whoever this is.
fn signed(issuer: &Certificate, key: &SigningKey, serial: &Serial) -> Device {
    let own = new_key();
    let extensions = [
        Extension::key_usage(KeyUsages::DigitalSignature).unwrap(),
        Extension::extended_key_usage(vec![ID_KP_CLIENT_AUTH], true).unwrap(),
    ];
    let subject = name("device-2", FACTORY);
    let certificate = sign(issuer, key, serial, &subject, own.public_key(), &extensions);
    Device { certificate, key: own }
}

/// A Device CA below the root, added to the Factory.
async fn device_ca(
    server: &TestServer,
    subject: &Name,
    serial: &Serial,
) -> (Certificate, SigningKey) {
    let key = new_key();
    let extensions = [
        Extension::certificate_authority(Some(0)).unwrap(),
        Extension::key_usage(KeyUsages::KeyCertSign).unwrap(),
    ];
    let (root, root_key) = (server.root.certificate(), server.root.key());
    let certificate = sign(root, root_key, serial, subject, key.public_key(), &extensions);
    let ledger = server.ledger();
    let factory = ledger.factories().await.unwrap().remove(0).factory;
    let certificates = [certificate.clone()];
    install(ledger, &factory, &certificates, Installing::DeviceCas, "test").await.unwrap();
    server.server.reload().await.unwrap();
    (certificate, key)
}

/// A Device CA of another root, under the name of the factory line.
fn foreign_twin(server: &TestServer) -> Authority {
    let (random, now) = (SystemRandom::new(), UnixTime::now());
    let factory = estd::model::FactoryName::parse(FACTORY).unwrap();
    let root = Authority::root(&factory, now, &random).unwrap();
    let twin = root.device_ca(&factory, "factory line", now, &random).unwrap();
    assert_eq!(twin.certificate().subject(), server.factory_line.certificate().subject());
    twin
}

fn sign(
    issuer: &Certificate,
    key: &SigningKey,
    serial: &Serial,
    subject: &Name,
    public_key: &PublicKey,
    extensions: &[Extension],
) -> Certificate {
    let now = UnixTime::now();
    let template = Template {
        serial,
        issuer: issuer.subject(),
        validity: Validity { not_before: now.plus(-60), not_after: now.plus(30 * 24 * 3600) },
        subject,
        public_key,
        extensions,
    };
    let to_be_signed = template.to_be_signed(key.algorithm()).unwrap();
    Certificate::from_der(&key.sign(to_be_signed, &SystemRandom::new()).unwrap()).unwrap()
}
