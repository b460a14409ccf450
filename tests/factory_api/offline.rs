//! The other side of fioctl: a root that is kept offline, and what it signs.

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::factory::Authority;
use estd::ledger::NewFactory;
use estd::model::{FactoryId, FactoryName, HostName};
use estd::pki::{
    Certificate, CertificationRequest, RevocationTemplate, RevokedSerial, Serial, to_pem,
};
use serde_json::{Value, json};

use crate::support::fioctl::Fioctl;
use crate::support::{Backend, TestServer};

pub const ACME: &str = "acme";
pub const CERTS: &str = "/ota/factories/acme/certs/";

/// A server on which a second Factory, acme, waits for its PKI; and the root that it will have.
pub struct Field {
    pub server: TestServer,
    pub fioctl: Fioctl,
    pub root: Authority,
    pub acme: FactoryId,
}

impl Field {
    pub async fn new(backend: Backend) -> Self {
        let server = TestServer::start(backend).await;
        let new = NewFactory {
            name: FactoryName::parse(ACME).unwrap(),
            est_host: HostName::parse("est.acme.example").unwrap(),
            gateway_host: HostName::parse("gateway.acme.example").unwrap(),
            any_organizational_unit: false,
        };
        let acme = server.ledger().add_factory(new, "test").await.unwrap();
        server.server.reload().await.unwrap();
        Self { fioctl: Fioctl::new(&server), root: root(ACME), server, acme }
    }

    /// One that `fioctl keys ca create` has set up; gives its local Device CA too.
    pub async fn set_up(backend: Backend) -> (Self, Authority) {
        let field = Self::new(backend).await;
        let csrs = field.request(&["first-time-init", "tls-csr", "ca-csr"]).await;
        let local = field.local_ca("line 1");
        let body = json!({
            "root-crt": pem(field.root.certificate()),
            "tls-crt": pem(&field.sign_server(&csrs["tls-csr"])),
            "ca-crt": pem(&field.sign_ca(&csrs["ca-csr"])) + "\n" + &pem(local.certificate()),
            "change-meta": meta(),
        });
        field.fioctl.patch(CERTS, &body).await.json(200);
        (field, local)
    }

    /// Asks for these requests, with all four members as fioctl does.
    pub async fn request(&self, asked: &[&str]) -> Value {
        let members = ["first-time-init", "ca-csr", "est-tls-csr", "tls-csr"];
        let members = members.map(|member| (member.to_owned(), asked.contains(&member).into()));
        let body = Value::Object(members.into_iter().collect());
        self.fioctl.post(CERTS, &body).await.json(201)
    }

    pub async fn patch(&self, field: &str, value: &str) -> crate::support::fioctl::Answer {
        self.fioctl.patch(CERTS, &json!({ field: value, "change-meta": meta() })).await
    }

    /// What GET shows in a field.
    pub async fn shown(&self, field: &str) -> String {
        let shown = self.fioctl.get(CERTS).await.json(200);
        shown[field].as_str().unwrap_or_default().to_owned()
    }

    pub fn sign_ca(&self, csr: &Value) -> Certificate {
        let csr = read_csr(csr);
        let (now, random) = (UnixTime::now(), SystemRandom::new());
        self.root.certify_device_ca(csr.subject(), csr.public_key(), now, &random).unwrap()
    }

    /// For whatever host the request asks.
    pub fn sign_server(&self, csr: &Value) -> Certificate {
        let csr = read_csr(csr);
        let host = HostName::parse(&csr.extensions().dns_names()[0]).unwrap();
        let (now, random) = (UnixTime::now(), SystemRandom::new());
        self.root.certify_server(csr.subject(), &host, csr.public_key(), now, &random).unwrap()
    }

    pub fn local_ca(&self, name: &str) -> Authority {
        let factory = FactoryName::parse(ACME).unwrap();
        self.root.device_ca(&factory, name, UnixTime::now(), &SystemRandom::new()).unwrap()
    }

    /// A CRL of the root as fioctl makes it: number 1, a quarter of an hour.
    pub fn crl(&self, entries: &[(&Serial, Option<u8>)]) -> String {
        let now = UnixTime::now();
        crl(&self.root, entries, now..now.plus(15 * 60))
    }

    /// The audit rows of acme that were written after this many.
    pub async fn rows_after(&self, count: usize) -> Vec<(String, String, String)> {
        let rows = self.server.audit().await.into_iter().skip(count);
        let own = rows.filter(|row| row.factory == Some(self.acme.0));
        own.map(|row| (row.action, row.outcome, row.detail)).collect()
    }
}

/// As fioctl sends it with every upload.
pub fn meta() -> Value {
    json!({ "created-at": "", "created-by": "", "updated-at": "", "updated-by": "" })
}

pub fn root(factory: &str) -> Authority {
    let name = FactoryName::parse(factory).unwrap();
    Authority::root(&name, UnixTime::now(), &SystemRandom::new()).unwrap()
}

pub fn pem(certificate: &Certificate) -> String {
    to_pem("CERTIFICATE", certificate.der()).unwrap()
}

/// A request as it was sent: one PEM block with at most one newline after it.
pub fn read_csr(csr: &Value) -> CertificationRequest {
    let text = csr.as_str().unwrap();
    assert!(text.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{text}");
    assert!(text.trim_end_matches('\n').len() + 1 >= text.len(), "{text:?}");
    let request = CertificationRequest::from_pem(text.as_bytes()).unwrap();
    request.verify().unwrap();
    request
}

pub fn crl(
    issuer: &Authority,
    entries: &[(&Serial, Option<u8>)],
    time: std::ops::Range<UnixTime>,
) -> String {
    let entries: Vec<RevokedSerial> = entries
        .iter()
        .map(|(serial, reason)| RevokedSerial {
            serial: (*serial).clone(),
            at: time.start,
            reason: *reason,
        })
        .collect();
    let template = RevocationTemplate {
        issuer: issuer.certificate().subject(),
        this_update: time.start,
        next_update: time.end,
        number: 1,
        authority_key_identifier: &issuer.certificate().key_identifier().unwrap(),
        entries: &entries,
    };
    let to_be_signed = template.to_be_signed(issuer.key().algorithm()).unwrap();
    let der = issuer.key().sign(to_be_signed, &SystemRandom::new()).unwrap();
    to_pem("X509 CRL", &der).unwrap()
}
