//! The server: builds its parts, starts them, follows the ledger, drains.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::api::{self, AdminToken, Api, Apply};
use crate::client::Upstream;
use crate::clock::UnixTime;
use crate::config::Config;
use crate::enrol::Enrolments;
use crate::est;
use crate::factory::{Export, RevocationLists};
use crate::fleet;
use crate::fleet::webhooks::Courier;
use crate::gateway::{self, Gateway};
use crate::keys::{ActiveSnapshot, KeyStore};
use crate::ledger::Ledger;
use crate::listener::{PlainListener, TlsListener, TrustHandle};
use crate::model::ServerPurpose;
use crate::telemetry::Metrics;

/// How often the ledger is asked whether a Factory changed.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// How long requests that are under way may take when the server ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A server that runs.
pub struct Server {
    est_address: SocketAddr,
    gateway_address: SocketAddr,
    api_address: SocketAddr,
    follower: Arc<Follower>,
    ledger: Ledger,
    tasks: JoinSet<()>,
    drain: watch::Sender<bool>,
}

/// Keeps the snapshot in use that of the ledger.
struct Follower {
    config: Config,
    ledger: Ledger,
    key_store: Arc<KeyStore>,
    active: Arc<ArcSwap<ActiveSnapshot>>,
    trust: Vec<TrustHandle>,
    /// One at a time, so that an older snapshot never follows a newer one.
    reloading: Mutex<()>,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Starts a server on both of its addresses.
    ///
    /// # Errors
    /// When the data folder, the ledger, its keys or an address cannot be had.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        make_data_dir(&config.data_dir)?;
        warn_of_loose_modes(&config.data_dir);
        if !config.api_listen.ip().is_loopback() {
            warn!(listen = %config.api_listen, "the API is plain HTTP: its tokens go in clear");
        }
        let token_file = config.admin_token_file();
        let admin = AdminToken::open_or_create(&token_file)
            .with_context(|| format!("the admin token in {}", token_file.display()))?;
        let ledger = open_ledger(&config).await?;
        let key_store = Arc::new(KeyStore::open(&ledger, &config).await?);
        key_store.look_for_token().await;
        let active = load(&config, &ledger, &key_store, None).await?;
        let active = Arc::new(ArcSwap::from_pointee(active));
        let metrics = Arc::new(Metrics::default());

        let bind = |address, purpose| {
            let (active, metrics) = (Arc::clone(&active), Arc::clone(&metrics));
            TlsListener::bind(address, purpose, ledger.clone(), active, metrics)
        };
        let est = bind(config.est_listen, ServerPurpose::Est)
            .await
            .with_context(|| format!("est.listen: {}", config.est_listen))?;
        let gateway = bind(config.gateway_listen, ServerPurpose::Gateway)
            .await
            .with_context(|| format!("gateway.listen: {}", config.gateway_listen))?;
        let api = PlainListener::bind(config.api_listen)
            .await
            .with_context(|| format!("api.listen: {}", config.api_listen))?;
        let (est_address, api_address) = (est.address()?, api.address()?);
        let gateway_address = gateway.address()?;
        let est_public_port = config.est_public_port.unwrap_or(est_address.port());
        let follower = Arc::new(Follower {
            config,
            ledger: ledger.clone(),
            key_store: Arc::clone(&key_store),
            active: Arc::clone(&active),
            trust: vec![est.trust(), gateway.trust()],
            reloading: Mutex::new(()),
            metrics: Arc::clone(&metrics),
        });
        follower.note_version();

        let (drain, draining) = watch::channel(false);
        let enrolments = Enrolments::new(ledger.clone(), Arc::clone(&active));
        let revocation_lists = RevocationLists::new(ledger.clone(), Arc::clone(&active));
        let revocation_lists = Arc::new(revocation_lists);
        let est_service =
            est::router(enrolments, Arc::clone(&revocation_lists), Arc::clone(&metrics));
        let upstream = follower.config.gateway_upstream.as_ref().map(Upstream::new).transpose();
        let gateway_service = gateway::router(Gateway {
            ledger: ledger.clone(),
            active: Arc::clone(&active),
            est_public_port,
            upstream: upstream.context("gateway.upstream")?,
            metrics: Arc::clone(&metrics),
        });
        let courier = Courier::new(ledger.clone(), Arc::clone(&key_store), Arc::clone(&metrics));
        let api_service = api::router(Api {
            enrolments: Enrolments::new(ledger.clone(), Arc::clone(&active)),
            ledger: ledger.clone(),
            active,
            revocation_lists: Arc::clone(&revocation_lists),
            key_store,
            admin,
            apply: apply(&follower),
            rotation_defaults: follower.config.rotation.clone(),
            est_public_port,
            draining: draining.clone(),
            metrics: Arc::clone(&metrics),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(est.serve(est_service, draining.clone()));
        tasks.spawn(api.serve(api_service, draining.clone()));
        tasks.spawn(gateway.serve(gateway_service, draining.clone()));
        tasks.spawn(fleet::rotations::keep_going(ledger.clone(), draining.clone()));
        tasks.spawn(fleet::webhooks::keep_going(courier, draining.clone()));
        if let Some(to) = follower.config.export.clone() {
            let export =
                Export { to, active: Arc::clone(&follower.active), revocation_lists, metrics };
            tasks.spawn(export.keep_going(draining.clone()));
        }
        tasks.spawn(Arc::clone(&follower).follow(draining));
        info!(est = %est_address, gateway = %gateway_address, api = %api_address, "estd is up");
        if !serves_a_factory(&follower.active.load()) {
            warn!("no Factory can be served yet: `estd factory csr` or `estd factory init`");
        }
        Ok(Self { est_address, gateway_address, api_address, follower, ledger, tasks, drain })
    }

    /// Where EST listens.
    pub fn est_address(&self) -> SocketAddr {
        self.est_address
    }

    /// Where the device gateway listens.
    pub fn gateway_address(&self) -> SocketAddr {
        self.gateway_address
    }

    /// Where the API listens.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Its ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Reads the Factories anew, now. Open connections go on.
    ///
    /// # Errors
    /// When the ledger fails, or a key does not open; what was in use stays.
    pub async fn reload(&self) -> anyhow::Result<()> {
        self.follower.key_store.look_for_token().await;
        self.follower.reload().await
    }

    /// Takes no new connection, lets requests that are under way have their answers, and ends.
    pub async fn stop(mut self) {
        info!("draining");
        // Nobody listening means that everything has ended already.
        let _nobody = self.drain.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(DRAIN_TIMEOUT, ended).await.is_err() {
            warn!("some connections did not end in time");
        }
        if timeout(DRAIN_TIMEOUT, self.ledger.close()).await.is_err() {
            warn!("the ledger did not close in time");
        }
        info!("estd is down");
    }
}

/// What the API calls after a change.
fn apply(follower: &Arc<Follower>) -> Apply {
    let follower = Arc::clone(follower);
    Box::new(move || {
        let follower = Arc::clone(&follower);
        Box::pin(async move { follower.follow_now().await })
    })
}

impl Follower {
    async fn follow(self: Arc<Self>, mut drain: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = sleep(FOLLOW_INTERVAL) => {}
                _ = drain.wait_for(|drain| *drain) => return,
            }
            self.follow_now().await;
            if let Err(why) = self.ledger.settle(UnixTime::now()).await {
                error!(error = %why, "refusals were counted and are not on record");
            }
        }
    }

    async fn follow_now(&self) {
        if let Err(why) = self.reload_if_changed().await {
            error!(error = format!("{why:#}"), "cannot follow the ledger");
        }
    }

    async fn reload_if_changed(&self) -> anyhow::Result<()> {
        let version = self.ledger.snapshot_version().await?;
        if version == self.active.load().snapshot().version {
            return Ok(());
        }
        self.reload().await
    }

    async fn reload(&self) -> anyhow::Result<()> {
        let _alone = self.reloading.lock().await;
        let previous = self.active.load_full();
        let previous = Some(previous.as_ref());
        let active = load(&self.config, &self.ledger, &self.key_store, previous).await?;
        info!(version = active.snapshot().version, "the Factories have changed");
        self.active.store(Arc::new(active));
        self.trust.iter().for_each(TrustHandle::reload);
        self.note_version();
        Ok(())
    }

    fn note_version(&self) {
        self.metrics.snapshot(self.active.load().snapshot().version);
    }
}

async fn load(
    config: &Config,
    ledger: &Ledger,
    key_store: &KeyStore,
    previous: Option<&ActiveSnapshot>,
) -> anyhow::Result<ActiveSnapshot> {
    let profiles = config.profiles.clone();
    let authorities = config.registration_authorities.clone();
    Ok(ActiveSnapshot::load(ledger, key_store, previous, profiles, authorities).await?)
}

fn serves_a_factory(active: &ActiveSnapshot) -> bool {
    let mut factories = active.snapshot().factories.iter();
    factories.any(|trust| active.server(trust.factory.id, ServerPurpose::Est).is_some())
}

fn warn_of_loose_modes(data_dir: &Path) {
    let mode = data_dir.metadata().map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        let data_dir = data_dir.display();
        warn!("others may read the data folder: chmod 700 {data_dir}");
    }
}

/// Makes the folder of keys, for its owner alone, unless it is there.
///
/// # Errors
/// When it cannot be made.
pub fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("data_dir: {}", path.display()))
}

/// Opens the ledger that the configuration names.
///
/// # Errors
/// When it cannot be opened; the error says where it was looked for, without its password.
pub async fn open_ledger(config: &Config) -> anyhow::Result<Ledger> {
    let shown = without_password(&config.ledger);
    Ledger::open(&config.ledger).await.with_context(|| format!("ledger.url: {shown}"))
}

/// A ledger's URL as far as it can hold no password: scheme, host and path, or the scheme alone.
fn without_password(url: &str) -> String {
    if url.starts_with("sqlite:") {
        return url.to_owned();
    }
    let uri = url.parse::<hyper::Uri>().ok();
    let host = uri.as_ref().and_then(hyper::Uri::host);
    match (&uri, host) {
        (Some(uri), Some(host)) => format!("postgres://{host}{}", uri.path()),
        _ => "postgres:…".to_owned(),
    }
}
