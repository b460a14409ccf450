//! CRLs of other makers, by the table in testdata; what is made, by what others read in it; and
//! broken ones.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rcgen::SigningKey;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlNumber, CrlReason};

use super::*;
use crate::pki::{KeyUsages, NameBuilder, to_pem};

const NOW: UnixTime = UnixTime(1_767_225_600); // 2026-01-01T00:00:00Z

fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn file(name: &str) -> Vec<u8> {
    fs::read(testdata().join("crl").join(format!("{name}.der"))).unwrap()
}

fn read(name: &str) -> RevocationList {
    RevocationList::from_der(&file(name)).unwrap()
}

fn root() -> Certificate {
    Certificate::from_der(&file("root")).unwrap()
}

fn revoked(contents: &[u8], reason: Option<u8>) -> RevokedSerial {
    RevokedSerial { serial: Serial::from_contents(contents), at: NOW, reason }
}

/// The rows of the table: a name and the verdict.
fn table() -> Vec<(String, String)> {
    let text = fs::read_to_string(testdata().join("README.md")).unwrap();
    let (_, section) = text.split_once("## CRLs").unwrap();
    let rows = section.lines().filter_map(|line| {
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

#[test]
fn every_odd_crl_has_its_verdict() {
    let files: HashSet<String> = fs::read_dir(testdata().join("crl"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "root")
        .collect();
    let listed: HashSet<String> = table().into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, files);

    for (name, expected) in table() {
        let verdict = match RevocationList::from_der(&file(&name)) {
            Ok(list) => match list.verify_issued_by(&root()) {
                Ok(()) => "accepted".to_owned(),
                Err(fault) => fault.to_string(),
            },
            Err(why) => why.to_string(),
        };
        assert!(verdict.contains(&expected), "{name}: {verdict}, not {expected}");
    }
}

#[test]
fn crl_of_fioctl_says_what_to_do_with_each_device_ca() {
    let list = read("fioctl");
    assert!(!root().extensions().key_usage.unwrap().contains(KeyUsages::CRLSign));
    assert_eq!(list.issuer(), root().subject());
    assert_eq!(list.this_update(), NOW);
    assert_eq!(list.next_update(), Some(NOW.plus(15 * 60)));
    let serial = |byte| [&[0][..], &[byte; 20]].concat();
    let expected = [(0xc6, 6), (0xc8, 8), (0xc9, 9)]
        .map(|(byte, reason)| revoked(&serial(byte), Some(reason)));
    assert_eq!(list.entries(), expected);
}

#[test]
fn crl_of_version_1_is_read() {
    let list = read("openssl-v1");
    assert_eq!(list.entries(), [RevokedSerial { at: NOW.plus(-1), ..revoked(&[10], None) }]);
    assert_eq!(read("openssl-v2").entries()[1].reason, Some(1));
}

#[test]
fn crl_with_odd_serials_or_nothing_in_it_is_read() {
    let serials: Vec<String> =
        read("odd-serials").entries().iter().map(|entry| entry.serial.to_decimal()).collect();
    assert_eq!(serials, ["-1", "0", "1461501637330902918203684832716283019655932542976"]);
    assert_eq!(read("empty-list").entries(), []);
    assert_eq!(read("no-extensions").next_update(), None);
    assert_eq!(read("foreign-extensions").entries()[0].reason, Some(0));
}

fn device_ca() -> (rcgen::Issuer<'static, rcgen::KeyPair>, Certificate) {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (rcgen::Issuer::new(params, key), Certificate::from_der(certificate.der()).unwrap())
}

#[test]
fn crl_of_rcgen_is_read_and_verified() {
    let (ca, certificate) = device_ca();
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2050, 1, 1),
        crl_number: 7_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: vec![0xc3; 16].into(),
            revocation_time: rcgen::date_time_ymd(2026, 1, 1),
            reason_code: Some(rcgen::RevocationReason::Superseded),
            invalidity_date: Some(rcgen::date_time_ymd(2025, 1, 1)),
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&ca).unwrap();

    let list = RevocationList::from_der(list.der()).unwrap();
    list.verify_issued_by(&certificate).unwrap();
    assert_eq!(list.next_update(), Some(UnixTime(2_524_608_000)));
    assert_eq!(list.entries(), [revoked(&[&[0][..], &[0xc3; 16]].concat(), Some(4))]);
}

#[test]
fn crl_is_the_only_block_of_its_pem_text() {
    let block = to_pem("X509 CRL", &file("fioctl")).unwrap();
    let certificate = to_pem("CERTIFICATE", root().der()).unwrap();
    let mislabelled = block.replace("X509 CRL", "CRL");
    let cases = [
        (block.clone(), Ok(())),
        (block.replace('\n', "\r\n"), Ok(())),
        (format!("Certificate Revocation List:\n{block}signed by the root\n"), Ok(())),
        (String::new(), Err("there is no block in it")),
        ("-----END X509 CRL-----\n".to_owned(), Err("there is no block in it")),
        (certificate.clone(), Err("is no X509 CRL")),
        (mislabelled, Err("is no X509 CRL")),
        (format!("{block}{block}"), Err("2 blocks")),
        (format!("{block}{certificate}"), Err("2 blocks")),
        (block.replace("-----END X509 CRL-----\n", ""), Err("MissingSectionEnd")),
        (block.replacen("\nM", "\n!", 1), Err("Base64Decode")),
    ];
    for (text, expected) in cases {
        let found = RevocationList::from_pem(text.as_bytes()).map(|list| list.der().to_vec());
        match (found, expected) {
            (Ok(der), Ok(())) => assert_eq!(der, file("fioctl")),
            (Err(why), Err(part)) => assert!(why.to_string().contains(part), "{why}: {text}"),
            (found, expected) => panic!("{found:?}, not {expected:?}: {text}"),
        }
    }
}

#[test]
fn i11_crl_cut_short_anywhere_is_refused() {
    let der = file("fioctl");
    for length in 0..der.len() {
        assert!(RevocationList::from_der(&der[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn i11_crl_with_any_bit_flipped_is_not_accepted() {
    let (der, root) = (file("fioctl"), root());
    for (index, bit) in (0..der.len()).flat_map(|index| (0..8).map(move |bit| (index, bit))) {
        let mut flipped = der.clone();
        flipped[index] ^= 1 << bit;
        let accepted = RevocationList::from_der(&flipped)
            .is_ok_and(|list| list.verify_issued_by(&root).is_ok());
        assert!(!accepted, "bit {bit} of byte {index}");
    }
}

#[test]
fn i11_crl_with_too_many_entries_is_refused() {
    let entries = vec![revoked(&[1], None); ENTRY_LIMIT + 1];
    let made = |entries| with_any_signature(&template(&name(), entries));
    assert_eq!(RevocationList::from_der(&made(&entries[1..])).unwrap().entries().len(), 10_000);
    let why = RevocationList::from_der(&made(&entries)).unwrap_err().to_string();
    assert!(why.contains("more than 10000 entries"), "{why}");
}

fn name() -> Name {
    NameBuilder::default().common_name("Device CA").organizational_unit("factory").build().unwrap()
}

fn template<'a>(issuer: &'a Name, entries: &'a [RevokedSerial]) -> RevocationTemplate<'a> {
    RevocationTemplate {
        issuer,
        this_update: NOW,
        next_update: NOW.plus(3600),
        number: 4097,
        authority_key_identifier: &[0xa1; 20],
        entries,
    }
}

fn with_any_signature(template: &RevocationTemplate<'_>) -> Vec<u8> {
    let unsigned = template.to_be_signed(SignatureAlgorithm::EcdsaP256Sha256).unwrap();
    unsigned.with_signature(&[0; 70]).unwrap()
}

#[test]
fn crl_that_is_made_verifies() {
    let (ca, certificate) = device_ca();
    let template = template(certificate.subject(), &[]);
    let unsigned = template.to_be_signed(SignatureAlgorithm::EcdsaP256Sha256).unwrap();
    let signature = ca.key().sign(unsigned.content()).unwrap();
    let list = RevocationList::from_der(&unsigned.with_signature(&signature).unwrap()).unwrap();
    list.verify_issued_by(&certificate).unwrap();
    let other = device_ca().1;
    assert_eq!(list.verify_issued_by(&other), Err(SignatureFault::Wrong));
}

#[test]
fn crl_that_is_made_is_what_x509_cert_reads() {
    let entries = [revoked(&[0, 0xff, 1], Some(1)), revoked(&[5], None)];
    let der = with_any_signature(&template(&name(), &entries));
    let list = <CertificateList>::from_der(&der).unwrap();
    assert_eq!(list.to_der().unwrap(), der);

    let tbs = list.tbs_cert_list;
    assert_eq!(tbs.version, x509_cert::certificate::Version::V2);
    assert_eq!(tbs.issuer.to_der().unwrap(), name().der());
    assert!(matches!(tbs.next_update, Some(Time::UtcTime(_))));
    let extensions = tbs.crl_extensions.unwrap();
    let [authority, number] = extensions.as_slice() else { panic!("{extensions:?}") };
    let authority = AuthorityKeyIdentifier::from_der(authority.extn_value.as_bytes()).unwrap();
    assert_eq!(authority.key_identifier.unwrap().as_bytes(), [0xa1; 20]);
    let number = CrlNumber::from_der(number.extn_value.as_bytes()).unwrap();
    assert_eq!(number.0.as_bytes(), [0x10, 0x01]);
    let read = tbs.revoked_certificates.unwrap();
    assert_eq!(read[0].serial_number.as_bytes(), [0, 0xff, 1]);
    let reason = &read[0].crl_entry_extensions.as_ref().unwrap()[0];
    let reason = CrlReason::from_der(reason.extn_value.as_bytes()).unwrap();
    assert_eq!(reason, CrlReason::KeyCompromise);
    assert!(read[1].crl_entry_extensions.is_none());

    let empty = with_any_signature(&template(&name(), &[]));
    let empty = <CertificateList>::from_der(&empty).unwrap();
    assert!(empty.tbs_cert_list.revoked_certificates.is_none());
}

fn any_time() -> impl Strategy<Value = UnixTime> {
    let last_of_9999 = 253_402_300_799_i64;
    prop_oneof![0..2_524_608_000_i64, 0..=last_of_9999].prop_map(UnixTime)
}

fn any_entry() -> impl Strategy<Value = RevokedSerial> {
    let serial = prop::collection::vec(any::<u8>(), 1..24);
    (serial, any_time(), any::<Option<u8>>()).prop_map(|(serial, at, reason)| RevokedSerial {
        serial: Serial::from_contents(&serial),
        at,
        reason,
    })
}

proptest! {
    #[test]
    fn crl_that_is_made_reads_as_it_was_meant(
        entries in prop::collection::vec(any_entry(), 0..20),
        this_update in any_time(),
        next_update in any_time(),
        number in any::<u64>(),
    ) {
        let name = name();
        let template =
            RevocationTemplate { this_update, next_update, number, ..template(&name, &entries) };
        let list = RevocationList::from_der(&with_any_signature(&template)).unwrap();
        prop_assert_eq!(list.issuer(), &name);
        prop_assert_eq!(list.this_update(), this_update);
        prop_assert_eq!(list.next_update(), Some(next_update));
        prop_assert_eq!(list.entries(), entries);
    }

    #[test]
    fn i11_what_is_no_crl_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(RevocationList::from_der(&bytes).is_err());
        prop_assert!(RevocationList::from_pem(&bytes).is_err());
    }
}
