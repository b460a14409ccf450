//! E-17: certificates of a bootstrap CA introduce new devices and are good for nothing else.

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::factory::{Authority, Installing, install};
use estd::model::{Allowance, FactoryName};

use crate::support::device::{name, request};
use crate::support::{Backend, Device, FACTORY, TestServer, Tls, eventually};
use crate::{assert_refused, issued, on_both_ledgers, trust};

/// A server that trusts a manufacturer, whose CA is below no root of the Factory.
async fn with_manufacturer(backend: Backend) -> (TestServer, Authority) {
    let server = TestServer::start(backend).await;
    let name = FactoryName::parse("manufacturer").unwrap();
    let manufacturer = Authority::root(&name, UnixTime::now(), &SystemRandom::new()).unwrap();
    let ledger = server.ledger();
    ledger.add_bootstrap_ca(server.factory, manufacturer.certificate(), "test").await.unwrap();
    server.server.reload().await.unwrap();
    (server, manufacturer)
}

fn newcomer(manufacturer: &Authority, device: &str) -> Device {
    Device::new(manufacturer, FACTORY, device)
}

async fn enrol(server: &TestServer, device: &Device) -> Device {
    let (key, body) = device.request();
    Device::switched(server.enroll(device, &body).await.certificate(), key)
}

on_both_ledgers! {
    async fn e_17_a_new_device_enrols_and_goes_on_by_what_it_was_given(backend: Backend) {
        let (server, manufacturer) = with_manufacturer(backend).await;
        let device = newcomer(&manufacturer, "device-1");
        let given = enrol(&server, &device).await;
        assert_eq!(server.states("device-1").await, ["pending"]);
        // Its answer may have been lost: it may ask again until it uses one.
        let again = enrol(&server, &device).await;
        server.session(&again).await;
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        server.rotate(&again).await;
        let refused = server.reenroll(&given, &given.request().1).await;
        assert_refused(&refused, 403, "credential-superseded");
        server.stop().await;
    }

    async fn e_17_it_is_good_for_a_first_enrolment_only(backend: Backend) {
        let (server, manufacturer) = with_manufacturer(backend).await;
        let device = newcomer(&manufacturer, "device-1");
        assert_eq!(server.get(Some(&device), "/.well-known/est/cacerts").await.status, 200);
        assert!(server.maybe_story("device-1").await.is_none(), "it was only looked at");
        let refused = server.reenroll(&device, &device.request().1).await;
        assert_refused(&refused, 403, "bootstrap-only-enrols");
        let other = request(&name("device-2", FACTORY), &device.key, &[], None);
        assert_refused(&server.enroll(&device, &other).await, 403, "subject-mismatch");
        assert_eq!(issued(&server).await, 0);
        server.stop().await;
    }

    /// I6: whoever has the manufacturer's key must not steal a device either.
    async fn i6_a_device_in_use_is_not_enrolled_anew(backend: Backend) {
        let (server, manufacturer) = with_manufacturer(backend).await;
        let known = server.device("device-1");
        server.session(&known).await;
        let thief = newcomer(&manufacturer, "device-1");
        let (_, body) = thief.request();
        assert_refused(&server.enroll(&thief, &body).await, 403, "bootstrap-repeated");
        let last = server.audit().await.pop().unwrap();
        assert_eq!((last.outcome.as_str(), last.code.as_str()), ("alarm", "bootstrap-repeated"));
        assert_eq!(server.states("device-1").await, ["current"]);
        server.rotate(&known).await;

        let device = estd::model::DeviceName::parse("device-1").unwrap();
        server.ledger().allow_device(server.factory, &device, Some(Allowance::Any), "test").await.unwrap();
        enrol(&server, &thief).await;
        assert!(!server.story("device-1").await.allowed_once);
        assert_refused(&server.enroll(&thief, &body).await, 403, "bootstrap-repeated");
        server.stop().await;
    }

    /// I6: two certificates of one name from the manufacturer are two devices, of which one lies.
    async fn i6_a_second_bootstrap_key_takes_no_device_over(backend: Backend) {
        let (server, manufacturer) = with_manufacturer(backend).await;
        let device = newcomer(&manufacturer, "device-1");
        let given = enrol(&server, &device).await;
        let thief = newcomer(&manufacturer, "device-1");
        let (_, body) = thief.request();
        assert_refused(&server.enroll(&thief, &body).await, 403, "bootstrap-repeated");
        server.session(&given).await;
        assert_refused(&server.enroll(&thief, &body).await, 403, "bootstrap-repeated");
        assert_eq!(server.states("device-1").await, ["current"]);
        server.stop().await;
    }

    async fn e_17_bootstrap_cas_are_kept_apart_from_device_cas(backend: Backend) {
        let (server, manufacturer) = with_manufacturer(backend).await;
        let trust = trust(&server).await;
        let key = manufacturer.certificate().public_key();
        assert!(trust.device_cas.iter().all(|ca| ca.certificate.public_key() != key));
        let handed_out = server.get(None, "/.well-known/est/cacerts").await.certificates();
        assert!(!handed_out.contains(manufacturer.certificate()));

        let ledger = server.ledger();
        let line = server.factory_line.certificate();
        for known in [line, manufacturer.certificate()] {
            let refused = ledger.add_bootstrap_ca(server.factory, known, "test").await;
            assert!(refused.unwrap_err().to_string().contains("is known already"));
        }
        // Nor the other way round: whoever trusts a Device CA before its Factory has it gets nothing.
        let name = FactoryName::parse(FACTORY).unwrap();
        let random = SystemRandom::new();
        let coming = server.root.device_ca(&name, "coming", UnixTime::now(), &random).unwrap();
        ledger.add_bootstrap_ca(server.factory, coming.certificate(), "test").await.unwrap();
        let certificates = [coming.certificate().clone()];
        let adding = Installing::DeviceCas;
        let refused = install(ledger, &trust.factory, &certificates, adding, "test").await;
        assert!(refused.unwrap_err().to_string().contains("is known as a bootstrap CA"));

        let given = enrol(&server, &newcomer(&manufacturer, "device-1")).await;
        assert!(ledger.remove_bootstrap_ca(server.factory, key.fingerprint(), "test").await.unwrap());
        server.server.reload().await.unwrap();
        let stranger = newcomer(&manufacturer, "device-2");
        let refused = async || {
            let refused = server.connect(Some(&stranger), &Tls::default()).await;
            let Ok(mut wire) = refused else { return true };
            wire.read_answer().await.is_err()
        };
        eventually("the stranger is refused", refused).await;
        server.session(&given).await;
        assert_eq!(server.states("device-1").await, ["current"]);
        server.stop().await;
    }
}
