//! I1: durable before visible; and what is durable is still there after a restart.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use estd::config::Config;
use estd::ledger::Ledger;
use estd::model::FactoryId;
use estd::pki::Certificate;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::wire::{Wire, post};
use crate::support::{Device, FACTORY, TestServer, Tls, eventually};
use crate::{assert_refused, device_name, on_both_ledgers, path, state};

const DEVICES: usize = 8;
const KILLS: usize = 5;
/// How many certificates the clients have before each kill.
const RECEIVED: usize = 40;

on_both_ledgers! {
    async fn i1_what_a_client_received_before_a_kill_is_on_record(backend: Backend) {
        let TestServer { server, config, folder, root, factory_line, factory } =
            TestServer::start(backend).await;
        server.stop().await;
        let names: Vec<String> = (0..DEVICES).map(|number| format!("device-{number}")).collect();

        let mut received = Vec::new();
        for kill in 0..KILLS {
            let log = folder.path().join(format!("log-{kill}"));
            let mut process = Process::start(&config, &log).await;
            let (sender, mut certificates) = mpsc::unbounded_channel();
            let mut clients = JoinSet::new();
            for name in &names {
                // A device of its own for each process: the ones before have been forgotten here.
                let device = Device::new(&factory_line, FACTORY, &format!("{name}-{kill}"));
                let root = root.certificate().clone();
                clients.spawn(reenrol_for_ever(process.est, root, device, sender.clone()));
            }
            drop(sender);
            for _ in 0..RECEIVED {
                received.push(certificates.recv().await.expect("the server serves"));
            }
            process.kill();
            clients.join_all().await;
            while let Some(certificate) = certificates.recv().await {
                received.push(certificate);
            }
        }

        assert!(received.len() >= KILLS * RECEIVED);
        assert_all_on_record(&config, factory, &received).await;
    }

    /// Once under each name of the state machine: current, pending and superseded.
    async fn i1_what_the_ledger_says_survives_a_restart(backend: Backend) {
        let server = TestServer::start(backend).await;
        let first = server.device("device-1");
        server.session(&first).await;
        let second = server.rotate(&first).await;
        server.session(&second).await;
        let third = server.rotate(&second).await;
        let before = serde_json::to_value(server.story("device-1").await).unwrap();

        let server = server.restart().await;
        assert_eq!(serde_json::to_value(server.story("device-1").await).unwrap(), before);
        assert_eq!(server.states("device-1").await, ["superseded", "current", "pending"]);
        server.session(&third).await;
        assert_eq!(state(&server, &third).await, "current");
        let refused = server.reenroll(&first, &first.request().1).await;
        assert_refused(&refused, 403, "credential-superseded");
        server.ledger().verify_audit().await.unwrap().unwrap();
        server.stop().await;
    }
}

/// Sends what it receives, until the connection breaks.
async fn reenrol_for_ever(
    address: SocketAddr,
    root: Certificate,
    device: Device,
    received: mpsc::UnboundedSender<Certificate>,
) {
    let Ok(mut wire) = Wire::connect(address, &root, Some(&device), &Tls::default()).await else {
        return;
    };
    loop {
        let request = post(&path("simplereenroll"), &device.request().1);
        let Ok(answer) = wire.send(&request).await else {
            return;
        };
        received.send(answer.certificate()).unwrap();
    }
}

async fn assert_all_on_record(config: &Config, factory: FactoryId, received: &[Certificate]) {
    let ledger = Ledger::open(&config.ledger).await.unwrap();
    for certificate in received {
        let name = device_name(&certificate.subject().common_name().unwrap());
        let story = ledger.device(factory, &name).await.unwrap();
        let story = story.unwrap_or_else(|| panic!("{name} has a certificate and no record"));
        let fingerprint = certificate.fingerprint().to_string();
        let recorded = story.credentials.iter().any(|one| one.sha256 == fingerprint);
        assert!(recorded, "{name} received {fingerprint}, of which there is no record");
    }
    ledger.verify_audit().await.unwrap().unwrap();
    ledger.close().await;
}

/// `estd serve` as a process of its own, on ports of its own choice.
struct Process {
    child: Child,
    est: SocketAddr,
}

impl Process {
    async fn start(config: &Config, log: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_estd"))
            .arg("--data-dir")
            .arg(&config.data_dir)
            .args(["--ledger-url", &config.ledger, "serve", "--log-filter", "info"])
            .args(["--est-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"])
            .args(["--gateway-listen", "127.0.0.1:0"])
            .current_dir(log.parent().unwrap())
            .stdin(Stdio::null())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        // Made at once, so that the child ends with the test however that ends.
        let mut process = Self { child, est: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut address = None;
        eventually("the server is up", async || {
            address = est_address(&std::fs::read_to_string(log).unwrap());
            address.is_some()
        })
        .await;
        process.est = address.unwrap();
        process
    }

    /// By SIGKILL: nothing is drained.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed and waited for already.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Where it listens, once its log says so.
fn est_address(log: &str) -> Option<SocketAddr> {
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let up = lines
        .filter(|line: &serde_json::Value| line["message"] == "estd is up")
        .find_map(|line| line["est"].as_str().map(str::to_owned))?;
    Some(up.parse().unwrap())
}
