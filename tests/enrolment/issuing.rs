//! I2: only an enabled Device CA signs. I12: what it signs.

use std::collections::HashSet;
use std::sync::Arc;

use estd::clock::UnixTime;
use estd::model::PENDING_LIMIT;
use estd::serve::Server;
use tokio::task::JoinSet;

use crate::on_both_ledgers;
use crate::support::wire::{Wire, post};
use crate::support::{Backend, TestServer, Tls};
use crate::{DAY, ENROLMENTS, add_online_ca, assert_refused, issued, issuing_ca, path};

const DISABLE_ONLINE_CAS: &str = "UPDATE device_ca SET state = 'disabled' WHERE kind = 'online'";
const REPEAT_FIRST_SERIAL: &str = "UPDATE enrolment SET serial = \
    (SELECT serial FROM enrolment ORDER BY id LIMIT 1)";
const BACKDATED: i64 = 5 * 60;
const YEAR: i64 = 365 * DAY;

on_both_ledgers! {
    async fn i2_a_ca_that_was_disabled_meanwhile_signs_nothing(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        server.session(&device).await;
        // No new version of the Factories: only the transaction that records can know.
        server.sql(DISABLE_ONLINE_CAS).await;

        for operation in ENROLMENTS {
            let request = post(&path(operation), &device.request().1);
            let answer = server.send(Some(&device), &request).await.unwrap();
            assert_refused(&answer, 503, "issuing-ca-disabled");
            assert!(answer.header("Retry-After").unwrap().parse::<u32>().unwrap() > 0);
        }
        assert_eq!(server.states("device-1").await, ["current"]);
        assert_eq!(issued(&server).await, 0);
        assert_eq!(server.refusals().await, ["issuing-ca-disabled"; 2]);

        let second = add_online_ca(&server, 3650).await;
        server.server.reload().await.unwrap();
        let rotated = server.rotate(&device).await;
        rotated.certificate.verify_issued_by(&second).unwrap();
        server.stop().await;
    }

    async fn i2_without_an_enabled_online_ca_the_answer_is_to_come_again(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        server.set_ca_state(&issuing_ca(&server).await, "disabled").await;
        server.server.reload().await.unwrap();

        let answer = server.reenroll(&device, &device.request().1).await;
        assert_refused(&answer, 503, "no-issuing-ca");
        assert!(answer.header("Retry-After").is_some());
        assert_eq!(issued(&server).await, 0);
        server.stop().await;
    }

    async fn i2_another_replica_obeys_before_it_hears_of_it(backend: Backend) {
        let server = TestServer::start(backend).await;
        let replica = Server::start(server.config.clone()).await.unwrap();
        let device = server.device("device-1");
        let root = server.root.certificate();
        let tls = Tls::default();
        let connect = Wire::connect(replica.est_address(), root, Some(&device), &tls);
        let mut wire = connect.await.unwrap();
        let request = || post(&path("simplereenroll"), &device.request().1);
        wire.send(&request()).await.unwrap().certificate();

        server.sql(DISABLE_ONLINE_CAS).await;
        let refused = wire.send(&request()).await.unwrap();
        assert_refused(&refused, 503, "issuing-ca-disabled");
        assert_eq!(issued(&server).await, 1);
        drop(wire);
        replica.stop().await;
        server.stop().await;
    }

    async fn i12_serials_are_positive_short_and_unique(backend: Backend) {
        const DEVICES: usize = 16;
        const EACH: usize = PENDING_LIMIT;
        let server = Arc::new(TestServer::start(backend).await);
        let mut devices = JoinSet::new();
        for number in 0..DEVICES {
            let server = Arc::clone(&server);
            devices.spawn(async move {
                let device = server.device(&format!("device-{number}"));
                let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
                let mut serials = Vec::new();
                for _ in 0..EACH {
                    let request = post(&path("simplereenroll"), &device.request().1);
                    let certificate = wire.send(&request).await.unwrap().certificate();
                    serials.push(certificate.serial().contents().to_vec());
                }
                serials
            });
        }
        let serials: Vec<Vec<u8>> = devices.join_all().await.concat();

        for serial in &serials {
            assert!(serial[0] < 0x80, "{serial:02x?} is negative");
            assert!(serial.iter().any(|byte| *byte != 0), "zero is not positive");
            assert!(serial.len() <= 17, "{serial:02x?} has more than 128 bits");
            assert!(serial.len() >= 12, "{serial:02x?} is not random");
        }
        let different: HashSet<_> = serials.iter().collect();
        assert_eq!(different.len(), DEVICES * EACH);
        Arc::into_inner(server).unwrap().stop().await;
    }

    async fn i12_validity_is_backdated_and_as_long_as_the_profile_says(backend: Backend) {
        let toml = "[est.labels.short]\nvalidity_days = 3";
        let server = TestServer::start_with(backend, toml).await;
        let device = server.device("device-1");
        for (operation, seconds) in
            [("simplereenroll", YEAR), ("short/simplereenroll", 3 * DAY)]
        {
            let request = post(&path(operation), &device.request().1);
            let before = UnixTime::now();
            let answer = server.send(Some(&device), &request).await.unwrap();
            let after = UnixTime::now();
            let validity = answer.certificate().validity();
            let issued = before..=after;
            assert!(issued.contains(&validity.not_before.plus(BACKDATED)), "{validity:?}");
            assert!(issued.contains(&validity.not_after.plus(-seconds)), "{validity:?}");
        }
        server.stop().await;
    }

    async fn i12_no_certificate_outlives_its_ca(backend: Backend) {
        let server = TestServer::start(backend).await;
        let lasting = issuing_ca(&server).await;
        let ca = add_online_ca(&server, 10).await;
        server.server.reload().await.unwrap();
        let device = server.device("device-1");
        // As long as there is one that lasts, that one signs.
        server.rotate(&device).await.certificate.verify_issued_by(&lasting).unwrap();
        server.set_ca_state(&lasting, "disabled").await;
        server.server.reload().await.unwrap();

        let rotated = server.rotate(&device).await;
        rotated.certificate.verify_issued_by(&ca).unwrap();
        assert_eq!(rotated.certificate.validity().not_after, ca.validity().not_after);
        server.session(&rotated).await;
        server.stop().await;
    }

    /// What it could give would end too soon after the device had switched to it.
    async fn i12_a_ca_on_its_last_day_signs_nothing(backend: Backend) {
        let server = TestServer::start(backend).await;
        let lasting = issuing_ca(&server).await;
        add_online_ca(&server, 1).await;
        server.set_ca_state(&lasting, "disabled").await;
        server.server.reload().await.unwrap();
        let device = server.device("device-1");
        let refused = server.reenroll(&device, &device.request().1).await;
        assert_refused(&refused, 503, "no-issuing-ca");
        server.session(&device).await;
        assert_eq!(server.states("device-1").await, ["current"]);
        server.stop().await;
    }
}

/// The ledger itself refuses a serial number that it has already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_the_ledger_holds_serials_unique() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        server.rotate(&device).await;
        server.rotate(&device).await;
        let forced = tokio::spawn(async move {
            server.sql(REPEAT_FIRST_SERIAL).await;
        });
        let panic = forced.await.unwrap_err().into_panic();
        let why = panic.downcast_ref::<String>().unwrap();
        assert!(why.to_lowercase().contains("unique constraint"), "{backend:?}: {why}");
    }
}
