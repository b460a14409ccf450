//! Enrolment that waits for an operator (RFC 7030 §4.2.3, status 202).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use estd::ledger::Decision;
use estd::model::{HELD_LIMIT, HeldRequestId};
use support::TestServer;
use support::device::Device;

const MANUAL: &str = "[est.profile]\napproval = 'manual'";

/// The ids of the requests that wait.
async fn waiting(server: &TestServer) -> Vec<HeldRequestId> {
    let held = server.ledger().held_requests(server.factory).await.unwrap();
    let waiting = held.into_iter().filter(|one| one.state == "waiting");
    waiting.map(|one| HeldRequestId(one.id)).collect()
}

async fn decide(server: &TestServer, decision: Decision) {
    for id in waiting(server).await {
        let ledger = server.ledger();
        assert!(ledger.decide_held_request(server.factory, id, decision, "test").await.unwrap());
    }
}

on_both_ledgers! {
    /// E-32, E-40: 202 with an integer Retry-After; the same request is known again on a new
    /// connection and after a restart.
    async fn e_40_a_held_request_is_known_again(backend: Backend) {
        let server = TestServer::start_with(backend, MANUAL).await;
        let device = server.device("device-1");
        let (key, body) = device.request();

        let first = server.reenroll(&device, &body).await;
        assert_eq!(first.status, 202);
        assert!(first.header("Retry-After").unwrap().parse::<u32>().is_ok());
        assert_eq!(server.reenroll(&device, &body).await.status, 202);
        assert_eq!(waiting(&server).await.len(), 1, "asking again is the same request");
        assert_eq!(server.states("device-1").await, ["current"], "nothing is issued");

        let server = server.restart().await;
        assert_eq!(server.reenroll(&device, &body).await.status, 202);
        decide(&server, Decision::Approve).await;
        let server = server.restart().await;
        let certificate = server.reenroll(&device, &body).await.certificate();
        assert_eq!(certificate.public_key(), key.public_key());
        server.session(&Device::switched(certificate, key)).await;
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        server.stop().await;
    }

    /// Nor for another operation or label, nor for ever. A no is for the request, wherever it goes.
    async fn an_approval_is_for_what_was_asked_and_for_a_week(backend: Backend) {
        let toml = format!("{MANUAL}\n[est.labels.other]\napproval = 'manual'");
        let server = TestServer::start_with(backend, &toml).await;
        let device = server.device("device-1");
        let (_, body) = device.request();
        let ask = async |path: &str| {
            let request = support::wire::post(&format!("/.well-known/est/{path}"), &body);
            server.send(Some(&device), &request).await.unwrap().status
        };
        assert_eq!(ask("simplereenroll").await, 202);
        decide(&server, Decision::Approve).await;
        assert_eq!(ask("simplereenroll").await, 200);
        for another in ["other/simplereenroll", "simpleenroll", "simplereenroll"] {
            assert_eq!(ask(another).await, 202, "{another}");
        }
        decide(&server, Decision::Approve).await;
        server.sql("UPDATE held_request SET decided_at = decided_at - 8 * 24 * 3600").await;
        assert_eq!(ask("simplereenroll").await, 202);

        decide(&server, Decision::Reject).await;
        for path in ["simplereenroll", "other/simplereenroll"] {
            assert_eq!(ask(path).await, 403, "{path}");
        }
        // Junk does not flush it.
        for _ in 0..=HELD_LIMIT {
            server.reenroll(&device, &device.request().1).await;
        }
        assert_eq!(ask("simplereenroll").await, 403);
        server.stop().await;
    }

    /// An approval is for one request of one device.
    async fn an_approval_is_good_for_that_request_only(backend: Backend) {
        let server = TestServer::start_with(backend, MANUAL).await;
        let device = server.device("device-1");
        assert_eq!(server.reenroll(&device, &device.request().1).await.status, 202);
        decide(&server, Decision::Approve).await;
        assert_eq!(server.reenroll(&device, &device.request().1).await.status, 202);
        let other = server.device("device-2");
        assert_eq!(server.reenroll(&other, &other.request().1).await.status, 202);
        assert_eq!(waiting(&server).await.len(), 2);
        server.stop().await;
    }

    async fn a_rejected_request_is_refused(backend: Backend) {
        let server = TestServer::start_with(backend, MANUAL).await;
        let device = server.device("device-1");
        let (_, body) = device.request();
        assert_eq!(server.reenroll(&device, &body).await.status, 202);
        decide(&server, Decision::Reject).await;
        let refused = server.reenroll(&device, &body).await;
        assert_eq!(refused.status, 403);
        assert!(refused.text().contains("request-rejected"), "{}", refused.text());
        assert_eq!(server.refusals().await, ["request-rejected"]);
        assert_eq!(server.states("device-1").await, ["current"]);
        server.stop().await;
    }

    /// I11: a device that makes a new key at each retry fills no table.
    async fn i11_held_requests_of_a_device_are_bounded(backend: Backend) {
        let server = TestServer::start_with(backend, MANUAL).await;
        let device = server.device("device-1");
        for _ in 0..HELD_LIMIT + 4 {
            assert_eq!(server.reenroll(&device, &device.request().1).await.status, 202);
        }
        assert_eq!(waiting(&server).await.len(), HELD_LIMIT);
        server.stop().await;
    }

    /// I6: what is held is judged like what is issued.
    async fn i6_a_forged_certificate_is_not_even_held(backend: Backend) {
        let server = TestServer::start_with(backend, MANUAL).await;
        server.session(&server.device("device-1")).await;
        let forged = server.device("device-1");
        let refused = server.reenroll(&forged, &forged.request().1).await;
        assert_eq!(refused.status, 403);
        assert_eq!(server.refusals().await, ["credential-unknown"]);
        assert!(waiting(&server).await.is_empty());
        server.stop().await;
    }
}
