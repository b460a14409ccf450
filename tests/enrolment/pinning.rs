//! I6: a stolen CA key steals no device. I7: a superseded credential that comes back is an alarm.

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::model::{Allowance, FactoryName};
use tokio::task::JoinSet;

use crate::on_both_ledgers;
use crate::support::wire::{get_with, post};
use crate::support::{Device, FACTORY, TestServer, Tls};
use crate::{ENROLMENTS, assert_refused, credential, device_name, done, issued, path, state};

on_both_ledgers! {
    async fn i6_a_forged_certificate_is_refused_and_raises_an_alarm(backend: Backend) {
        let server = TestServer::start(backend).await;
        let real = server.device("device-1");
        server.session(&real).await;
        // What whoever has the factory line's key can make.
        let forged = server.device("device-1");

        assert_both_refused(&server, &forged, "credential-unknown").await;
        assert_eq!(alarms(&server).await, ["credential-unknown"; 2]);
        // That somebody connects with it is enough for an alarm.
        server.session(&forged).await;
        assert_eq!(alarms(&server).await, ["credential-unknown"; 3]);
        assert_eq!(issued(&server).await, 0);
        assert_eq!(server.states("device-1").await, ["current"]);

        let rotated = server.rotate(&real).await;
        server.session(&rotated).await;
        assert_eq!(state(&server, &rotated).await, "current");
        server.stop().await;
    }

    async fn i6_a_forged_certificate_of_a_disabled_or_other_ca_is_refused_too(backend: Backend) {
        let server = TestServer::start(backend).await;
        server.session(&server.device("device-1")).await;
        let other = server.add_device_ca("another factory line").await;
        let by_other = Device::new(&other, FACTORY, "device-1");
        assert_both_refused(&server, &by_other, "credential-unknown").await;

        server.set_ca_state(other.certificate(), "disabled").await;
        server.server.reload().await.unwrap();
        assert_both_refused(&server, &by_other, "credential-unknown").await;
        assert_eq!(alarms(&server).await, ["credential-unknown"; 4]);
        server.stop().await;
    }

    async fn i6_a_new_certificate_for_a_known_key_is_adopted(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        server.session(&device).await;
        let renewed = renewed_elsewhere(&server, device);

        server.session(&renewed).await;
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        assert_eq!(credential(&server, &renewed).await.issued_by, None);
        assert!(alarms(&server).await.is_empty());
        server.rotate(&renewed).await;
        server.stop().await;
    }

    async fn i6_the_operators_allowance_takes_another_certificate_once(backend: Backend) {
        let server = TestServer::start(backend).await;
        let lost = server.device("device-1");
        server.session(&lost).await;
        let repaired = server.device("device-1");
        let forged = server.device("device-1");
        allow(&server).await;

        server.session(&repaired).await;
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        assert_eq!(state(&server, &repaired).await, "current");
        assert!(!server.story("device-1").await.allowed_once);
        assert!(alarms(&server).await.is_empty());

        assert_both_refused(&server, &forged, "credential-unknown").await;
        assert_both_refused(&server, &lost, "credential-superseded").await;
        server.rotate(&repaired).await;
        server.stop().await;
    }

    /// Whoever has the line's key could otherwise come first.
    async fn i6_the_allowance_can_be_for_one_certificate(backend: Backend) {
        let server = TestServer::start(backend).await;
        let lost = server.device("device-1");
        server.session(&lost).await;
        let (repaired, forged) = (server.device("device-1"), server.device("device-1"));
        server.session(&repaired).await;
        let alarm = server.audit().await.pop().unwrap();
        let shown = repaired.certificate.fingerprint();
        assert!(alarm.detail.ends_with(&format!("(certificate {shown})")), "{}", alarm.detail);

        let only = Some(Allowance::Certificate(shown));
        let name = device_name("device-1");
        server.ledger().allow_device(server.factory, &name, only, "operator").await.unwrap();
        assert_both_refused(&server, &forged, "credential-unknown").await;
        server.session(&repaired).await;
        assert_eq!(state(&server, &repaired).await, "current");
        server.stop().await;
    }

    /// An allowance that nobody needed is no open door for later; nor one that was withdrawn.
    async fn i6_an_allowance_lapses_when_the_device_is_well_or_the_operator_says_so(
        backend: Backend
    ) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        server.session(&device).await;
        let forged = server.device("device-1");
        allow(&server).await;
        server.session(&device).await;
        assert!(!server.story("device-1").await.allowed_once);
        assert_eq!(done(&server, "lapse-allowance").await, 1);
        assert_both_refused(&server, &forged, "credential-unknown").await;

        allow(&server).await;
        let name = device_name("device-1");
        server.ledger().allow_device(server.factory, &name, None, "operator").await.unwrap();
        assert_both_refused(&server, &forged, "credential-unknown").await;
        server.stop().await;
    }

    async fn i7_a_superseded_certificate_is_refused_and_raises_an_alarm(backend: Backend) {
        let server = TestServer::start(backend).await;
        let old = server.device("device-1");
        let new = switched(&server, &old).await;

        assert_both_refused(&server, &old, "credential-superseded").await;
        server.session(&old).await;
        assert_eq!(alarms(&server).await, ["credential-superseded"; 3]);
        assert_eq!(issued(&server).await, 1);
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);

        // A renewal elsewhere does not wash the key clean.
        let washed = renewed_elsewhere(&server, old);
        assert_both_refused(&server, &washed, "credential-superseded").await;
        server.rotate(&new).await;
        server.stop().await;
    }

    async fn i7_the_operators_allowance_lets_it_back_once(backend: Backend) {
        let server = TestServer::start(backend).await;
        let old = server.device("device-1");
        let new = switched(&server, &old).await;
        allow(&server).await;
        assert!(server.story("device-1").await.allowed_once);

        let second = server.rotate(&old).await;
        assert_eq!(state(&server, &old).await, "current");
        assert_eq!(state(&server, &new).await, "superseded");
        assert!(!server.story("device-1").await.allowed_once);
        assert!(alarms(&server).await.is_empty());

        assert_both_refused(&server, &new, "credential-superseded").await;
        server.session(&second).await;
        assert_both_refused(&server, &old, "credential-superseded").await;
        assert_eq!(state(&server, &second).await, "current");
        server.stop().await;
    }

    async fn i7_an_allowance_lets_one_in_of_many_that_come_at_once(backend: Backend) {
        const MANY: usize = 30;
        let server = TestServer::start(backend).await;
        server.session(&server.device("device-1")).await;
        allow(&server).await;
        crowd(&server, MANY).await;

        assert_eq!(done(&server, "readmit").await, 1);
        assert_eq!(alarms(&server).await, ["credential-unknown"; MANY - 1]);
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        server.stop().await;
    }

    async fn i6_a_name_is_registered_for_one_of_many_that_come_at_once(backend: Backend) {
        const MANY: usize = 30;
        let server = TestServer::start(backend).await;
        crowd(&server, MANY).await;

        let registered = server.audit().await.into_iter();
        let registered = registered.filter(|row| row.action == "register");
        assert_eq!(registered.filter(|row| row.subject == "device-1").count(), 1);
        assert_eq!(alarms(&server).await, ["credential-unknown"; MANY - 1]);
        assert_eq!(server.states("device-1").await, ["current"]);
        server.stop().await;
    }

    /// An allowance for one certificate waits for that.
    async fn i7_an_allowance_is_not_used_up_by_what_is_allowed_anyway(backend: Backend) {
        let server = TestServer::start(backend).await;
        let old = server.device("device-1");
        server.session(&old).await;
        let only = Some(Allowance::Certificate(old.certificate.fingerprint()));
        let name = device_name("device-1");
        server.ledger().allow_device(server.factory, &name, only, "operator").await.unwrap();

        let new = switched(&server, &old).await;
        assert!(server.story("device-1").await.allowed_once);
        server.session(&old).await;
        assert_eq!(state(&server, &old).await, "current");
        assert_eq!(state(&server, &new).await, "superseded");
        assert!(!server.story("device-1").await.allowed_once);
        server.stop().await;
    }

    async fn i7_nobody_unknown_is_allowed(backend: Backend) {
        let server = TestServer::start(backend).await;
        let nobody = device_name("nobody");
        let allowed = server.ledger().allow_device(server.factory, &nobody, Some(Allowance::Any), "operator").await;
        assert!(!allowed.unwrap());
        assert!(server.maybe_story("nobody").await.is_none());
        server.stop().await;
    }
}

async fn assert_both_refused(server: &TestServer, device: &Device, code: &str) {
    for operation in ENROLMENTS {
        let request = post(&path(operation), &device.request().1);
        let answer = server.send(Some(device), &request).await.unwrap();
        assert_refused(&answer, 403, code);
    }
}

/// So many certificates and keys, all in the name of `device-1`, are used at once.
async fn crowd(server: &TestServer, many: usize) {
    // All are connected before the first asks, and others keep the ledger busy before them, so
    // that several of the many share a transaction.
    let others = (0..many).map(|number| format!("other-{number}"));
    let names = others.chain(std::iter::repeat_n("device-1".to_owned(), many));
    let mut connected = Vec::new();
    for name in names {
        let device = server.device(&name);
        connected.push(server.connect(Some(&device), &Tls::default()).await.unwrap());
    }
    let mut asking = JoinSet::new();
    for mut wire in connected {
        asking.spawn(async move { wire.send(&get_with(&path("cacerts"), "")).await.unwrap() });
    }
    for answer in asking.join_all().await {
        assert_eq!(answer.status, 200);
    }
}

/// The device after a whole rotation.
async fn switched(server: &TestServer, old: &Device) -> Device {
    let new = server.rotate(old).await;
    server.session(&new).await;
    assert_eq!(state(server, old).await, "superseded");
    new
}

/// The same key with a certificate that the factory line made later.
fn renewed_elsewhere(server: &TestServer, device: Device) -> Device {
    let name = device_name(&device.certificate.subject().common_name().unwrap());
    let factory = FactoryName::parse(FACTORY).unwrap();
    let (key, now) = (device.key.public_key(), UnixTime::now());
    let line = &server.factory_line;
    let certificate = line.certify_device(&factory, &name, key, now, &SystemRandom::new()).unwrap();
    assert_ne!(certificate.fingerprint(), device.certificate.fingerprint());
    Device::switched(certificate, device.key)
}

async fn allow(server: &TestServer) {
    let name = device_name("device-1");
    assert!(
        server
            .ledger()
            .allow_device(server.factory, &name, Some(Allowance::Any), "operator")
            .await
            .unwrap()
    );
}

async fn alarms(server: &TestServer) -> Vec<String> {
    let rows = server.audit().await.into_iter();
    rows.filter(|row| row.outcome == "alarm").map(|row| row.code).collect()
}
