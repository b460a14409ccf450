//! The documented life of a Factory's PKI, from nothing to a Device CA that is revoked, as a fleet
//! manager with fioctl and devices in the field live it. One continuous story, on both ledgers.

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::keys::{KeyEncryptionKey, SigningKey};
use estd::ledger::KeyPlace;
use estd::pki::{Certificate, Serial, Template, Validity};
use serde_json::{Value, json};

use crate::offline::{ACME, CERTS, Field, meta, pem};
use crate::on_both_ledgers;
use crate::registration::{openssl_request, register};
use crate::support::device::{name, new_key};
use crate::support::wire::{Answer, Wire, get_with, post};
use crate::support::{Device, Tls, eventually};

const EST_HOST: &str = "est.acme.example";
const REENROLL: &str = "/.well-known/est/simplereenroll";
const CACERTS: &str = "/.well-known/est/cacerts";

on_both_ledgers! {
    async fn i8_the_documented_life_of_a_factory(backend: Backend) {
        let field = Field::new(backend).await;

        // fioctl keys ca create; fioctl keys est authorize
        let csrs = field.request(&["first-time-init", "tls-csr", "ca-csr"]).await;
        let first = field.sign_ca(&csrs["ca-csr"]);
        let line = field.local_ca("line 1");
        let both = pem(&first) + &pem(line.certificate());
        let created = json!({
            "root-crt": pem(field.root.certificate()),
            "tls-crt": pem(&field.sign_server(&csrs["tls-csr"])),
            "ca-crt": both,
            "change-meta": meta(),
        });
        field.fioctl.patch(CERTS, &created).await.json(200);
        let csrs = field.request(&["est-tls-csr"]).await;
        let est = pem(&field.sign_server(&csrs["est-tls-csr"]));
        field.patch("est-tls-crt", &est).await.json(200);

        // lmp-device-register, twice; and one device from the line.
        let mut one = registered(&field, "device-1").await;
        let mut two = registered(&field, "device-2").await;
        let mut three = Device::new(&line, ACME, "device-3");
        for device in [&one, &two, &three] {
            session(&field, device).await;
        }

        // fioctl keys ca add-device-ca --online
        let csrs = field.request(&["ca-csr"]).await;
        let second = field.sign_ca(&csrs["ca-csr"]);
        field.patch("ca-crt", &(both + &pem(&second))).await.json(200);

        // The first Device CA's key is stolen: fioctl keys ca disable-device-ca
        let serial = first.serial();
        field.patch("ca-revoke-crl", &field.crl(&[(serial, Some(6))])).await.json(200);
        let disabled = field.fioctl.get(CERTS).await.json(200)["disabled-ca-serials"].clone();
        assert_eq!(disabled, json!([serial.to_decimal()]));

        // What the thief makes is refused, for a known device and for a new one, and rings.
        let thief = stolen(&field, &first).await;
        assert_refused(&reenroll(&field, &thief("device-1")).await, "credential-unknown");
        assert_refused(&reenroll(&field, &thief("device-9")).await, "ca-disabled-unregistered");
        let alarms = field.server.audit().await.into_iter().filter(|row| row.outcome == "alarm");
        assert_eq!(alarms.map(|row| row.subject).collect::<Vec<_>>(), ["device-1"]);

        // The legitimate ones rotate, to the second Device CA. Two of them prove it.
        one = rotated(&field, &one, &second).await;
        session(&field, &one).await;
        two = rotated(&field, &two, &second).await;
        three = rotated(&field, &three, &second).await;
        session(&field, &three).await;

        // fioctl keys ca revoke-device-ca: not while device-2 may still hold the old one.
        let revoke = field.crl(&[(serial, Some(9))]);
        let why = field.patch("ca-revoke-crl", &revoke).await.list(409);
        assert!(why[0].contains(&format!("estd device-ca revoke {serial} --strand 1")), "{why:?}");
        assert_eq!(why[1..], ["device-2"]);
        let mut old_session = wire(&field, None).await;
        session(&field, &two).await;
        field.patch("ca-revoke-crl", &revoke).await.json(200);

        // Its certificates end in the handshake; what was open and everybody else goes on.
        assert!(handshake_ends(&field, &thief("device-1")).await);
        let recorded = async || field.server.refusals().await.last().unwrap() == "ca-revoked";
        eventually("its handshake is on record", recorded).await;
        assert_eq!(old_session.send(&get_with(CACERTS, "")).await.unwrap().status, 200);
        for device in [&one, &two, &three] {
            session(&field, device).await;
            rotated(&field, device, &second).await;
        }
        let new = Device::new(&line, ACME, "device-4");
        session(&field, &new).await;
        assert_eq!(field.shown("ca-crt").await, pem(line.certificate()) + &pem(&second));
        field.server.ledger().verify_audit().await.unwrap().unwrap();
        field.server.stop().await;
    }
}

/// What `lmp-device-register` leaves on a device.
async fn registered(field: &Field, uuid: &str) -> Device {
    let subject = format!("/CN={uuid}/OU={ACME}");
    let (csr, key) = openssl_request(field.server.folder.path(), &subject);
    let files = register(&field.fioctl, uuid, uuid, &csr).await.json(201);
    assert_eq!(files["root.crt"], pem(field.root.certificate()));
    Device::switched(certificate(&files["client.pem"]), key)
}

/// Makes devices with the Device CA's own key, which the ledger has wrapped and a thief has plain.
async fn stolen(field: &Field, ca: &Certificate) -> impl Fn(&str) -> Device + use<> {
    let (ledger, config) = (field.server.ledger(), &field.server.config);
    let fingerprint = ca.public_key().fingerprint();
    let mut keys = ledger.installed_keys().await.unwrap().into_iter();
    let stored = keys.find(|key| key.public_key == fingerprint).unwrap();
    let KeyPlace::Ledger { wrapped } = stored.place else { panic!("it is in no token") };
    let wrapping = KeyEncryptionKey::of_ledger(ledger, &config.key_encryption()).await.unwrap();
    let key = SigningKey::unwrap(&wrapped, fingerprint, &wrapping).unwrap();
    let issuer = ca.subject().clone();
    move |device| {
        let (own, random, now) = (new_key(), SystemRandom::new(), UnixTime::now());
        let template = Template {
            serial: &Serial::random(&random).unwrap(),
            issuer: &issuer,
            validity: Validity { not_before: now.plus(-60), not_after: now.plus(3600) },
            subject: &name(device, ACME),
            public_key: own.public_key(),
            extensions: &[],
        };
        let to_be_signed = template.to_be_signed(key.algorithm()).unwrap();
        let der = key.sign(to_be_signed, &random).unwrap();
        Device::switched(Certificate::from_der(&der).unwrap(), own)
    }
}

async fn wire(field: &Field, device: Option<&Device>) -> Wire {
    let tls = Tls { server_name: EST_HOST, ..Tls::default() };
    let address = field.server.server.est_address();
    Wire::connect(address, field.root.certificate(), device, &tls).await.unwrap()
}

async fn session(field: &Field, device: &Device) {
    let answer = wire(field, Some(device)).await.send(&get_with(CACERTS, "")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn reenroll(field: &Field, device: &Device) -> Answer {
    let body = device.request().1;
    wire(field, Some(device)).await.send(&post(REENROLL, &body)).await.unwrap()
}

/// The device with a new key and certificate, which must be of this Device CA.
async fn rotated(field: &Field, device: &Device, by: &Certificate) -> Device {
    let (key, body): (SigningKey, String) = device.request();
    let answer = wire(field, Some(device)).await.send(&post(REENROLL, &body)).await.unwrap();
    let certificate = answer.certificate();
    certificate.verify_issued_by(by).unwrap();
    Device::switched(certificate, key)
}

async fn handshake_ends(field: &Field, device: &Device) -> bool {
    let tls = Tls { server_name: EST_HOST, ..Tls::default() };
    let address = field.server.server.est_address();
    let root = field.root.certificate();
    match Wire::connect(address, root, Some(device), &tls).await {
        Err(_) => true,
        // TLS 1.3 tells a client only when it reads.
        Ok(mut wire) => wire.send(&get_with(CACERTS, "")).await.is_err(),
    }
}

#[track_caller]
fn assert_refused(answer: &Answer, code: &str) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains(&format!("({code})")), "{}", answer.text());
}

fn certificate(pem: &Value) -> Certificate {
    Certificate::from_pem(pem.as_str().unwrap().as_bytes()).unwrap().pop().unwrap()
}
