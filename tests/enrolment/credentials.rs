//! I3: the old credential outlives the answer; the first session with a new one replaces it.

use estd::model::{Allowance, PENDING_LIMIT};

use crate::on_both_ledgers;
use crate::support::wire::post;
use crate::support::{Backend, Device, TestServer, Tls, eventually};
use crate::{assert_refused, credential, device_name, path, state};

on_both_ledgers! {
    async fn i3_the_old_credential_outlives_the_answer(backend: Backend) {
        let server = TestServer::start(backend).await;
        let old = server.device("device-1");
        server.session(&old).await;
        let new = server.rotate(&old).await;
        assert_eq!(server.states("device-1").await, ["current", "pending"]);

        server.session(&old).await;
        assert_eq!(server.states("device-1").await, ["current", "pending"]);

        server.session(&new).await;
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        server.stop().await;
    }

    async fn i3_the_newest_of_several_pendings_ends_the_others(backend: Backend) {
        let (server, _old, pendings) = with_pendings(backend, 3).await;
        assert_eq!(server.states("device-1").await, ["current", "pending", "pending", "pending"]);

        server.session(&pendings[2]).await;
        assert_eq!(
            server.states("device-1").await,
            ["superseded", "superseded", "superseded", "current"]
        );
        server.stop().await;
    }

    /// The answer with a newer one may be on its way to the device.
    async fn i3_an_older_pending_leaves_the_newer_ones(backend: Backend) {
        let (server, _old, pendings) = with_pendings(backend, 3).await;
        server.session(&pendings[1]).await;
        assert_eq!(
            server.states("device-1").await,
            ["superseded", "superseded", "current", "pending"]
        );

        server.session(&pendings[2]).await;
        assert_eq!(
            server.states("device-1").await,
            ["superseded", "superseded", "superseded", "current"]
        );
        server.stop().await;
    }

    async fn i3_the_oldest_of_too_many_pendings_is_dropped(backend: Backend) {
        let (server, old, pendings) = with_pendings(backend, PENDING_LIMIT).await;
        assert_eq!(state(&server, &pendings[0]).await, "pending");
        let answer = server.reenroll(&old, &old.request().1).await;
        assert_refused(&answer, 429, "retried-too-often");
        let wait: i64 = answer.header("Retry-After").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");

        server.sql("UPDATE credential SET recorded_at = recorded_at - 60").await;
        let newest = server.rotate(&old).await;
        assert_eq!(state(&server, &pendings[0]).await, "superseded");
        for kept in pendings[1..].iter().chain([&newest]) {
            assert_eq!(state(&server, kept).await, "pending");
        }
        assert_eq!(state(&server, &old).await, "current");

        let answer = server.reenroll(&pendings[0], &pendings[0].request().1).await;
        assert_refused(&answer, 403, "credential-superseded");
        server.session(&newest).await;
        assert_eq!(state(&server, &newest).await, "current");
        server.stop().await;
    }

    async fn i11_whom_an_operator_lets_in_waits_for_nothing(backend: Backend) {
        let (server, old, _pendings) = with_pendings(backend, PENDING_LIMIT).await;
        assert_eq!(server.reenroll(&old, &old.request().1).await.status, 429);
        let name = device_name("device-1");
        let any = Some(Allowance::Any);
        server.ledger().allow_device(server.factory, &name, any, "operator").await.unwrap();
        let reset = server.device("device-1");
        assert_eq!(server.reenroll(&reset, &reset.request().1).await.status, 200);
        assert_eq!(state(&server, &reset).await, "current");
        server.stop().await;
    }

    async fn i3_a_lost_answer_costs_nothing(backend: Backend) {
        let server = TestServer::start(backend).await;
        let old = server.device("device-1");
        server.session(&old).await;
        let mut wire = server.connect(Some(&old), &Tls::default()).await.unwrap();
        wire.write(&post(&path("simplereenroll"), &old.request().1)).await.unwrap();
        eventually("the issuance is on record", async || {
            server.states("device-1").await == ["current", "pending"]
        })
        .await;
        drop(wire);

        let new = server.rotate(&old).await;
        assert_eq!(server.states("device-1").await, ["current", "pending", "pending"]);
        server.session(&new).await;
        assert_eq!(server.states("device-1").await, ["superseded", "superseded", "current"]);
        server.stop().await;
    }

    async fn i3_an_enrolment_with_a_pending_certificate_confirms_it(backend: Backend) {
        let (server, _old, pendings) = with_pendings(backend, 1).await;
        let next = server.rotate(&pendings[0]).await;
        assert_eq!(server.states("device-1").await, ["superseded", "current", "pending"]);
        assert!(credential(&server, &pendings[0]).await.first_used_at.is_some());
        assert!(credential(&server, &next).await.first_used_at.is_none());
        server.stop().await;
    }

    /// E-37: what is renewed keeps its key, and is a credential of its own all the same.
    async fn i3_a_renewed_certificate_switches_like_any_other(backend: Backend) {
        let server = TestServer::start(backend).await;
        let old = server.device("device-1");
        server.session(&old).await;
        let body = old.request_for(&old.key);
        let certificate = server.reenroll(&old, &body).await.certificate();
        assert_eq!(certificate.public_key(), old.certificate.public_key());
        assert_eq!(server.states("device-1").await, ["current", "pending"]);

        server.session(&Device::switched(certificate, old.key)).await;
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        server.stop().await;
    }

    async fn i3_a_handshake_without_a_request_registers_and_confirms(backend: Backend) {
        let server = TestServer::start(backend).await;
        for tls in [Tls::tls12(), Tls::tls13()] {
            let name = if tls.versions[0] == &rustls::version::TLS12 { "old" } else { "new" };
            let device = server.device(name);
            drop(server.connect(Some(&device), &tls).await.unwrap());
            eventually("the first contact is on record", async || {
                server.maybe_story(name).await.is_some()
            })
            .await;
            assert_eq!(server.states(name).await, ["current"]);

            let rotated = server.rotate(&device).await;
            drop(server.connect(Some(&rotated), &tls).await.unwrap());
            eventually("the switch is on record", async || {
                server.states(name).await == ["superseded", "current"]
            })
            .await;
        }
        server.stop().await;
    }

    async fn a_device_was_last_seen_when_it_last_came_to_the_minute(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        let seen = async || server.story("device-1").await.last_seen_at.unwrap();
        server.session(&device).await;
        let first = seen().await;
        server.sql("UPDATE device SET last_seen_at = last_seen_at - 40").await;
        server.session(&device).await;
        assert_eq!(seen().await.0, first.0 - 40, "less than a minute ago");
        server.sql("UPDATE device SET last_seen_at = last_seen_at - 40").await;
        server.session(&device).await;
        assert!(seen().await >= first);
        server.stop().await;
    }

    async fn i3_the_first_contact_registers_by_whatever_it_asks_for(backend: Backend) {
        let server = TestServer::start(backend).await;
        let enrols = server.device("enrols");
        assert!(server.maybe_story("enrols").await.is_none());
        server.enroll(&enrols, &enrols.request().1).await.certificate();
        assert_eq!(server.states("enrols").await, ["current", "pending"]);

        let fetches = server.device("fetches");
        server.session(&fetches).await;
        assert_eq!(server.states("fetches").await, ["current"]);
        let story = server.story("fetches").await;
        assert!(story.last_seen_at.is_some());
        assert_eq!(story.credentials[0].issued_by, None);

        let fails = server.device("fails");
        let (_, body) = enrols.request();
        let mut wire = server.connect(Some(&fails), &Tls::default()).await.unwrap();
        let answer = wire.send(&post(&path("simpleenroll"), &body)).await.unwrap();
        assert_refused(&answer, 403, "subject-mismatch");
        drop(wire);
        eventually("it was there all the same", async || {
            server.maybe_story("fails").await.is_some()
        })
        .await;
        assert_eq!(server.states("fails").await, ["current"]);
        server.stop().await;
    }
}

/// A device that has so many certificates issued and none of them used.
async fn with_pendings(backend: Backend, count: usize) -> (TestServer, Device, Vec<Device>) {
    let server = TestServer::start(backend).await;
    let old = server.device("device-1");
    server.session(&old).await;
    let mut pendings = Vec::new();
    for _ in 0..count {
        pendings.push(server.rotate(&old).await);
    }
    (server, old, pendings)
}
