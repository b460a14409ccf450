//! Who gets what: every kind of client by every request, each with its verdict.

use aws_lc_rs::rand::SystemRandom;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use estd::clock::UnixTime;
use estd::factory::Authority;
use estd::keys::SigningKey;
use estd::model::FactoryName;
use estd::pki::{Certificate, Extension, Serial, Template, Validity};

use crate::support::device::{name, new_key, request};
use crate::support::wire::{get_with, post};
use crate::support::{Backend, Device, FACTORY, TestServer, Tls, eventually};
use crate::{DAY, device_name, on_both_ledgers, path};

const CMC_RA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.28");

/// One kind of client: what becomes of its session, and of each request in it. `ok`, a refusal's code,
/// or for a whole row `-`: there is no session, because the handshake ends with the first code.
struct Row {
    client: &'static str,
    session: &'static str,
    /// cacerts.
    look: &'static str,
    /// simpleenroll for its own subject, another, and with a SubjectAltName that it does not have.
    enroll: [&'static str; 3],
    /// simplereenroll likewise.
    reenroll: [&'static str; 3],
}

const OWN: &str = "ok";
const SUBJECT: &str = "subject-mismatch";
const SAN: &str = "san-mismatch";
const NOBODY: &str = "client-certificate-required";

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("no certificate",         "ok",                       [NOBODY; 3],                    [NOBODY; 3]),
    row("unknown",                "ok",                       [OWN, SUBJECT, SAN],            [OWN, SUBJECT, SAN]),
    row("current",                "ok",                       [OWN, SUBJECT, SAN],            [OWN, SUBJECT, SAN]),
    row("pending",                "ok",                       [OWN, SUBJECT, SAN],            [OWN, SUBJECT, SAN]),
    row("superseded",             "credential-superseded",    ["credential-superseded", SUBJECT, SAN], ["credential-superseded", SUBJECT, SAN]),
    row("denied",                 "credential-denied",        ["credential-denied", SUBJECT, SAN], ["credential-denied", SUBJECT, SAN]),
    row("forged",                 "credential-unknown",       ["credential-unknown", SUBJECT, SAN], ["credential-unknown", SUBJECT, SAN]),
    row("another device's",       "ok",                       [SUBJECT; 3],                   [SUBJECT; 3]),
    row("disabled CA, known",     "ok",                       [OWN, SUBJECT, SAN],            [OWN, SUBJECT, SAN]),
    row("disabled CA, unknown",   "ca-disabled-unregistered", ["ca-disabled-unregistered", SUBJECT, SAN], ["ca-disabled-unregistered", SUBJECT, SAN]),
    row("disabled CA, forged",    "credential-unknown",       ["credential-unknown", SUBJECT, SAN], ["credential-unknown", SUBJECT, SAN]),
    row("registration authority", "ok",                       [OWN, OWN, OWN],                ["authority-rekeyed", SUBJECT, SAN]),
    row("bootstrap",              "ok",                       [OWN, SUBJECT, SAN],            ["bootstrap-only-enrols"; 3]),
    row("bootstrap, device in use", "ok",                     ["bootstrap-repeated", SUBJECT, SAN], ["bootstrap-only-enrols"; 3]),
    ends("revoked CA",            "ca-revoked"),
    ends("expired",               "certificate-expired"),
    ends("future",                "certificate-not-yet-valid"),
    ends("wrong purpose",         "certificate-unusable"),
    ends("stranger's CA",         "certificate-untrusted"),
];

const fn row(
    client: &'static str,
    session: &'static str,
    enroll: [&'static str; 3],
    reenroll: [&'static str; 3],
) -> Row {
    Row { client, session, look: "ok", enroll, reenroll }
}

const fn ends(client: &'static str, code: &'static str) -> Row {
    Row { client, session: code, look: "-", enroll: ["-"; 3], reenroll: ["-"; 3] }
}

on_both_ledgers! {
    async fn e_16_e_17_i4_i5_i6_i7_every_client_by_every_request(backend: Backend) {
        let field = Field::new(backend).await;
        let mut cells = Vec::new();
        for (number, row) in TABLE.iter().enumerate() {
            let requests = [("cacerts", 0, row.look)].into_iter()
                .chain((0..3).map(|column| ("simpleenroll", column, row.enroll[column])))
                .chain((0..3).map(|column| ("simplereenroll", column, row.reenroll[column])));
            for (operation, column, verdict) in requests {
                let device = format!("device-{number}-{operation}-{column}");
                let client = field.client(row.client, &device).await;
                cells.push((row, operation, column, verdict, device, client));
            }
        }
        field.take_effect().await;
        for (row, operation, column, verdict, device, client) in cells {
            let what = format!("{}: {operation} {column}", row.client);
            field.check(row, operation, column, verdict, &device, client.as_ref(), &what).await;
        }
        assert!(field.server.ledger().verify_audit().await.unwrap().is_ok());
        field.server.stop().await;
    }
}

/// A server with CAs of every kind.
struct Field {
    server: TestServer,
    disabled: Authority,
    revoked: Authority,
    manufacturer: Authority,
    stranger: Authority,
    authority: SigningKey,
}

impl Field {
    async fn new(backend: Backend) -> Self {
        let authority = new_key();
        let appointed = authority.public_key().fingerprint();
        let toml = format!("[est]\nregistration_authorities = ['{appointed}']");
        let server = TestServer::start_with(backend, &toml).await;
        let disabled = server.add_device_ca("disabled line").await;
        let revoked = server.add_device_ca("revoked line").await;
        let root = |name| {
            let name = FactoryName::parse(name).unwrap();
            Authority::root(&name, UnixTime::now(), &SystemRandom::new()).unwrap()
        };
        let (manufacturer, stranger) = (root("manufacturer"), root("stranger"));
        let certificate = manufacturer.certificate();
        server.ledger().add_bootstrap_ca(server.factory, certificate, "test").await.unwrap();
        server.server.reload().await.unwrap();
        Self { server, disabled, revoked, manufacturer, stranger, authority }
    }

    /// What this kind of client presents in the name of `device`.
    async fn client(&self, kind: &str, device: &str) -> Option<Device> {
        let (server, line) = (&self.server, &self.server.factory_line);
        let by = |ca: &Authority| Device::new(ca, FACTORY, device);
        let (subject, client_auth) = (name(device, FACTORY), [ID_KP_CLIENT_AUTH]);
        let with = |purposes: &[ObjectIdentifier], days| {
            let purposes = Extension::extended_key_usage(purposes.to_vec(), true).unwrap();
            Device::with_certificate(line, &subject, &[purposes], days)
        };
        Some(match kind {
            "no certificate" => return None,
            "unknown" => by(line),
            "current" => self.seen(by(line)).await,
            "pending" => server.rotate(&self.seen(by(line)).await).await,
            "superseded" => {
                let old = self.seen(by(line)).await;
                server.session(&server.rotate(&old).await).await;
                old
            }
            "denied" => {
                let denied = self.seen(by(line)).await;
                let (ledger, name) = (server.ledger(), device_name(device));
                assert!(ledger.deny_device(server.factory, &name, "test").await.unwrap());
                denied
            }
            "forged" => {
                self.seen(by(line)).await;
                by(line)
            }
            "another device's" => {
                self.seen(Device::new(line, FACTORY, &format!("holder-of-{device}"))).await
            }
            "disabled CA, known" => self.seen(by(&self.disabled)).await,
            "disabled CA, unknown" => by(&self.disabled),
            "disabled CA, forged" => {
                self.seen(by(line)).await;
                by(&self.disabled)
            }
            "registration authority" => self.appointed(),
            "bootstrap" => by(&self.manufacturer),
            "bootstrap, device in use" => {
                self.seen(by(line)).await;
                by(&self.manufacturer)
            }
            "revoked CA" => self.seen(by(&self.revoked)).await,
            "expired" => with(&client_auth, -2..-1),
            "future" => with(&client_auth, 1..2),
            "wrong purpose" => with(&[ID_KP_SERVER_AUTH], -1..30),
            "stranger's CA" => by(&self.stranger),
            other => panic!("{other} is in the table and not here"),
        })
    }

    async fn seen(&self, device: Device) -> Device {
        self.server.session(&device).await;
        device
    }

    /// The one registration authority, by its appointed key.
    fn appointed(&self) -> Device {
        let (random, now, line) = (SystemRandom::new(), UnixTime::now(), &self.server.factory_line);
        let purposes = vec![ID_KP_CLIENT_AUTH, CMC_RA];
        let template = Template {
            // Always the same certificate: it is one device.
            serial: &Serial::from_contents(&[1]),
            issuer: line.certificate().subject(),
            validity: Validity {
                not_before: UnixTime(now.0 / DAY * DAY),
                not_after: now.plus(DAY),
            },
            subject: &name("authority", FACTORY),
            public_key: self.authority.public_key(),
            extensions: &[Extension::extended_key_usage(purposes, true).unwrap()],
        };
        let to_be_signed = template.to_be_signed(line.key().algorithm()).unwrap();
        let der = line.key().sign(to_be_signed, &random).unwrap();
        let pem = self.authority.to_pem().unwrap();
        let key = rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes());
        let key: rustls_pki_types::PrivateKeyDer<'_> = key.unwrap();
        let key = SigningKey::from_der(key.secret_der()).unwrap();
        Device::switched(Certificate::from_der(&der).unwrap(), key)
    }

    /// Disables one Device CA and revokes another, once their devices are known.
    async fn take_effect(&self) {
        self.server.set_ca_state(self.disabled.certificate(), "disabled").await;
        self.server.set_ca_state(self.revoked.certificate(), "revoked").await;
        self.server.server.reload().await.unwrap();
    }

    #[expect(clippy::too_many_arguments, reason = "a cell of the table has that many sides")]
    async fn check(
        &self,
        row: &Row,
        operation: &str,
        column: usize,
        verdict: &str,
        device: &str,
        client: Option<&Device>,
        what: &str,
    ) {
        let server = &self.server;
        let before = self.refused().await.len();
        let credentials = self.credentials(device).await;
        let answer = async {
            let tls = Tls::default();
            server
                .connect(client, &tls)
                .await?
                .send(&message(operation, column, device, client))
                .await
        };
        // The connection has ended when this returns, and with it what is recorded of it.
        let answer = answer.await;
        let mut expected: Vec<&str> = Vec::new();
        match verdict {
            "-" => {
                assert!(answer.is_err(), "{what}");
                expected.push(row.session);
            }
            "ok" => {
                let answer = answer.unwrap();
                assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            }
            code => {
                let answer = answer.unwrap();
                let status = if code == NOBODY { 401 } else { 403 };
                assert_eq!(answer.status, status, "{what}: {}", answer.text());
                assert!(
                    answer.text().ends_with(&format!(" ({code})\n")),
                    "{what}: {}",
                    answer.text()
                );
                expected.push(code);
            }
        }
        // A session is judged once, whatever is asked in it: by the enrolment, or by itself (I10).
        if verdict != "-" && row.session != "ok" && verdict != row.session {
            expected.push(row.session);
        }
        let recorded = async || self.refused().await.len() >= before + expected.len();
        eventually(what, recorded).await;
        let mut refused = self.refused().await.split_off(before);
        refused.sort_unstable();
        expected.sort_unstable();
        assert_eq!(refused, expected, "{what}");
        let issued = operation != "cacerts" && verdict == "ok";
        let after = self.credentials(device).await;
        if !issued && client.is_some() && row.client != "unknown" {
            assert_eq!(after, credentials, "{what}: nothing was issued");
        }
        if row.session == "ok" && !row.client.starts_with("bootstrap") {
            // I3: what the device presented is accepted still.
            if let Some(client) = client {
                server.session(client).await;
                assert_eq!(self.refused().await.len(), before + expected.len(), "{what}");
            }
        }
    }

    async fn refused(&self) -> Vec<String> {
        self.server.refusals().await
    }

    async fn credentials(&self, device: &str) -> usize {
        let story = self.server.maybe_story(device).await;
        story.map_or(0, |story| story.credentials.len())
    }
}

/// The request of a cell. Another device's certificate asks for the subject of `device`.
fn message(operation: &str, column: usize, device: &str, client: Option<&Device>) -> Vec<u8> {
    if operation == "cacerts" {
        return get_with(&path(operation), "");
    }
    let own = client.map_or_else(|| name(device, FACTORY), |one| one.certificate.subject().clone());
    let holder = own.common_name().is_some_and(|name| name.starts_with("holder-of-"));
    let own = if holder { name(device, FACTORY) } else { own };
    let san = Extension::dns_name("extra.example").unwrap();
    let body = match column {
        0 => request(&own, &new_key(), &[], None),
        1 => request(&name(&format!("other-than-{device}"), FACTORY), &new_key(), &[], None),
        _ => request(&own, &new_key(), &[san], None),
    };
    post(&path(operation), &body)
}
