//! Replacing the key-encryption key: every private key in the ledger is wrapped anew.
//!
//! The new key is on disk before the one transaction that uses it. Where it takes the old one's place,
//! it waits beside it as `….new`, and moves after the commit; a process that dies in between leaves
//! that to the next start, which takes whichever of the two fits the ledger.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::error::Unspecified;

use super::key_encryption::{replace, successor};
use super::{KeyEncryptionError, KeyEncryptionKey, KeyError};
use crate::config::SecretSource;
use crate::ledger::{Ledger, RewrapCounts, RewrapFailure};

/// What wrapping the keys anew came to.
#[derive(Debug)]
pub struct Rewrapped {
    /// How many private keys were.
    pub keys: usize,
    /// How many secrets of webhooks were.
    pub webhook_secrets: usize,
    /// The file of the key-encryption key that wraps them now.
    pub key_file: PathBuf,
}

/// Why the key-encryption key was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum RewrapError {
    /// One of the two keys cannot be had.
    #[error(transparent)]
    Key(#[from] KeyEncryptionError),
    /// The present key is in no file that could be replaced.
    #[error("the key-encryption key comes from {0}: name a file for the new one by --to FILE")]
    NoFile(String),
    /// The new key is the present one.
    #[error("{0} holds the present key-encryption key: name a file that is not there yet")]
    Same(PathBuf),
    /// The private keys stay as they were.
    #[error(transparent)]
    Failed(#[from] RewrapFailure),
    /// The private keys are wrapped anew, but the new key is not where it belongs.
    #[error(
        "the private keys are wrapped anew, and their key is still in {from}: {source}; the next \
         start moves it"
    )]
    Move {
        /// Where it is.
        from: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Wraps every private key and every webhook's secret in the ledger under the key in the file `to`, which is made if it is not
/// there; without `to` a new key takes the place of the present one's file.
///
/// # Errors
/// When a key cannot be had or opened, or the ledger fails. But for the last step, the ledger and the
/// present key are then as they were.
pub async fn rewrap(
    ledger: &Ledger,
    source: &SecretSource,
    to: Option<&Path>,
    actor: &str,
) -> Result<Rewrapped, RewrapError> {
    let present = KeyEncryptionKey::of_ledger(ledger, source).await?;
    let (new_file, key_file) = match (to, source) {
        (Some(file), _) => (file.to_owned(), file),
        (None, SecretSource::File(path)) => (successor(path), path.as_path()),
        (None, other) => return Err(RewrapError::NoFile(other.to_string())),
    };
    let new = KeyEncryptionKey::open_or_create(&new_file)?;
    if new.check() == present.check() {
        return Err(RewrapError::Same(new_file));
    }
    let anew = |wrapped: &[u8], binding| {
        let secret = present.unwrap(wrapped, binding).map_err(|Unspecified| KeyError::Wrapped)?;
        Ok(new.wrap(&secret, binding)?)
    };
    let counts = ledger.rewrap_keys(present.check(), new.check(), actor, anew).await?;
    if new_file != key_file {
        replace(&new_file, key_file)
            .map_err(|source| RewrapError::Move { from: new_file, source })?;
    }
    let RewrapCounts { keys, webhook_secrets } = counts;
    Ok(Rewrapped { keys, webhook_secrets, key_file: key_file.to_owned() })
}
