//! An authenticated connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::fleet;
use crate::keys::ActiveSnapshot;
use crate::ledger::Ledger;
use crate::model::{Peer, Refusal};

/// A TLS connection whose handshake is complete. Every request carries it as an extension.
pub struct Session {
    peer: Peer,
    sighted: AtomicBool,
    ledger: Ledger,
    active: Arc<ArcSwap<ActiveSnapshot>>,
}

impl Session {
    pub(super) fn new(peer: Peer, ledger: Ledger, active: Arc<ArcSwap<ActiveSnapshot>>) -> Self {
        Self { peer, sighted: AtomicBool::new(false), ledger, active }
    }

    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Says that the ledger has judged this session's certificate, in an enrolment for instance.
    pub fn was_sighted(&self) {
        self.sighted.store(true, Ordering::Relaxed);
    }

    /// Records, once a session, that the device was seen with its certificate: at its first request
    /// that does not do so itself, or at the end of the session.
    pub async fn sight(&self) {
        if !self.sighted.load(Ordering::Relaxed) {
            // What the certificate is good for is the affair of the request that needs it.
            let _verdict = self.judge().await;
        }
    }

    /// The same, each time, where the verdict is what the request is about.
    ///
    /// # Errors
    /// The refusal: what the certificate is not good for any more.
    pub async fn judge(&self) -> Result<(), Refusal> {
        if self.peer.certificate.is_none() {
            return Ok(());
        }
        self.was_sighted();
        let verdict = fleet::sight(&self.ledger, &self.active.load(), &self.peer).await;
        if verdict.as_ref().is_err_and(Refusal::is_unrecorded) {
            // The session's next request, or its end, tries again: a switch must not go unseen.
            self.sighted.store(false, Ordering::Relaxed);
        }
        verdict.map(|_| ())
    }
}
