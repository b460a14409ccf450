//! The key-encryption key: AES-256-GCM around every private key in the ledger.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::config::{SecretError, SecretSource};
use crate::files;
use crate::ledger::{Ledger, LedgerError};
use crate::pki::Fingerprint;

const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 12;
/// What the check value of a key authenticates: it tells nothing of the key.
const CHECKED: &[u8] = b"estd key-encryption key";

/// Wraps private keys for the ledger.
pub struct KeyEncryptionKey {
    key: RandomizedNonceKey,
    check: Fingerprint,
}

/// Why there is no key-encryption key.
#[derive(Debug, thiserror::Error)]
pub enum KeyEncryptionError {
    /// Its file cannot be made or moved.
    #[error("the key-encryption key in {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("the key-encryption key: {0}")]
    Unreadable(#[from] SecretError),
    /// It is not there, and the ledger's private keys were encrypted under it.
    #[error(
        "the ledger's private keys are encrypted under a key-encryption key that is not in {0}: \
         restore it, or name its folder by data_dir"
    )]
    Missing(PathBuf),
    /// It is another one than that of the ledger.
    #[error(
        "the key-encryption key in {0} is not the one that the ledger's keys are encrypted under"
    )]
    Other(String),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It is something else.
    #[error("{0} does not hold a key-encryption key: one line, the base64 of 32 bytes")]
    Content(String),
    /// No randomness to make one.
    #[error("no randomness to make a key-encryption key")]
    Random,
}

impl KeyEncryptionKey {
    /// Reads the key of this ledger. A key is made only for a ledger that has none, and only in a
    /// file.
    ///
    /// # Errors
    /// When the key cannot be read or made, is something else, or is another ledger's.
    pub async fn of_ledger(
        ledger: &Ledger,
        source: &SecretSource,
    ) -> Result<Self, KeyEncryptionError> {
        let known = ledger.key_check().await?;
        let key = match (source, known) {
            (SecretSource::File(path), None) => Self::open_or_create(path)?,
            (SecretSource::File(path), Some(check)) => return Self::in_file(path, check),
            _ => Self::read(source)?,
        };
        if ledger.claim_key_check(key.check).await? == key.check {
            Ok(key)
        } else {
            Err(KeyEncryptionError::Other(source.to_string()))
        }
    }

    /// Reads the key that fits. One that waits beside the file is moved there: whoever replaced the
    /// key did not come to that.
    fn in_file(path: &Path, check: Fingerprint) -> Result<Self, KeyEncryptionError> {
        let there = path.exists().then(|| Self::read_file(path)).transpose()?;
        let why = match there {
            Some(key) if key.check == check => return Ok(key),
            Some(_) => KeyEncryptionError::Other(path.display().to_string()),
            None => KeyEncryptionError::Missing(path.to_owned()),
        };
        let beside = successor(path);
        if !beside.exists() {
            return Err(why);
        }
        let key = Self::read_file(&beside)?;
        if key.check != check {
            return Err(why);
        }
        replace(&beside, path)
            .map_err(|source| KeyEncryptionError::Io { path: path.to_owned(), source })?;
        Ok(key)
    }

    /// Reads the key from `path`; makes the file (mode 0600) if it is not there.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds something else.
    pub(super) fn open_or_create(path: &Path) -> Result<Self, KeyEncryptionError> {
        if !path.exists() {
            match create(path) {
                Err(KeyEncryptionError::Io { source, .. })
                    if source.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Self::read_file(path)
    }

    fn read_file(path: &Path) -> Result<Self, KeyEncryptionError> {
        Self::read(&SecretSource::File(path.to_owned()))
    }

    fn read(source: &SecretSource) -> Result<Self, KeyEncryptionError> {
        let content = || KeyEncryptionError::Content(source.to_string());
        let text = source.read()?;
        let key = BASE64.decode(text.as_str().trim().as_bytes()).map(Zeroizing::new);
        let key = key.map_err(|_| content())?;
        if key.len() != KEY_LENGTH {
            return Err(content());
        }
        let check = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), CHECKED);
        let check = Fingerprint::from_bytes(check.as_ref()).ok_or_else(content)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|Unspecified| content())?;
        Ok(Self { key, check })
    }

    /// What tells the ledger which key it is, and nothing of the key.
    pub(super) fn check(&self) -> Fingerprint {
        self.check
    }

    /// Encrypts a private key, or another secret, and binds the result to its public key, or to
    /// whatever else it is for.
    pub(super) fn wrap(
        &self,
        secret: &[u8],
        bound_to: Fingerprint,
    ) -> Result<Vec<u8>, Unspecified> {
        let mut sealed = Zeroizing::new(secret.to_vec());
        let binding = Aad::from(bound_to.as_bytes());
        let nonce = self.key.seal_in_place_append_tag(binding, &mut *sealed)?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// Decrypts what [`Self::wrap`] made for the same.
    pub(super) fn unwrap(
        &self,
        wrapped: &[u8],
        bound_to: Fingerprint,
    ) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_LENGTH).ok_or(Unspecified)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let binding = Aad::from(bound_to.as_bytes());
        let length = self.key.open_in_place(nonce, binding, &mut sealed)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

/// Makes the file whole or not at all, so that a second program starting with this one never reads
/// half a key.
fn create(path: &Path) -> Result<(), KeyEncryptionError> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    rand::fill(&mut *key).map_err(|Unspecified| KeyEncryptionError::Random)?;
    let text = Zeroizing::new(format!("{}\n", BASE64.encode(&*key)));
    files::create(path, text.as_bytes(), 0o600)
        .map_err(|source| KeyEncryptionError::Io { path: path.to_owned(), source })
}

/// Where the key waits that shall take the place of the one in `path`.
pub(super) fn successor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Moves a key to where another is, durably.
pub(super) fn replace(new: &Path, path: &Path) -> io::Result<()> {
    fs::rename(new, path)?;
    files::sync_folder(path)
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, KeyEncryptionKey};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn wrapped_keys_open_only_under_the_same_key_and_for_the_same_public_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mine = KeyEncryptionKey::open_or_create(&path).unwrap();
        let other = KeyEncryptionKey::open_or_create(&folder.path().join("other")).unwrap();
        let (a, b) = (Fingerprint::of(b"a"), Fingerprint::of(b"b"));

        let wrapped = mine.wrap(b"secret", a).unwrap();
        let reopened = KeyEncryptionKey::open_or_create(&path).unwrap();
        assert_eq!(&**reopened.unwrap(&wrapped, a).unwrap(), b"secret");
        assert!(mine.unwrap(&wrapped, b).is_err());
        assert!(other.unwrap(&wrapped, a).is_err());
        assert!(!wrapped.windows(6).any(|window| window == b"secret"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
