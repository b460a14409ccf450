//! Several Factories in one server: a device belongs to that of its Device CA.

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::factory::{self, Authority, Installing};
use estd::keys::KeyStore;
use estd::ledger::{DeviceStory, NewFactory};
use estd::model::{FactoryId, FactoryName, HostName};
use estd::pki::Certificate;

use crate::on_both_ledgers;
use crate::support::wire::{Answer, Wire, get_with, post};
use crate::support::{Device, FACTORY, HOST, TestServer, Tls};
use crate::{assert_refused, device_name, issuing_ca, path};

const OTHER: &str = "other";
const OTHER_HOST: &str = "other.example";

on_both_ledgers! {
    async fn i4_a_device_belongs_to_the_factory_of_its_ca_whatever_the_host(backend: Backend) {
        let server = TestServer::start(backend).await;
        let other = Other::add(&server).await;
        // Each device asks at the other's host.
        let theirs = Device::new(&other.line, OTHER, "theirs");
        let ours = server.device("ours");

        let at_ours = Host { name: HOST, root: server.root.certificate() };
        let answer = at_ours.reenroll(&server, &theirs).await;
        answer.certificate().verify_issued_by(&other.issuing_ca(&server).await).unwrap();
        let at_theirs = Host { name: OTHER_HOST, root: other.root.certificate() };
        let answer = at_theirs.reenroll(&server, &ours).await;
        answer.certificate().verify_issued_by(&issuing_ca(&server).await).unwrap();

        assert!(other.story(&server, "theirs").await.is_some());
        assert!(server.maybe_story("theirs").await.is_none());
        assert!(server.maybe_story("ours").await.is_some());
        assert!(other.story(&server, "ours").await.is_none());
        server.stop().await;
    }

    async fn i4_a_name_in_two_factories_is_two_devices(backend: Backend) {
        let server = TestServer::start(backend).await;
        let other = Other::add(&server).await;
        let ours = server.device("device-1");
        let theirs = Device::new(&other.line, OTHER, "device-1");
        server.session(&ours).await;
        let host = Host { name: OTHER_HOST, root: other.root.certificate() };
        assert_eq!(host.cacerts(&server, &theirs).await.status, 200);

        let rotated = server.rotate(&ours).await;
        server.session(&rotated).await;
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        let story = other.story(&server, "device-1").await.unwrap();
        assert_eq!(story.credentials.len(), 1);
        assert_eq!(story.credentials[0].sha256, theirs.certificate.fingerprint().to_string());
        assert!(server.refusals().await.is_empty());
        server.stop().await;
    }

    /// The Device CA of one Factory vouches for nobody in another.
    async fn i4_no_factory_signs_for_another(backend: Backend) {
        let server = TestServer::start(backend).await;
        let other = Other::add(&server).await;
        let ours = server.device("device-1");
        server.session(&ours).await;
        let intruder = Device::new(&other.line, FACTORY, "device-1");

        for (host, root) in [(HOST, &server.root), (OTHER_HOST, &other.root)] {
            let host = Host { name: host, root: root.certificate() };
            let answer = host.reenroll(&server, &intruder).await;
            assert_refused(&answer, 403, "ou-mismatch");
        }
        assert_eq!(server.states("device-1").await, ["current"]);
        assert!(other.story(&server, "device-1").await.is_none());
        server.stop().await;
    }

    /// Without a client certificate the host name decides (DESIGN: else from SNI).
    async fn e_29_each_host_gives_the_cas_of_its_own_factory(backend: Backend) {
        let server = TestServer::start(backend).await;
        let other = Other::add(&server).await;
        for (name, root) in [(HOST, &server.root), (OTHER_HOST, &other.root)] {
            let host = Host { name, root: root.certificate() };
            let mut wire = host.connect(&server, None).await;
            let answer = wire.send(&get_with(&path("cacerts"), "")).await.unwrap();
            let certificates = answer.certificates();
            assert_eq!(certificates.len(), 3, "root, online CA, factory line");
            for certificate in &certificates {
                certificate.verify_issued_by(root.certificate()).unwrap();
            }
        }
        server.stop().await;
    }
}

/// A second Factory in a server.
struct Other {
    root: Authority,
    line: Authority,
    id: FactoryId,
}

impl Other {
    async fn add(server: &TestServer) -> Self {
        let ledger = server.ledger();
        let random = SystemRandom::new();
        let key = KeyStore::open(ledger, &server.config).await.unwrap();
        let name = FactoryName::parse(OTHER).unwrap();
        let new = NewFactory {
            name: name.clone(),
            est_host: HostName::parse(OTHER_HOST).unwrap(),
            gateway_host: HostName::parse(OTHER_HOST).unwrap(),
            any_organizational_unit: false,
        };
        let now = UnixTime::now();
        let root = Authority::root(&name, now, &random).unwrap();
        factory::init(ledger, &key, new, &root, &random, "test").await.unwrap();
        let line = root.device_ca(&name, "factory line", now, &random).unwrap();
        let factories = ledger.factories().await.unwrap().into_iter();
        let factory = factories.map(|trust| trust.factory).find(|one| one.name == name).unwrap();
        let certificates = [line.certificate().clone()];
        let installing = Installing::DeviceCas;
        factory::install(ledger, &factory, &certificates, installing, "test").await.unwrap();
        server.server.reload().await.unwrap();
        Self { root, line, id: factory.id }
    }

    async fn issuing_ca(&self, server: &TestServer) -> Certificate {
        let factories = server.ledger().factories().await.unwrap();
        let own = factories.iter().find(|trust| trust.factory.id == self.id).unwrap();
        own.issuing_ca(UnixTime::now(), 0).unwrap().certificate.clone()
    }

    async fn story(&self, server: &TestServer, device: &str) -> Option<DeviceStory> {
        server.ledger().device(self.id, &device_name(device)).await.unwrap()
    }
}

/// A host name of the server, and the root that vouches for it.
struct Host<'a> {
    name: &'static str,
    root: &'a Certificate,
}

impl Host<'_> {
    async fn connect(&self, server: &TestServer, device: Option<&Device>) -> Wire {
        let tls = Tls { server_name: self.name, ..Tls::default() };
        Wire::connect(server.server.est_address(), self.root, device, &tls).await.unwrap()
    }

    async fn cacerts(&self, server: &TestServer, device: &Device) -> Answer {
        let request = get_with(&path("cacerts"), "");
        self.connect(server, Some(device)).await.send(&request).await.unwrap()
    }

    async fn reenroll(&self, server: &TestServer, device: &Device) -> Answer {
        let request = post(&path("simplereenroll"), &device.request().1);
        self.connect(server, Some(device)).await.send(&request).await.unwrap()
    }
}
