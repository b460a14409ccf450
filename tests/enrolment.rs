//! Enrolment end to end: what the ledger says at each step of a device's rotation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use support::TestServer;

on_both_ledgers! {
    /// I3: issuing changes nothing for what the device holds; its first session with the new one does.
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
}
