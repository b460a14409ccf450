//! What the server acts with: one snapshot of the Factories and the keys that belong to it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tracing::{error, warn};

use super::{HeldKey, KeyError, KeyStore, Signer, SigningKey};
use crate::ledger::{Ledger, LedgerError};
use crate::model::{DeviceCa, FactoryId, Profiles, ServerPurpose, Snapshot};
use crate::pki::{Certificate, Fingerprint};

/// A snapshot and its keys, replaced as a whole.
pub struct ActiveSnapshot {
    snapshot: Snapshot,
    keys: HashMap<Fingerprint, HeldKey>,
    servers: HashMap<(FactoryId, ServerPurpose), ServerIdentity>,
}

/// A server certificate with its key.
#[derive(Clone)]
pub struct ServerIdentity {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: Arc<SigningKey>,
}

/// Why the snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No key opens: the key-encryption key is another one.
    #[error("the key {public_key}: {source}")]
    Key {
        /// Which key.
        public_key: Fingerprint,
        /// Why it does not open.
        source: KeyError,
    },
}

impl ActiveSnapshot {
    /// Reads the Factories from the ledger and opens their keys, those that `previous` has not. Only
    /// a server that starts must be able to open them all: one that runs must follow what else has
    /// changed, the more so when a key was stored under a key-encryption key that it does not have.
    ///
    /// # Errors
    /// When the ledger fails, or a key does not open at the start.
    pub async fn load(
        ledger: &Ledger,
        key_store: &KeyStore,
        previous: Option<&Self>,
        profiles: Profiles,
        registration_authorities: HashSet<Fingerprint>,
    ) -> Result<Self, LoadError> {
        // The version first: what changes meanwhile is then read once more, never missed.
        let version = ledger.snapshot_version().await?;
        let snapshot = Snapshot {
            version,
            factories: ledger.factories().await?,
            profiles,
            registration_authorities,
        };
        let mut keys = HashMap::new();
        for stored in ledger.installed_keys().await? {
            let public_key = stored.public_key;
            let known = previous.and_then(|previous| previous.keys.get(&public_key));
            match known.map_or_else(|| key_store.hold(&stored), |known| Ok(known.clone())) {
                Ok(key) => {
                    keys.insert(public_key, key);
                }
                Err(why) if previous.is_some() => {
                    error!(%public_key, error = %why, "a key does not open and is not used");
                }
                Err(source) => return Err(LoadError::Key { public_key, source }),
            }
        }
        let mut servers = HashMap::new();
        for installed in ledger.server_certificates().await? {
            let public_key = installed.certificate.public_key().fingerprint();
            let Some(HeldKey::Ledger(key)) = keys.get(&public_key) else {
                warn!(%public_key, "a server certificate has no key and is not served");
                continue;
            };
            let key = Arc::clone(key);
            let identity = ServerIdentity { certificate: installed.certificate, key };
            servers.insert((installed.factory, installed.purpose), identity);
        }
        Ok(Self { snapshot, keys, servers })
    }

    /// The Factories.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The key of an online Device CA.
    pub fn signer(&self, device_ca: &DeviceCa) -> Option<Signer<'_>> {
        self.keys.get(&device_ca.certificate.public_key().fingerprint()).map(HeldKey::signer)
    }

    /// A Factory's server certificate with its key.
    pub fn server(&self, factory: FactoryId, purpose: ServerPurpose) -> Option<&ServerIdentity> {
        self.servers.get(&(factory, purpose))
    }
}
