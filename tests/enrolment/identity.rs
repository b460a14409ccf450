//! I4: nobody becomes somebody else.

use estd::ledger::InventoryFilter;
use estd::pki::{Extension, Name, NameBuilder};

use crate::on_both_ledgers;
use crate::support::device::{name, new_key, request};
use crate::support::wire::post;
use crate::support::{Device, FACTORY, TestServer, Tls};
use crate::{ENROLMENTS, assert_refused, issued, path};

const SAN: &str = "device-1.example";

on_both_ledgers! {
    async fn i4_no_other_identity_is_issued(backend: Backend) {
        let server = TestServer::start(backend).await;
        let own = name("device-1", FACTORY);
        let device = Device::with_certificate(&server.factory_line, &own, &[san(&[SAN])], 0..30);
        let victim = server.device("victim");
        server.session(&device).await;
        server.session(&victim).await;

        let mut refused = Vec::new();
        for operation in ENROLMENTS {
            for (subject, extensions, code) in attacks(&own) {
                let body = request(&subject, &new_key(), &extensions, None);
                let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
                let answer = wire.send(&post(&path(operation), &body)).await.unwrap();
                assert_refused(&answer, 403, code);
                refused.push(code.to_owned());
            }
        }

        assert_eq!(server.refusals().await, refused);
        assert_eq!(issued(&server).await, 0);
        assert_eq!(server.states("device-1").await, ["current"]);
        assert_eq!(server.states("victim").await, ["current"]);
        let page = server.ledger().devices(server.factory, &InventoryFilter::default(), "", 10).await.unwrap();
        assert_eq!(page.devices.len(), 2, "{page:?}");
        server.stop().await;
    }

    async fn i4_the_identity_is_copied_byte_for_byte(backend: Backend) {
        let server = TestServer::start(backend).await;
        let usual = name("device-1", FACTORY);
        let reversed =
            NameBuilder::default().organizational_unit(FACTORY).common_name("device-2");
        let subjects =
            [usual, reversed.build().unwrap(), printable(&name("device-3", FACTORY))];
        for subject in subjects {
            let extensions = [san(&[SAN, "second.example"])];
            let line = &server.factory_line;
            let device = Device::with_certificate(line, &subject, &extensions, 0..30);
            for operation in ENROLMENTS {
                let answer = server
                    .send(Some(&device), &post(&path(operation), &device.request().1))
                    .await
                    .unwrap();
                let issued = answer.certificate();
                assert_eq!(issued.subject().der(), subject.der());
                assert_eq!(
                    issued.extensions().subject_alt_name,
                    device.certificate.extensions().subject_alt_name
                );
            }
        }
        server.stop().await;
    }

    async fn i4_a_certificate_in_another_factorys_name_is_nobody_here(backend: Backend) {
        let server = TestServer::start(backend).await;
        for (subject, code) in [
            (name("device-1", "another"), "ou-mismatch"),
            (NameBuilder::default().common_name("device-1").build().unwrap(), "ou-mismatch"),
            (
                NameBuilder::default().organizational_unit(FACTORY).build().unwrap(),
                "identity-malformed",
            ),
        ] {
            let device = Device::with_certificate(&server.factory_line, &subject, &[], 0..30);
            for operation in ENROLMENTS {
                let request = post(&path(operation), &device.request().1);
                let answer = server.send(Some(&device), &request).await.unwrap();
                assert_refused(&answer, 403, code);
            }
        }
        assert_eq!(issued(&server).await, 0);
        let page = server.ledger().devices(server.factory, &InventoryFilter::default(), "", 10).await.unwrap();
        assert!(page.devices.is_empty(), "{page:?}");
        server.stop().await;
    }
}

/// What a device asks for that is not what its certificate says, and the code of the refusal.
fn attacks(own: &Name) -> Vec<(Name, Vec<Extension>, &'static str)> {
    let own_san = || vec![san(&[SAN])];
    let names = NameBuilder::default;
    let subjects = [
        name("victim", FACTORY),
        name("nobody-yet", FACTORY),
        name("device-1", "another"),
        names().organizational_unit(FACTORY).common_name("device-1").build().unwrap(),
        names().common_name("device-1").build().unwrap(),
        names()
            .common_name("device-1")
            .organizational_unit(FACTORY)
            .common_name("victim")
            .build()
            .unwrap(),
        names()
            .common_name("device-1")
            .organizational_unit(FACTORY)
            .organizational_unit("another")
            .build()
            .unwrap(),
        name("DEVICE-1", FACTORY),
        name("device-1 ", FACTORY),
        printable(own),
        names().build().unwrap(),
    ];
    let sans = [
        vec![san(&[SAN, "victim.example"])],
        vec![san(&["victim.example", SAN])],
        vec![san(&["victim.example"])],
        vec![san(&[])],
        vec![],
    ];
    let subjects = subjects.into_iter().map(|one| (one, own_san(), "subject-mismatch"));
    let sans = sans.into_iter().map(|extensions| (own.clone(), extensions, "san-mismatch"));
    subjects.chain(sans).collect()
}

/// A SubjectAltName of these DNS names.
fn san(names: &[&str]) -> Extension {
    let name = |name: &&str| [&[0x82, length(name.len())], name.as_bytes()].concat();
    let names: Vec<u8> = names.iter().flat_map(name).collect();
    let value = [&[0x30, length(names.len())], names.as_slice()].concat();
    Extension::subject_alt_name(&value, false)
}

/// A length that DER writes in one byte.
fn length(length: usize) -> u8 {
    let short = u8::try_from(length).unwrap();
    assert!(short < 0x80);
    short
}

/// The same text in another string type: UTF8String becomes PrintableString.
fn printable(name: &Name) -> Name {
    let mut der = name.der().to_vec();
    let types: Vec<usize> = (0..der.len()).filter(|index| der[*index] == 0x0c).collect();
    assert!(!types.is_empty());
    for index in types {
        der[index] = 0x13;
    }
    let printable = Name::from_der(&der).unwrap();
    assert_eq!(printable.common_name(), name.common_name());
    assert_eq!(printable.organizational_units(), name.organizational_units());
    printable
}
