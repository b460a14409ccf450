//! The CRLs of online Device CAs: what foreign gateways need to refuse a credential that was
//! superseded or denied here.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::clock::UnixTime;
use crate::keys::{ActiveSnapshot, KeyError};
use crate::ledger::{Ledger, LedgerError, RefusedCredential, SignedRevocationList};
use crate::model::{CredentialState, DeviceCa, DeviceCaId, FactoryTrust};
use crate::pki::{Fingerprint, Malformed, RevocationTemplate, RevokedSerial};

/// How long a CRL is good for, in seconds.
const LIFE: i64 = 24 * 3600;
/// How old it may grow, in seconds, when there is nothing new to say.
const RENEWAL: i64 = 6 * 3600;
/// How long the ledger is not asked again whether there is, in seconds.
const CHECK_INTERVAL: i64 = 30;
/// CRLReason superseded and privilegeWithdrawn (RFC 5280 §5.3.1).
const SUPERSEDED: u8 = 4;
const PRIVILEGE_WITHDRAWN: u8 = 9;

/// Makes the CRLs of online Device CAs, each no oftener than needed.
pub struct RevocationLists {
    ledger: Ledger,
    active: Arc<ArcSwap<ActiveSnapshot>>,
    random: SystemRandom,
    /// One at a time, so that many who ask cost no more than one.
    latest: Mutex<HashMap<DeviceCaId, Latest>>,
}

#[derive(Clone)]
struct Latest {
    der: Arc<[u8]>,
    made_at: UnixTime,
    checked_at: UnixTime,
    /// Whether a newer one could not be made when it was looked at last.
    stale: bool,
}

/// Why there is no CRL.
#[derive(Debug, thiserror::Error)]
pub enum RevocationListError {
    /// Its key is elsewhere.
    #[error("this Device CA's key is not here, so its CRLs are made elsewhere")]
    NotOnline,
    /// The key cannot be used now.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The list cannot be encoded.
    #[error(transparent)]
    Encoding(#[from] Malformed),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Other replicas were faster again and again.
    #[error("the CRL changes faster than it can be signed")]
    Outrun,
}

impl RevocationLists {
    /// Signs by the keys of whatever `active` holds at the time.
    pub fn new(ledger: Ledger, active: Arc<ArcSwap<ActiveSnapshot>>) -> Self {
        let latest = Mutex::default();
        Self { ledger, active, random: SystemRandom::new(), latest }
    }

    /// The present CRL of every online Device CA of a Factory that is not revoked.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub async fn of_factory(
        &self,
        trust: &FactoryTrust,
    ) -> Result<Vec<Arc<[u8]>>, RevocationListError> {
        let mut lists = Vec::new();
        for ca in trust.online_cas() {
            lists.push(self.of(ca).await?);
        }
        Ok(lists)
    }

    /// Whether a CRL of a Factory says less than the ledger knows, for it could not be made anew.
    pub async fn stale(&self, trust: &FactoryTrust) -> bool {
        let latest = self.latest.lock().await;
        trust.online_cas().any(|ca| latest.get(&ca.id).is_some_and(|latest| latest.stale))
    }

    /// The present CRL of an online Device CA, in DER. While a new one cannot be made, the last one
    /// goes on as long as it is good.
    ///
    /// # Errors
    /// When its key is elsewhere, or the key or the ledger cannot be used.
    pub async fn of(&self, ca: &DeviceCa) -> Result<Arc<[u8]>, RevocationListError> {
        let now = UnixTime::now();
        let mut latest = self.latest.lock().await;
        let known = latest.get(&ca.id);
        if let Some(known) = known.filter(|known| now < known.checked_at.plus(CHECK_INTERVAL)) {
            return Ok(Arc::clone(&known.der));
        }
        match self.refresh(ca, now).await {
            Ok(list) => {
                let der = Arc::from(list.der);
                let made = Latest { der, made_at: list.made_at, checked_at: now, stale: false };
                let der = Arc::clone(&made.der);
                latest.insert(ca.id, made);
                Ok(der)
            }
            Err(why) => match known.filter(|known| now < known.made_at.plus(LIFE)) {
                Some(known) => {
                    warn!(device_ca = %ca.certificate.subject(), error = %why, "an old CRL goes on");
                    let goes_on = Latest { checked_at: now, stale: true, ..known.clone() };
                    let der = Arc::clone(&goes_on.der);
                    latest.insert(ca.id, goes_on);
                    Ok(der)
                }
                None => Err(why),
            },
        }
    }

    /// The CRL on record if it says all, else a new one, which is on record when this returns.
    async fn refresh(
        &self,
        ca: &DeviceCa,
        now: UnixTime,
    ) -> Result<SignedRevocationList, RevocationListError> {
        for _attempt in 0..3 {
            let before = self.ledger.revocation_list(ca.id).await?;
            let refused = self.ledger.refused_credentials(ca.id, now).await?;
            let said = said(&refused);
            let number = match before {
                Some(before) if before.entries == said && now < before.made_at.plus(RENEWAL) => {
                    return Ok(before);
                }
                before => before.map_or(1, |before| before.number + 1),
            };
            let der = self.sign(ca, number, refused, now).await?;
            let list = SignedRevocationList { number, entries: said, der, made_at: now };
            if self.ledger.store_revocation_list(ca.id, &list).await? {
                info!(device_ca = %ca.certificate.subject(), number, "signed a CRL");
                return Ok(list);
            }
        }
        Err(RevocationListError::Outrun)
    }

    async fn sign(
        &self,
        ca: &DeviceCa,
        number: i64,
        refused: Vec<RefusedCredential>,
        now: UnixTime,
    ) -> Result<Vec<u8>, RevocationListError> {
        let active = self.active.load_full();
        let key = active.signer(ca).ok_or(RevocationListError::NotOnline)?;
        let (certificate, algorithm) = (ca.certificate.clone(), key.algorithm());
        // A large fleet's takes a while.
        let encoded = spawn_blocking(move || {
            let entries: Vec<RevokedSerial> = refused.into_iter().map(entry).collect();
            let template = RevocationTemplate {
                issuer: certificate.subject(),
                this_update: now,
                next_update: now.plus(LIFE),
                number: u64::try_from(number).unwrap_or_default(),
                authority_key_identifier: &certificate.key_identifier()?,
                entries: &entries,
            };
            template.to_be_signed(algorithm)
        });
        let to_be_signed = encoded.await.map_err(|_panicked| RevocationListError::Outrun)??;
        Ok(key.sign(to_be_signed, &self.random).await?)
    }
}

fn entry(refused: RefusedCredential) -> RevokedSerial {
    let reason = match refused.state {
        CredentialState::Denied => PRIVILEGE_WITHDRAWN,
        _ => SUPERSEDED,
    };
    RevokedSerial { serial: refused.serial, at: refused.since, reason: Some(reason) }
}

/// A digest of what a CRL with these entries says.
fn said(refused: &[RefusedCredential]) -> Fingerprint {
    let mut text = Vec::new();
    for one in refused {
        text.extend_from_slice(one.state.as_str().as_bytes());
        text.extend_from_slice(&one.since.0.to_be_bytes());
        text.extend_from_slice(one.serial.contents());
        text.push(b'\n');
    }
    Fingerprint::of(&text)
}
