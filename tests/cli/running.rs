//! A server in operation: it drains at its end, and follows changes without dropping anybody.

use estd::pki::Certificate;

use crate::host::Host;
use crate::offline_root::{OfflineRoot, openssl};
use crate::on_both_ledgers;
use crate::process::{Process, eventually};
use crate::support::wire::{Answer, Wire, get_with, post, post_with};
use crate::support::{Backend, Device, FACTORY, HOST, Tls};

const REENROLL: &str = "/.well-known/est/simplereenroll";

on_both_ledgers! {
    /// Devices must never meet an expired server certificate: a new one comes without a restart.
    async fn a_server_certificate_is_renewed_without_a_restart(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let shown = || {
            let address = server.est.to_string();
            openssl(host.path(), &["s_client", "-connect", &address, "-servername", HOST])
                .split_inclusive("-----END CERTIFICATE-----")
                .find_map(|text| Certificate::from_pem(text.as_bytes()).ok()?.pop())
                .unwrap()
        };
        assert_eq!(shown(), certificate(&host, "est-tls.pem"));
        let csr = ["factory", "csr", "--name", FACTORY, "--only", "est-tls", "--out", "new"];
        assert_eq!(host.estd(&csr).success(), "new/est-tls.csr\n");
        assert_eq!(shown(), certificate(&host, "est-tls.pem"));
        root.sign("new/est-tls.csr", "new.pem", &[]);
        let told = host.estd(&["factory", "install", "new.pem"]).success();
        assert!(told.contains("Nothing is missing"), "{told}");
        server.follows(&host).await;
        assert_eq!(shown(), certificate(&host, "new.pem"));
        server.stop().await;
    }

    /// A request whose head has been read gets its answer, on durable record; nobody new comes in.
    async fn sigterm_drains(backend: Backend) {
        let field = Field::new(backend).await;
        for (signal, name) in [("TERM", "device-1"), ("INT", "device-2")] {
            let server = field.host.serve().await;
            let device = field.line.device("device", name);
            let mut idle = field.connect(&server, &device).await;
            assert_eq!(cacerts(&mut idle).await.status, 200);
            let mut wire = field.connect(&server, &device).await;
            let (_key, body) = device.request();
            let headers = "Content-Type: application/pkcs10\r\nExpect: 100-continue\r\n";
            let request = post_with(REENROLL, headers, body.as_bytes());
            let head = request.len() - body.len();
            assert_eq!(wire.send(&request[..head]).await.unwrap().status, 100);

            server.signal(signal);
            server.logged("\"draining\"", 1).await;
            assert!(idle.ends_cleanly().await, "an idle connection ends by close_notify");
            drop(idle);
            let root = field.root.certificate();
            eventually("newcomers to be refused", async || {
                let newcomer = Wire::connect(server.est, &root, None, &Tls::default()).await;
                newcomer.is_err().then_some(())
            })
            .await;
            let answer = wire.send(&request[head..]).await.unwrap();
            let issued = answer.certificate();
            assert!(wire.ends_cleanly().await);
            drop(wire);
            let (code, log) = server.ended().await;
            assert_eq!(code, Some(0), "{log}");
            assert!(log.lines().last().unwrap().contains("estd is down"), "{log}");

            let server = field.host.serve().await;
            let story = server.estd(&field.host, &["device", "show", name, "--json"]).json();
            let recorded = story["credentials"][1]["sha256"].as_str().unwrap().to_owned();
            assert_eq!(recorded, issued.fingerprint().to_string());
            server.stop().await;
        }
    }

    /// Another process changes the ledger; what is open stays open and acts by the change.
    async fn a_change_in_the_ledger_is_followed_on_open_connections(backend: Backend) {
        let field = Field::new(backend).await;
        let server = field.host.serve().await;
        let device = field.line.device("device", "device-1");
        let mut wire = field.connect(&server, &device).await;
        assert_eq!(cacerts(&mut wire).await.certificates().len(), 3);

        let init = ["factory", "init", "--name", "two", "--est-host", "two.example"];
        let files = ["--root-key", "two.key", "--root", "two.pem"];
        field.host.estd(&[&init[..], &files].concat()).success();
        server.follows(&field.host).await;
        assert!(server.estd(&field.host, &["factory", "show"]).success().contains("Factory two"));
        assert_eq!(cacerts(&mut wire).await.certificates().len(), 3);

        // A second server on the same ledger stands for a replica.
        let replica = field.host.serve().await;
        let csr = ["--factory", "factory", "device-ca", "add", "--online"];
        field.host.write("next.csr", replica.estd(&field.host, &csr).success());
        field.root.sign("next.csr", "next.pem", &["-subj", "/CN=the next one"]);
        let add = ["--factory", "factory", "device-ca", "add", "next.pem"];
        replica.estd(&field.host, &add).success();
        replica.stop().await;
        server.follows(&field.host).await;
        assert_eq!(cacerts(&mut wire).await.certificates().len(), 4);
        let issued = reenroll(&mut wire, &device).await.certificate();
        assert_eq!(issued.issuer().to_string(), "CN=the next one");
        drop(wire);
        server.stop().await;
    }

    async fn sighup_reloads_without_dropping_connections(backend: Backend) {
        let field = Field::new(backend).await;
        let server = field.host.serve().await;
        let device = field.line.device("device", "device-1");
        let mut wire = field.connect(&server, &device).await;
        assert_eq!(cacerts(&mut wire).await.status, 200);
        for count in 1..=3 {
            server.signal("HUP");
            server.logged("the Factories have changed", count).await;
            assert_eq!(cacerts(&mut wire).await.status, 200);
        }
        reenroll(&mut wire, &device).await.certificate();
        drop(wire);
        server.stop().await;
    }

    /// What cannot be loaded leaves in use what was.
    async fn sighup_that_cannot_load_changes_nothing(backend: Backend) {
        let field = Field::new(backend).await;
        let server = field.host.serve().await;
        let device = field.line.device("device", "device-1");
        let mut wire = field.connect(&server, &device).await;
        assert_eq!(cacerts(&mut wire).await.status, 200);
        field.host.sql("UPDATE factory SET name = 'not a name'").await;
        server.signal("HUP");
        server.logged("cannot reload; what was in use stays", 1).await;
        reenroll(&mut wire, &device).await.certificate();
        let mut another = field.connect(&server, &device).await;
        assert_eq!(cacerts(&mut another).await.status, 200);
        drop((wire, another));
        server.stop().await;
    }
}

/// A host with a Factory and a factory line.
struct Field {
    host: Host,
    root: OfflineRoot,
    line: OfflineRoot,
}

impl Field {
    async fn new(backend: Backend) -> Self {
        let (host, root) = Host::with_factory(backend).await;
        let line = root.device_ca("line", &[]);
        let server = host.serve().await;
        server.estd(&host, &["device-ca", "add", "line.pem"]).success();
        server.stop().await;
        Self { host, root, line }
    }

    async fn connect(&self, server: &Process, device: &Device) -> Wire {
        server.connect(&self.root.certificate(), Some(device)).await
    }
}

async fn cacerts(wire: &mut Wire) -> Answer {
    wire.send(&get_with("/.well-known/est/cacerts", "")).await.unwrap()
}

async fn reenroll(wire: &mut Wire, device: &Device) -> Answer {
    wire.send(&post(REENROLL, &device.request().1)).await.unwrap()
}

fn certificate(host: &Host, name: &str) -> Certificate {
    Certificate::from_pem(host.read(name).as_bytes()).unwrap().pop().unwrap()
}
