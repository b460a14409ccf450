//! A development Factory in one step: a root of its own signs everything at once.

use aws_lc_rs::rand::SystemRandom;

use super::{
    Authority, AuthorityError, InstallFailure, Installing, RequestError, RequestedKey, install,
    pending_requests, request_keys,
};
use crate::clock::UnixTime;
use crate::keys::KeyStore;
use crate::ledger::{ChangeError, ChangeRefused, Ledger, LedgerError, NewFactory};
use crate::model::{Factory, FactoryName};
use crate::pki::{CertificationRequest, Malformed};

/// Why a development Factory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The root could not sign.
    #[error("the root: {0}")]
    Root(#[from] AuthorityError),
    /// The Factory could not be added.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The keys could not be made.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What the root signed could not be installed.
    #[error(transparent)]
    Install(#[from] InstallFailure),
    /// A request that was just made cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The Factory that was just added is gone.
    #[error("the Factory that was just added is gone")]
    Gone,
}

/// Makes a Factory below `root`, or sets up one that was added before, with both server
/// certificates and one online Device CA. The root's key
/// is the operator's and is kept nowhere.
///
/// # Errors
/// When the Factory has its root already, or the ledger or the random source fails.
pub async fn init(
    ledger: &Ledger,
    key_store: &KeyStore,
    new: NewFactory,
    root: &Authority,
    random: &SystemRandom,
    actor: &str,
) -> Result<(), InitError> {
    let now = UnixTime::now();
    let factory = find_or_add(ledger, new, actor).await?;
    request_keys(ledger, key_store, &factory, &RequestedKey::ALL, random, actor).await?;

    let pending = pending_requests(ledger, &factory).await?;
    let mut certificates = vec![root.certificate().clone()];
    for request in &pending {
        let csr = CertificationRequest::from_der(&request.der)?;
        let (subject, key) = (csr.subject(), csr.public_key());
        certificates.push(match request.key {
            RequestedKey::Server(purpose) => {
                root.certify_server(subject, factory.host(purpose), key, now, random)?
            }
            RequestedKey::DeviceCa => root.certify_device_ca(subject, key, now, random)?,
        });
    }
    install(ledger, &factory, &certificates, Installing::SetUp, actor).await?;
    Ok(())
}

/// The Factory, if it was registered without a PKI, else a new one.
async fn find_or_add(ledger: &Ledger, new: NewFactory, actor: &str) -> Result<Factory, InitError> {
    let name = new.name.clone();
    match find(ledger, &name).await? {
        Some(known) if known.root.is_none() => return Ok(known),
        Some(_) => return Err(ChangeError::from(ChangeRefused::FactoryExists).into()),
        None => {}
    }
    ledger.add_factory(new, actor).await?;
    find(ledger, &name).await?.ok_or(InitError::Gone)
}

async fn find(ledger: &Ledger, name: &FactoryName) -> Result<Option<Factory>, InitError> {
    let all = ledger.factories().await?.into_iter().map(|trust| trust.factory);
    Ok(all.into_iter().find(|factory| factory.name == *name))
}
