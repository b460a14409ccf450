//! The corpus of odd requests in `testdata/csr`, each judged as the table in `testdata/README.md`
//! says, by a device that is entitled to its subject and SubjectAltName.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;

use super::super::authenticate;
use super::*;
use crate::factory::Authority;
use crate::keys::SigningKey;
use crate::model::{
    DeviceCa, DeviceCaId, DeviceCaKind, DeviceCaState, Factory, FactoryName, FactoryTrust,
    HostName, Issuer, Peer, PeerCertificate, Snapshot,
};
use crate::pki::{NameBuilder, Serial, Template};

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: i64 = 24 * 3600;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// The rows of the table: a name and the verdict.
fn table() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(testdata().join("README.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells.as_slice() {
            [name, _, verdict] if name.starts_with('`') => {
                Some((name.trim_matches('`').to_owned(), (*verdict).to_owned()))
            }
            _ => None,
        }
    });
    rows.collect()
}

/// A Factory with one online Device CA that ends in `ca_days` days.
fn trust(ca_days: i64) -> (FactoryTrust, SigningKey) {
    let random = SystemRandom::new();
    let name = FactoryName::parse("factory").unwrap();
    let root = Authority::root(&name, NOW, &random).unwrap();
    let key = SigningKey::generate(&random).unwrap();
    let template = Template {
        serial: &Serial::random(&random).unwrap(),
        issuer: root.certificate().subject(),
        validity: Validity { not_before: NOW.plus(-DAY), not_after: NOW.plus(ca_days * DAY) },
        subject: &NameBuilder::default().common_name("Device CA").build().unwrap(),
        public_key: key.public_key(),
        extensions: &[Extension::certificate_authority(Some(0)).unwrap()],
    };
    let to_be_signed = template.to_be_signed(key.algorithm()).unwrap();
    let der = root.key().sign(to_be_signed, &random).unwrap();
    let host = HostName::parse("est.example").unwrap();
    let factory = Factory {
        id: FactoryId(1),
        name,
        est_host: host.clone(),
        gateway_host: host,
        any_organizational_unit: true,
        root: Some(root.certificate().clone()),
    };
    let ca = DeviceCa {
        id: DeviceCaId(2),
        factory: factory.id,
        kind: DeviceCaKind::Online,
        state: DeviceCaState::Enabled,
        certificate: Certificate::from_der(&der).unwrap(),
    };
    (FactoryTrust { factory, device_cas: vec![ca], bootstrap_cas: vec![], has_targets: false }, key)
}

/// A device whose certificate has the subject and SubjectAltName of `request`.
fn peer(request: Option<&CertificationRequest>, trust: &FactoryTrust, ca: &SigningKey) -> Peer {
    let random = SystemRandom::new();
    let default = NameBuilder::default().common_name("device-1").build().unwrap();
    let san = request.and_then(|request| request.extensions().subject_alt_name.as_deref());
    let extensions: Vec<_> =
        san.map(|value| Extension::subject_alt_name(value, false)).into_iter().collect();
    let key = SigningKey::generate(&random).unwrap();
    let template = Template {
        serial: &Serial::random(&random).unwrap(),
        issuer: trust.device_cas[0].certificate.subject(),
        validity: Validity { not_before: NOW.plus(-DAY), not_after: NOW.plus(DAY) },
        subject: request.map_or(&default, CertificationRequest::subject),
        public_key: key.public_key(),
        extensions: &extensions,
    };
    let der = ca.sign(template.to_be_signed(ca.algorithm()).unwrap(), &random).unwrap();
    Peer {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        factory: trust.factory.id,
        certificate: Some(PeerCertificate {
            certificate: Arc::new(Certificate::from_der(&der).unwrap()),
            issuer: Issuer::DeviceCa(trust.device_cas[0].id),
        }),
        channel_binding: Some([7; 32]),
    }
}

fn read(name: &str) -> Result<CertificationRequest, Malformed> {
    let file = testdata().join("csr").join(format!("{name}.der"));
    CertificationRequest::from_der(&std::fs::read(file).unwrap())
}

fn grant(name: &str, ca_days: i64) -> Result<Grant, Refusal> {
    let csr = read(name).map_err(|why| Refusal::CsrMalformed(why.to_string()))?;
    let (trust, ca) = trust(ca_days);
    let peer = peer(Some(&csr), &trust, &ca);
    let snapshot = Snapshot { factories: vec![trust], ..Snapshot::default() };
    let requester = authenticate(&peer, &snapshot, NOW)?;
    let profile = EnrolmentProfile::default();
    let operation = Operation::SimpleReenroll;
    let request = EnrolmentRequest { operation, label: None, profile: &profile, csr: &csr };
    match judge(&requester, &request, None, NOW)? {
        Judged::Granted(grant) => Ok(grant),
        Judged::ToApprove(_) => panic!("{name}: nobody asked for approval"),
    }
}

#[test]
fn every_odd_request_has_its_verdict() {
    let table = table();
    let files: HashSet<String> = std::fs::read_dir(testdata().join("csr"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let listed: HashSet<String> = table.iter().map(|(name, _)| name.clone()).collect();
    assert!(listed.is_superset(&files), "not in the table: {:?}", files.difference(&listed));

    for (name, expected) in table.iter().filter(|(name, _)| files.contains(name)) {
        let verdict = grant(name, 3650).map_or_else(|refusal| refusal.code(), |_| "accepted");
        assert_eq!(verdict, expected, "{name}");
    }
}

#[test]
fn i4_what_is_granted_is_in_the_bytes_of_the_request() {
    for name in ["p256", "p256-printable", "two-ous", "unsorted-rdn", "teletex", "othername-san"] {
        let csr = read(name).unwrap();
        let granted = grant(name, 3650).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(granted.subject.der(), csr.subject().der(), "{name}");
        assert_eq!(granted.public_key.der(), csr.public_key().der(), "{name}");
        if let Some(value) = csr.extensions().subject_alt_name.as_deref() {
            assert!(granted.extensions.contains(&Extension::subject_alt_name(value, false)));
        }
    }
}

#[test]
fn i12_validity_is_backdated_and_ends_with_the_ca() {
    let year = grant("p256", 3650).unwrap().validity;
    assert_eq!(year.not_before, NOW.plus(-300));
    assert_eq!(year.not_after, NOW.plus(365 * DAY));
    assert_eq!(grant("p256", 10).unwrap().validity.not_after, NOW.plus(10 * DAY));
}

#[test]
fn a_ca_that_has_ended_issues_nothing() {
    assert_eq!(grant("p256", 0).err(), Some(Refusal::NoIssuingCa));
}

#[test]
fn e_17_a_certificate_is_good_for_its_time_only() {
    let (trust, ca) = trust(3650);
    let peer = peer(None, &trust, &ca);
    let snapshot = Snapshot { factories: vec![trust], ..Snapshot::default() };
    let code = |now| authenticate(&peer, &snapshot, now).err().map(|refusal| refusal.code());
    assert_eq!(code(NOW), None);
    assert_eq!(code(NOW.plus(2 * DAY)), Some("certificate-expired"));
    assert_eq!(code(NOW.plus(-2 * DAY)), Some("certificate-not-yet-valid"));
}

#[test]
fn a_malformed_request_names_what_is_wrong() {
    let why = read("two-extension-requests").unwrap_err().to_string();
    assert!(why.contains("stands twice"), "{why}");
}
