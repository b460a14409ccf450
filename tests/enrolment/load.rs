//! I11: nothing is lost under load; and I3 holds however enrolments interleave.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use estd::model::PENDING_LIMIT;
use estd::serve::Server;
use tokio::task::JoinSet;

use crate::on_both_ledgers;
use crate::support::wire::{Wire, get_with, post};
use crate::support::{Device, TestServer, Tls};
use crate::{done, path, state};

const BURST: usize = 300;

on_both_ledgers! {
    async fn i11_many_open_connections_all_get_answers(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        let mut open = Vec::new();
        for number in 0..200 {
            let device = (number % 2 == 0).then_some(&device);
            open.push(server.connect(device, &Tls::default()).await.unwrap());
        }
        let mut asking = JoinSet::new();
        for mut wire in open {
            asking.spawn(async move {
                let answer = wire.send(&get_with(&path("cacerts"), "")).await.unwrap();
                (wire, answer.status)
            });
        }
        let answered = asking.join_all().await;
        assert_eq!(answered.len(), 200);
        assert!(answered.iter().all(|(_, status)| *status == 200));
        assert_eq!(server.states("device-1").await, ["current"]);
        assert_eq!(done(&server, "register").await, 1);
        drop(answered);
        server.stop().await;
    }

    async fn i11_a_burst_of_one_device_is_recorded_to_the_last(backend: Backend) {
        let server = Arc::new(TestServer::start(backend).await);
        let device = Arc::new(server.device("device-1"));
        let mut burst = JoinSet::new();
        for _ in 0..BURST {
            let (server, device) = (Arc::clone(&server), Arc::clone(&device));
            burst.spawn(async move { server.reenroll(&device, &device.request().1).await });
        }
        let answers = burst.join_all().await;

        let (issued, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!((issued.len(), refused.len()), (PENDING_LIMIT, BURST - PENDING_LIMIT));
        assert!(refused.iter().all(|answer| answer.text().contains("(retried-too-often)")));
        assert_eq!(done(&server, "simplereenroll").await, PENDING_LIMIT);
        assert_eq!(done(&server, "register").await, 1);
        let credentials = server.story("device-1").await.credentials;
        let recorded: HashSet<&str> = credentials.iter().map(|one| one.sha256.as_str()).collect();
        for one in &issued {
            let one = one.certificate().fingerprint().to_string();
            assert!(recorded.contains(one.as_str()));
        }
        let count = |state: &str| credentials.iter().filter(|one| one.state == state).count();
        assert_eq!(count("current"), 1);
        assert_eq!(count("pending"), PENDING_LIMIT);
        assert_eq!(credentials.len(), 1 + PENDING_LIMIT);
        assert_eq!(state(&server, &device).await, "current");
        server.ledger().verify_audit().await.unwrap().unwrap();
        Arc::into_inner(server).unwrap().stop().await;
    }

    async fn i11_a_burst_of_many_devices_is_recorded_to_the_last(backend: Backend) {
        let server = Arc::new(TestServer::start(backend).await);
        let mut burst = JoinSet::new();
        for number in 0..BURST {
            let server = Arc::clone(&server);
            burst.spawn(async move {
                let device = server.device(&format!("device-{number}"));
                (format!("device-{number}"), server.rotate(&device).await)
            });
        }
        let received = burst.join_all().await;

        assert_eq!(done(&server, "simplereenroll").await, BURST);
        assert_eq!(done(&server, "register").await, BURST);
        for (name, device) in &received {
            assert_eq!(server.states(name).await, ["current", "pending"], "{name}");
            assert_eq!(state(&server, device).await, "pending");
        }
        server.ledger().verify_audit().await.unwrap().unwrap();
        Arc::into_inner(server).unwrap().stop().await;
    }

    async fn i3_a_fleet_that_rotates_ends_with_what_it_used_last(backend: Backend) {
        let server = Arc::new(TestServer::start(backend).await);
        let last_used = rotate_fleet(&server, &[server.server.est_address()]).await;
        assert_exactly_the_last_used(&server, &last_used).await;
        Arc::into_inner(server).unwrap().stop().await;
    }

    async fn i3_a_fleet_that_rotates_over_two_replicas_does_too(backend: Backend) {
        let server = Arc::new(TestServer::start(backend).await);
        let replica = Server::start(server.config.clone()).await.unwrap();
        let addresses = [server.server.est_address(), replica.est_address()];
        let last_used = rotate_fleet(&server, &addresses).await;
        assert_exactly_the_last_used(&server, &last_used).await;
        replica.stop().await;
        Arc::into_inner(server).unwrap().stop().await;
    }
}

const FLEET: usize = 20;
const ROTATIONS: usize = 5;

/// All devices at once rotate several times over these addresses. A device asks several times
/// before it switches, and not always to the newest certificate. Gives what each used last.
async fn rotate_fleet(server: &Arc<TestServer>, addresses: &[SocketAddr]) -> Vec<Device> {
    let mut fleet = JoinSet::new();
    for number in 0..FLEET {
        let (server, addresses) = (Arc::clone(server), addresses.to_vec());
        fleet.spawn(async move {
            let mut device = server.device(&format!("device-{number}"));
            for round in 0..ROTATIONS {
                let mut issued = Vec::new();
                for attempt in 0..=(number + round) % 3 {
                    let address = addresses[(number + round + attempt) % addresses.len()];
                    issued.push(rotate_at(&server, address, &device).await);
                }
                let chosen = (number * 7 + round) % issued.len();
                device = issued.swap_remove(chosen);
                let address = addresses[(number + round + 1) % addresses.len()];
                let mut wire = connect(&server, address, &device).await;
                let answer = wire.send(&get_with(&path("cacerts"), "")).await.unwrap();
                assert_eq!(answer.status, 200);
                assert_eq!(state(&server, &device).await, "current");
            }
            device
        });
    }
    fleet.join_all().await
}

async fn assert_exactly_the_last_used(server: &TestServer, last_used: &[Device]) {
    for device in last_used {
        let name = device.certificate.subject().common_name().unwrap();
        let credentials = server.story(&name).await.credentials;
        let current: Vec<_> = credentials.iter().filter(|one| one.state == "current").collect();
        assert_eq!(current.len(), 1, "{name}: {credentials:?}");
        assert_eq!(current[0].sha256, device.certificate.fingerprint().to_string(), "{name}");
    }
    assert_eq!(done(server, "confirm").await, FLEET * ROTATIONS);
    assert!(server.refusals().await.is_empty());
    server.ledger().verify_audit().await.unwrap().unwrap();
}

async fn rotate_at(server: &TestServer, address: SocketAddr, device: &Device) -> Device {
    let (key, body) = device.request();
    let mut wire = connect(server, address, device).await;
    let answer = wire.send(&post(&path("simplereenroll"), &body)).await.unwrap();
    Device::switched(answer.certificate(), key)
}

async fn connect(server: &TestServer, address: SocketAddr, device: &Device) -> Wire {
    let root = server.root.certificate();
    Wire::connect(address, root, Some(device), &Tls::default()).await.unwrap()
}
