//! A whole server on loopback ports with a throwaway ledger, and devices that talk to it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "read the tests that use it")]

pub mod device;
pub mod fioctl;
pub mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::config::{Config, Written};
use estd::factory::{self, Authority, Installing};
use estd::keys::KeyStore;
use estd::ledger::{AuditFilter, AuditRow, DeviceStory, Ledger, NewFactory};
use estd::model::{DeviceName, FactoryId, FactoryName, HostName};
use estd::pki::Certificate;
use estd::serve::{Server, make_data_dir, open_ledger};
use sqlx::Executor;
use tempfile::TempDir;

pub use device::Device;
#[allow(unused_imports, reason = "each test binary uses its own part of this")]
pub use wire::{Answer, Tls};

pub const FACTORY: &str = "factory";
pub const HOST: &str = "localhost";

/// Where a test's ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// Defines each `async fn name(backend: Backend)` as two tests, `name::sqlite` and
/// `name::postgres`.
#[macro_export]
macro_rules! on_both_ledgers {
    ($($(#[$doc:meta])* async fn $name:ident($backend:ident: Backend) $body:block)*) => {$(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn run($backend: $crate::support::Backend) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() { run($crate::support::Backend::Sqlite).await; }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() { run($crate::support::Backend::Postgres).await; }
        }
    )*};
}

/// A server with one Factory: a development root, an online Device CA, and a factory line whose
/// local Device CA signs the devices' first certificates.
pub struct TestServer {
    pub server: Server,
    pub config: Config,
    pub folder: TempDir,
    pub root: Authority,
    pub factory_line: Authority,
    pub factory: FactoryId,
}

impl TestServer {
    pub async fn start(backend: Backend) -> Self {
        Self::start_with(backend, "").await
    }

    /// Starts with this configuration (TOML) over the test's own.
    pub async fn start_with(backend: Backend, toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::from_written(toml::from_str::<Written>(toml).unwrap()).unwrap();
        config.data_dir = folder.path().join("data");
        config.est_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.gateway_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.api_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.ledger = match backend {
            Backend::Sqlite => format!("sqlite:{}", folder.path().join("ledger").display()),
            Backend::Postgres => fresh_postgres().await,
        };
        make_data_dir(&config.data_dir).unwrap();

        let random = SystemRandom::new();
        let ledger = open_ledger(&config).await.unwrap();
        let key = KeyStore::open(&ledger, &config).await.unwrap();
        let name = FactoryName::parse(FACTORY).unwrap();
        let new = NewFactory {
            name: name.clone(),
            est_host: HostName::parse(HOST).unwrap(),
            gateway_host: HostName::parse(HOST).unwrap(),
            any_organizational_unit: false,
        };
        let root = Authority::root(&name, UnixTime::now(), &random).unwrap();
        factory::init(&ledger, &key, new, &root, &random, "test").await.unwrap();
        let factory_line = root.device_ca(&name, "factory line", UnixTime::now(), &random).unwrap();
        let factory = add_device_ca(&ledger, factory_line.certificate()).await;
        ledger.close().await;
        let server = Server::start(config.clone()).await.unwrap();
        Self { server, config, folder, root, factory_line, factory }
    }

    /// `https://localhost:PORT`.
    pub fn url(&self) -> String {
        format!("https://{HOST}:{}", self.server.est_address().port())
    }

    pub fn ledger(&self) -> &Ledger {
        self.server.ledger()
    }

    /// A device from the factory line: the server does not know it yet.
    pub fn device(&self, name: &str) -> Device {
        Device::new(&self.factory_line, FACTORY, name)
    }

    /// Adds a Device CA below the root and makes the server use it at once.
    pub async fn add_device_ca(&self, common_name: &str) -> Authority {
        let name = FactoryName::parse(FACTORY).unwrap();
        let random = SystemRandom::new();
        let ca = self.root.device_ca(&name, common_name, UnixTime::now(), &random).unwrap();
        add_device_ca(self.ledger(), ca.certificate()).await;
        self.server.reload().await.unwrap();
        ca
    }

    /// What the ledger knows of a device; panics if that is nothing.
    pub async fn story(&self, device: &str) -> DeviceStory {
        self.maybe_story(device).await.expect("the ledger knows the device")
    }

    pub async fn maybe_story(&self, device: &str) -> Option<DeviceStory> {
        let name = DeviceName::parse(device).unwrap();
        self.ledger().device(self.factory, &name).await.unwrap()
    }

    /// The states of a device's credentials, oldest first.
    pub async fn states(&self, device: &str) -> Vec<String> {
        self.story(device).await.credentials.into_iter().map(|one| one.state).collect()
    }

    /// The whole audit log, oldest first.
    pub async fn audit(&self) -> Vec<AuditRow> {
        let mut rows = self.ledger().audit_rows(&AuditFilter::default(), 10_000).await.unwrap();
        rows.reverse();
        rows
    }

    /// The codes of every refusal on record, oldest first.
    pub async fn refusals(&self) -> Vec<String> {
        let rows = self.audit().await.into_iter();
        rows.filter(|row| row.outcome != "done").map(|row| row.code).collect()
    }

    /// Sets the state of every Device CA with this subject, as the ledger's owner could.
    pub async fn set_ca_state(&self, certificate: &Certificate, state: &str) {
        let key = certificate.public_key().fingerprint();
        let ca = "UPDATE device_ca SET state = $1 WHERE public_key_sha256 = $2";
        let head = "UPDATE ledger_head SET snapshot_version = snapshot_version + 1";
        if self.config.ledger.starts_with("sqlite:") {
            let pool = sqlx::SqlitePool::connect(&self.config.ledger).await.unwrap();
            let update = sqlx::query(ca).bind(state.to_owned()).bind(key.as_bytes().to_vec());
            update.execute(&pool).await.unwrap();
            pool.execute(head).await.unwrap();
        } else {
            let pool = sqlx::PgPool::connect(&self.config.ledger).await.unwrap();
            let update = sqlx::query(ca).bind(state.to_owned()).bind(key.as_bytes().to_vec());
            update.execute(&pool).await.unwrap();
            pool.execute(head).await.unwrap();
        }
    }

    /// Runs SQL on the test's ledger, beside the server.
    pub async fn sql(&self, sql: &'static str) {
        if self.config.ledger.starts_with("sqlite:") {
            let pool = sqlx::SqlitePool::connect(&self.config.ledger).await.unwrap();
            pool.execute(sql).await.unwrap();
        } else {
            let pool = sqlx::PgPool::connect(&self.config.ledger).await.unwrap();
            pool.execute(sql).await.unwrap();
        }
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }

    /// Stops the server and starts it anew, with the same folder and ledger on other ports.
    pub async fn restart(self) -> Self {
        self.server.stop().await;
        let server = Server::start(self.config.clone()).await.unwrap();
        Self { server, ..self }
    }
}

async fn add_device_ca(ledger: &Ledger, certificate: &Certificate) -> FactoryId {
    let trust = ledger.factories().await.unwrap().pop().unwrap();
    let certificates = [certificate.clone()];
    let installing = Installing::DeviceCas;
    factory::install(ledger, &trust.factory, &certificates, installing, "test").await.unwrap();
    trust.factory.id
}

/// A new database on the PostgreSQL server that `tests/run` has started.
pub async fn fresh_postgres() -> String {
    let server = std::env::var("ESTD_TEST_POSTGRES")
        .expect("ESTD_TEST_POSTGRES: run the tests by tests/run, which starts PostgreSQL");
    let mut number = [0; 8];
    aws_lc_rs::rand::fill(&mut number).unwrap();
    let name = format!("test_{:016x}", u64::from_be_bytes(number));
    let pool = sqlx::PgPool::connect(&server).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&pool).await.unwrap();
    pool.close().await;
    server.replace("/postgres?", &format!("/{name}?"))
}

/// Waits until `condition` holds; panics if it does not come to that.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The PEM of the root, in a file of the test's folder.
pub fn root_file(server: &TestServer) -> std::path::PathBuf {
    let path = server.folder.path().join("root.pem");
    let pem = estd::pki::to_pem("CERTIFICATE", server.root.certificate().der()).unwrap();
    std::fs::write(&path, pem).unwrap();
    path
}

/// The TLS provider of every test client.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
