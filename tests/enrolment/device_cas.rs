//! I5: disabled is not revoked. And Device CAs that share a name.

use crate::on_both_ledgers;
use crate::support::wire::{get_with, post};
use crate::support::{Device, FACTORY, TestServer, Tls, eventually};
use crate::{add_online_ca, assert_refused, issued, issuing_ca, path, state};

on_both_ledgers! {
    async fn i5_a_disabled_ca_keeps_its_devices_and_registers_no_other(backend: Backend) {
        let server = TestServer::start(backend).await;
        let known = server.device("known");
        server.session(&known).await;
        server.set_ca_state(server.factory_line.certificate(), "disabled").await;
        server.server.reload().await.unwrap();

        let unknown = server.device("unknown");
        let answer = server.reenroll(&unknown, &unknown.request().1).await;
        assert_refused(&answer, 403, "ca-disabled-unregistered");
        // A session alone does not register it either.
        server.session(&unknown).await;
        assert!(server.maybe_story("unknown").await.is_none());
        assert_eq!(issued(&server).await, 0);

        let rotated = server.rotate(&known).await;
        rotated.certificate.verify_issued_by(&issuing_ca(&server).await).unwrap();
        server.session(&rotated).await;
        assert_eq!(server.states("known").await, ["superseded", "current"]);
        server.stop().await;
    }

    /// What a phase-out is made of.
    async fn i5_devices_of_a_disabled_online_ca_move_to_the_next(backend: Backend) {
        let server = TestServer::start(backend).await;
        let first = issuing_ca(&server).await;
        let device = server.rotate(&server.device("device-1")).await;
        let second = add_online_ca(&server, 3650).await;
        server.set_ca_state(&first, "disabled").await;
        server.server.reload().await.unwrap();

        let moved = server.rotate(&device).await;
        device.certificate.verify_issued_by(&first).unwrap();
        moved.certificate.verify_issued_by(&second).unwrap();
        server.session(&moved).await;

        server.set_ca_state(&first, "revoked").await;
        server.server.reload().await.unwrap();
        server.session(&moved).await;
        assert!(refused_in_the_handshake(&server, &device).await);
        server.stop().await;
    }

    async fn i5_certificates_of_a_revoked_ca_end_in_the_handshake(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        server.session(&device).await;
        server.set_ca_state(server.factory_line.certificate(), "revoked").await;
        server.server.reload().await.unwrap();

        for tls in [Tls::tls12(), Tls::tls13()] {
            assert!(fails_with(&server, &device, &tls).await);
        }
        eventually("both handshakes are on record", async || {
            handshakes_refused(&server).await == ["ca-revoked"; 2]
        })
        .await;
        assert_eq!(server.states("device-1").await, ["current"]);
        assert_eq!(issued(&server).await, 0);
        server.stop().await;
    }

    async fn i5_a_connection_that_is_open_loses_its_rights(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
        let request = post(&path("simplereenroll"), &device.request().1);
        wire.send(&request).await.unwrap().certificate();

        server.set_ca_state(server.factory_line.certificate(), "revoked").await;
        server.server.reload().await.unwrap();
        assert_refused(&wire.send(&request).await.unwrap(), 403, "ca-revoked");
        drop(wire);
        assert_eq!(issued(&server).await, 1);
        server.stop().await;
    }

    /// Even before the server has heard of it: the transaction that records knows.
    async fn i5_a_connection_that_is_open_loses_its_rights_without_a_reload(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
        let request = post(&path("simplereenroll"), &device.request().1);
        wire.send(&request).await.unwrap().certificate();

        server.sql("UPDATE device_ca SET state = 'revoked' WHERE kind = 'local'").await;
        assert_refused(&wire.send(&request).await.unwrap(), 403, "ca-revoked");
        drop(wire);
        assert_eq!(issued(&server).await, 1);
        server.stop().await;
    }

    async fn i5_two_device_cas_of_one_name_both_work(backend: Backend) {
        let server = TestServer::start(backend).await;
        let twin = server.add_device_ca("factory line").await;
        let line = &server.factory_line;
        assert_eq!(twin.certificate().subject(), line.certificate().subject());
        assert_ne!(twin.certificate().public_key(), line.certificate().public_key());

        for tls in [Tls::tls12(), Tls::tls13()] {
            let version = if tls.versions[0] == &rustls::version::TLS12 { "old" } else { "new" };
            for (ca, name) in [(line, format!("{version}-1")), (&twin, format!("{version}-2"))] {
                let device = Device::new(ca, FACTORY, &name);
                let mut wire = server.connect(Some(&device), &tls).await.unwrap();
                let request = get_with(&path("cacerts"), "");
                assert_eq!(wire.send(&request).await.unwrap().status, 200);
                let rotated = server.rotate(&device).await;
                server.session(&rotated).await;
                assert_eq!(server.states(&name).await, ["superseded", "current"]);
            }
        }
        server.stop().await;
    }

    async fn i5_revoking_one_of_two_cas_of_one_name_leaves_the_other(backend: Backend) {
        let server = TestServer::start(backend).await;
        let twin = server.add_device_ca("factory line").await;
        let stays = server.device("stays");
        let goes = Device::new(&twin, FACTORY, "goes");
        server.session(&stays).await;
        server.session(&goes).await;
        server.set_ca_state(twin.certificate(), "revoked").await;
        server.server.reload().await.unwrap();

        assert!(refused_in_the_handshake(&server, &goes).await);
        let rotated = server.rotate(&stays).await;
        server.session(&rotated).await;
        assert_eq!(state(&server, &rotated).await, "current");
        eventually("the handshake is on record", async || {
            handshakes_refused(&server).await == ["ca-revoked"]
        })
        .await;
        server.stop().await;
    }
}

async fn refused_in_the_handshake(server: &TestServer, device: &Device) -> bool {
    fails_with(server, device, &Tls::default()).await
}

/// On TLS 1.3 the client learns of it only when it reads.
async fn fails_with(server: &TestServer, device: &Device, tls: &Tls) -> bool {
    match server.connect(Some(device), tls).await {
        Ok(mut wire) => wire.send(&get_with(&path("cacerts"), "")).await.is_err(),
        Err(_) => true,
    }
}

async fn handshakes_refused(server: &TestServer) -> Vec<String> {
    let rows = server.audit().await.into_iter();
    rows.filter(|row| row.action == "handshake").map(|row| row.code).collect()
}
