//! I10: every decision leaves exactly one audit row, and no change of one goes unnoticed.

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::factory::Authority;
use estd::ledger::ChainFault;
use estd::model::{Allowance, FactoryName};

use crate::on_both_ledgers;
use crate::support::device::{name, new_key, request};
use crate::support::wire::{get_with, post};
use crate::support::{Backend, Device, FACTORY, TestServer, Tls, eventually};
use crate::{device_name, path};

on_both_ledgers! {
    async fn i10_every_decision_leaves_exactly_one_row(backend: Backend) {
        let server = TestServer::start(backend).await;
        let mut rows = Rows { seen: server.audit().await.len() };
        let (first, forged) = (server.device("device-1"), server.device("device-1"));

        server.session(&first).await;
        rows.are(&server, &["register done "]).await;
        server.session(&first).await;
        rows.are(&server, &[]).await;

        let second = server.rotate(&first).await;
        rows.are(&server, &["simplereenroll done "]).await;
        server.session(&second).await;
        rows.are(&server, &["confirm done "]).await;

        server.session(&first).await;
        rows.are(&server, &["connect alarm credential-superseded"]).await;
        server.reenroll(&first, &first.request().1).await;
        rows.are(&server, &["simplereenroll alarm credential-superseded"]).await;
        server.enroll(&forged, &forged.request().1).await;
        rows.are(&server, &["simpleenroll alarm credential-unknown"]).await;

        let name = device_name("device-1");
        server.ledger().allow_device(server.factory, &name, Some(Allowance::Any), "operator").await.unwrap();
        rows.are(&server, &["allow-device done "]).await;
        let third = server.rotate(&first).await;
        rows.are(&server, &["readmit done ", "simplereenroll done "]).await;
        server.enroll(&third, &third.request().1).await;
        rows.are(&server, &["confirm done ", "simpleenroll done "]).await;

        server.send(None, &post(&path("simplereenroll"), "")).await.unwrap();
        rows.are(&server, &["simplereenroll refused client-certificate-required"]).await;
        refused_by_policy(&server, &third).await;
        rows.are(&server, &["simpleenroll refused subject-mismatch"]).await;

        server.set_ca_state(server.factory_line.certificate(), "disabled").await;
        server.server.reload().await.unwrap();
        server.session(&server.device("device-2")).await;
        rows.are(&server, &["connect refused ca-disabled-unregistered"]).await;

        let _broken = server.send(Some(&stranger()), &get_with(&path("cacerts"), "")).await;
        rows.are(&server, &["handshake refused certificate-untrusted"]).await;
        server.ledger().verify_audit().await.unwrap().unwrap();
        server.stop().await;
    }

    async fn i10_rows_say_who_what_when_and_why(backend: Backend) {
        let server = TestServer::start(backend).await;
        let before = UnixTime::now();
        let device = server.device("device-1");
        let new = server.rotate(&device).await;
        let refused = server.send(None, &post(&path("simpleenroll"), "")).await.unwrap();
        let rows = server.audit().await;
        let [issued, unauthenticated] = &rows[rows.len() - 2..] else {
            panic!("{rows:?}");
        };

        assert_eq!((issued.actor.as_str(), issued.subject.as_str()), ("device-1", "device-1"));
        assert_eq!(issued.factory, Some(server.factory.0));
        assert!(issued.detail.contains(&new.certificate.fingerprint().to_string()));
        assert!(issued.detail.contains(&new.certificate.serial().to_string()));
        assert!((before..=UnixTime::now()).contains(&issued.at));
        assert_eq!(unauthenticated.actor, "127.0.0.1");
        assert!(refused.text().starts_with(&unauthenticated.detail));
        for (index, row) in (1..).zip(&rows) {
            assert_eq!(row.number, index);
        }
        server.stop().await;
    }

    async fn i10_an_edited_row_is_found(backend: Backend) {
        // Whatever its column, also where the meaning stays plausible.
        for (edit, number) in [
            ("UPDATE audit SET detail = 'nothing happened' WHERE number = 7", 7),
            ("UPDATE audit SET actor = 'somebody' WHERE number = 1", 1),
            ("UPDATE audit SET action = 'simpleenroll' WHERE number = 8", 8),
            ("UPDATE audit SET subject = 'device-2' WHERE number = 8", 8),
            ("UPDATE audit SET at = at + 1 WHERE number = 6", 6),
            ("UPDATE audit SET factory_id = NULL WHERE number = 5", 5),
            ("UPDATE audit SET code = 'subject-mismatch' WHERE number = 4", 4),
            ("UPDATE audit SET outcome = 'refused' WHERE number = 9", 9),
            ("UPDATE audit SET outcome = 'nonsense' WHERE number = 9", 9),
            // A letter moved from one column into the next.
            (
                "UPDATE audit SET actor = actor || substr(action, 1, 1), \
                 action = substr(action, 2) WHERE number = 3",
                3,
            ),
            ("UPDATE audit SET hash = (SELECT audit_hash FROM ledger_head) WHERE number = 2", 2),
        ] {
            assert_eq!(fault_after(backend, &[edit]).await, ChainFault::Changed(number), "{edit}");
        }
    }

    async fn i10_a_removed_row_is_found(backend: Backend) {
        let fault = fault_after(backend, &["DELETE FROM audit WHERE number = 4"]).await;
        assert_eq!(fault, ChainFault::Missing { expected: 4, found: 5 });
        let fault = fault_after(backend, &["DELETE FROM audit WHERE number = 1"]).await;
        assert_eq!(fault, ChainFault::Missing { expected: 1, found: 2 });
    }

    /// Also when the rows after it take the numbers before theirs.
    async fn i10_a_removed_row_is_found_behind_renumbered_ones(backend: Backend) {
        let fault = fault_after(
            backend,
            &[
                "DELETE FROM audit WHERE number = 4",
                "UPDATE audit SET number = -number WHERE number > 4",
                "UPDATE audit SET number = -number - 1 WHERE number < 0",
                "UPDATE ledger_head SET audit_number = audit_number - 1",
            ],
        )
        .await;
        assert_eq!(fault, ChainFault::Changed(4));
    }

    async fn i10_two_swapped_rows_are_found(backend: Backend) {
        let fault = fault_after(
            backend,
            &[
                "UPDATE audit SET number = -5 WHERE number = 5",
                "UPDATE audit SET number = 5 WHERE number = 6",
                "UPDATE audit SET number = 6 WHERE number = -5",
            ],
        )
        .await;
        assert_eq!(fault, ChainFault::Changed(5));
    }

    async fn i10_a_truncated_tail_is_found(backend: Backend) {
        let cut = "DELETE FROM audit WHERE number > 7";
        let fault = fault_after(backend, &[cut]).await;
        assert_eq!(fault, ChainFault::Truncated { expected: 10, found: 7 });
        let head = "UPDATE ledger_head SET audit_number = 7";
        assert_eq!(fault_after(backend, &[cut, head]).await, ChainFault::Changed(7));
        let all = "DELETE FROM audit";
        let fault = fault_after(backend, &[all]).await;
        assert_eq!(fault, ChainFault::Truncated { expected: 10, found: 0 });
    }
}

/// What `verify_audit` says of a log of ten rows after these statements.
async fn fault_after(backend: Backend, edits: &[&'static str]) -> ChainFault {
    let server = TestServer::start(backend).await;
    server.session(&server.device("device-1")).await;
    let rows = server.audit().await.len();
    assert_eq!(server.ledger().verify_audit().await.unwrap(), Ok(10), "{rows} rows");
    for edit in edits {
        server.sql(edit).await;
    }
    let fault = server.ledger().verify_audit().await.unwrap().unwrap_err();
    server.stop().await;
    fault
}

/// Compares what has been added to the audit log since the last time.
struct Rows {
    seen: usize,
}

impl Rows {
    /// `action outcome code`, of each new row.
    async fn are(&mut self, server: &TestServer, expected: &[&str]) {
        let wanted = self.seen + expected.len();
        // A refused handshake is recorded beside its connection.
        eventually("the rows are there", async || server.audit().await.len() >= wanted).await;
        let rows = server.audit().await;
        let new = rows[self.seen..].iter();
        let new: Vec<String> =
            new.map(|row| format!("{} {} {}", row.action, row.outcome, row.code)).collect();
        assert_eq!(new, expected);
        self.seen = wanted;
    }
}

/// Asks for somebody else's certificate in a session that the ledger has seen.
async fn refused_by_policy(server: &TestServer, device: &Device) {
    let mut wire = server.connect(Some(device), &Tls::default()).await.unwrap();
    assert_eq!(wire.send(&get_with(&path("cacerts"), "")).await.unwrap().status, 200);
    let body = request(&name("device-2", FACTORY), &new_key(), &[], None);
    assert_eq!(wire.send(&post(&path("simpleenroll"), &body)).await.unwrap().status, 403);
}

/// A device of a CA that is none of the server's.
fn stranger() -> Device {
    let random = SystemRandom::new();
    let factory = FactoryName::parse(FACTORY).unwrap();
    let root = Authority::root(&factory, UnixTime::now(), &random).unwrap();
    Device::new(&root, FACTORY, "device-1")
}
