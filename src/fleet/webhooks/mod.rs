//! Webhooks: tells whoever wants to know what the audit log has on record, in its order, at least
//! once each.

mod delivery;
mod event;

pub use event::to_json as event_to_json;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Uri;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tracing::error;

use crate::client::{ClientError, HostRoots, Poster};
use crate::keys::{KeyStore, WebhookSecret};
use crate::ledger::{Due, Ledger, LedgerError};
use crate::model::WebhookName;
use crate::telemetry::Metrics;
use delivery::Delivery;

/// How often the ledger is asked for news.
const STEP: Duration = Duration::from_secs(1);

/// How long the roots of this host are used before they are read anew.
const ROOTS_KEPT: Duration = Duration::from_hours(1);

/// What delivers the events of every webhook.
pub struct Courier {
    ledger: Ledger,
    key_store: Arc<KeyStore>,
    metrics: Arc<Metrics>,
    /// What receivers of `https` are verified by, and when it was read.
    roots: Mutex<Option<(Instant, HostRoots)>>,
}

/// Delivers until `drain` says to end, and then what is on its way.
pub async fn keep_going(courier: Courier, mut drain: watch::Receiver<bool>) {
    let (courier, mut turns, mut closed) = (Arc::new(courier), JoinSet::new(), HashSet::new());
    let stop = drain.clone();
    loop {
        tokio::select! {
            () = sleep(STEP) => {}
            _ = drain.wait_for(|drain| *drain) => break,
        }
        while turns.try_join_next().is_some() {}
        match courier.ledger.due_webhooks().await {
            Ok(due) => {
                for due in due {
                    let Some(secret) = courier.open(&due, &mut closed) else { continue };
                    turns.spawn(Arc::clone(&courier).take_turn(due, secret, stop.clone()));
                }
            }
            Err(why) => error!(error = %why, "cannot look for the events of webhooks"),
        }
    }
    while turns.join_next().await.is_some() {}
}

impl Courier {
    /// What delivers the events of this ledger, opens the secrets by this store, and counts
    /// deliveries there.
    pub fn new(ledger: Ledger, key_store: Arc<KeyStore>, metrics: Arc<Metrics>) -> Self {
        Self { ledger, key_store, metrics, roots: Mutex::new(None) }
    }

    /// What posts to a URL.
    async fn poster(&self, url: &Uri) -> Result<Poster, ClientError> {
        let roots =
            if url.scheme_str() == Some("https") { Some(self.roots().await?) } else { None };
        Poster::new(url, roots)
    }

    async fn roots(&self) -> Result<HostRoots, ClientError> {
        let mut kept = self.roots.lock().await;
        if let Some((read_at, roots)) = &*kept
            && read_at.elapsed() < ROOTS_KEPT
        {
            return Ok(roots.clone());
        }
        let roots = spawn_blocking(HostRoots::read).await.unwrap_or(Err(ClientError::NoRoots))?;
        *kept = Some((Instant::now(), roots.clone()));
        Ok(roots)
    }

    /// The webhook's secret. That it does not open is said once.
    fn open(&self, due: &Due, closed: &mut HashSet<WebhookName>) -> Option<WebhookSecret> {
        match self.key_store.unwrap_secret(due.wrapped_secret(), due.name()) {
            Ok(secret) => Some(secret),
            Err(why) => {
                if closed.insert(due.name().clone()) {
                    let webhook = due.name().as_str();
                    error!(webhook, error = %why, "its secret cannot be used, and its events wait");
                }
                None
            }
        }
    }

    async fn take_turn(
        self: Arc<Self>,
        due: Due,
        secret: WebhookSecret,
        stop: watch::Receiver<bool>,
    ) {
        let webhook = due.name().to_string();
        if let Err(why) = self.deliver(due, secret, stop).await {
            error!(webhook, error = %why, "cannot note what was delivered; it will be again");
        }
    }

    async fn deliver(
        self: Arc<Self>,
        due: Due,
        secret: WebhookSecret,
        stop: watch::Receiver<bool>,
    ) -> Result<(), LedgerError> {
        match self.ledger.take_turn(due).await? {
            Some(turn) => Delivery::new(self, turn, secret, stop).await.run().await,
            None => Ok(()),
        }
    }
}
