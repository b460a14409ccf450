//! Keys made here and the PKCS#10 requests that a Factory's root signs offline.

use aws_lc_rs::rand::SystemRandom;

use super::authority::{device_ca_extensions, server_extensions, subject};
use crate::keys::{KeyError, KeyStore};
use crate::ledger::{ChangeError, Ledger, LedgerError, StoredKey};
use crate::model::{Factory, ServerPurpose};
use crate::pki::{self, Malformed, UnsignedRequest};

/// What a key is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedKey {
    /// A server certificate.
    Server(ServerPurpose),
    /// An online Device CA.
    DeviceCa,
}

/// A request that waits for the root's signature.
#[derive(Clone, Debug)]
pub struct PendingRequest {
    /// What it is for.
    pub key: RequestedKey,
    /// The request as one PEM block.
    pub pem: String,
    /// The request's DER.
    pub der: Vec<u8>,
}

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The keys could not be stored.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request cannot be encoded.
    #[error(transparent)]
    Encoding(#[from] Malformed),
}

impl RequestedKey {
    /// Everything that a Factory needs.
    pub const ALL: [Self; 3] =
        [Self::Server(ServerPurpose::Est), Self::Server(ServerPurpose::Gateway), Self::DeviceCa];

    /// Its name in file names and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server(purpose) => purpose.as_str(),
            Self::DeviceCa => "device-ca",
        }
    }

    fn purpose(self) -> Option<ServerPurpose> {
        match self {
            Self::Server(purpose) => Some(purpose),
            Self::DeviceCa => None,
        }
    }
}

/// Makes a key and a request for each of `wanted` that has none waiting.
///
/// # Errors
/// When the ledger, the token or the random source fails, or the ledger's keys have been wrapped anew
/// under another key-encryption key.
pub async fn request_keys(
    ledger: &Ledger,
    key_store: &KeyStore,
    factory: &Factory,
    wanted: &[RequestedKey],
    random: &SystemRandom,
    actor: &str,
) -> Result<(), RequestError> {
    let waiting = pending_requests(ledger, factory).await?;
    let missing = wanted.iter().filter(|key| waiting.iter().all(|request| request.key != **key));
    let mut made = Vec::new();
    for key in missing {
        made.push(make(*key, factory, key_store, random).await?);
    }
    Ok(ledger.add_keys(&made, key_store.key_check(), actor).await?)
}

/// The requests of a Factory that wait for the root's signature.
///
/// # Errors
/// When the ledger fails.
pub async fn pending_requests(
    ledger: &Ledger,
    factory: &Factory,
) -> Result<Vec<PendingRequest>, RequestError> {
    let keys = ledger.pending_keys(factory.id).await?;
    keys.into_iter()
        .map(|key| {
            Ok(PendingRequest {
                key: key.purpose.map_or(RequestedKey::DeviceCa, RequestedKey::Server),
                pem: pki::to_pem("CERTIFICATE REQUEST", &key.request)?,
                der: key.request,
            })
        })
        .collect()
}

async fn make(
    wanted: RequestedKey,
    factory: &Factory,
    key_store: &KeyStore,
    random: &SystemRandom,
) -> Result<StoredKey, RequestError> {
    let (key, name, extensions) = match wanted {
        RequestedKey::Server(purpose) => {
            let host = factory.host(purpose);
            let name = subject(host.as_str(), &factory.name)?;
            (key_store.generate(random)?, name, server_extensions(host)?.to_vec())
        }
        RequestedKey::DeviceCa => {
            let name = format!("{} online Device CA", factory.name);
            let key = key_store.generate_for_device_ca(&name, random).await?;
            // People tell one from the next by it.
            let mark: String =
                key.signer().public_key().fingerprint().to_string().chars().take(8).collect();
            let name = subject(&format!("{name} {mark}"), &factory.name)?;
            (key, name, device_ca_extensions()?.to_vec())
        }
    };
    let signer = key.signer();
    let request = UnsignedRequest {
        subject: &name,
        public_key: signer.public_key(),
        extensions: &extensions,
        challenge_password: None,
    };
    Ok(StoredKey {
        factory: factory.id,
        purpose: wanted.purpose(),
        public_key: signer.public_key().fingerprint(),
        place: key_store.place(&key)?,
        request: signer.sign(request.to_be_signed(signer.algorithm())?, random).await?,
    })
}
