//! Where private keys are kept: wrapped in the ledger, those of online Device CAs in a PKCS#11 token if
//! the configuration names one.

use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;
use tracing::warn;

use super::{HeldKey, KeyEncryptionError, KeyEncryptionKey, KeyError, SigningKey, Token};
use crate::config::Config;
use crate::ledger::{KeyPlace, Ledger, StoredKey};
use crate::pki::{CertificationRequest, Fingerprint};

/// Makes private keys and opens them.
pub struct KeyStore {
    pub(super) encryption: KeyEncryptionKey,
    token: Option<Token>,
}

impl KeyStore {
    /// The keys of this ledger. The token is not asked for anything yet.
    ///
    /// # Errors
    /// When there is no key-encryption key, or it is another ledger's.
    pub async fn open(ledger: &Ledger, config: &Config) -> Result<Self, KeyEncryptionError> {
        let encryption = KeyEncryptionKey::of_ledger(ledger, &config.key_encryption()).await?;
        Ok(Self { encryption, token: config.pkcs11.clone().map(Token::new) })
    }

    /// What tells the ledger which key-encryption key wraps the keys that are made here.
    pub fn key_check(&self) -> Fingerprint {
        self.encryption.check()
    }

    /// Logs in to the token, if there is one, and says in the log why not. A PIN that was refused
    /// before is tried once more.
    pub async fn look_for_token(&self) {
        let Some(token) = &self.token else { return };
        token.forgive();
        if let Err(why) = token.check().await {
            warn!(error = %why, "its Device CAs sign nothing until the token answers");
        }
    }

    /// Makes a key for the ledger.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(&self, random: &dyn SecureRandom) -> Result<HeldKey, KeyError> {
        Ok(HeldKey::Ledger(Arc::new(SigningKey::generate(random)?)))
    }

    /// Makes a key for an online Device CA: in the token, if there is one, under that label.
    ///
    /// # Errors
    /// When the token does not answer, or there is no randomness.
    pub async fn generate_for_device_ca(
        &self,
        label: &str,
        random: &(dyn SecureRandom + Sync),
    ) -> Result<HeldKey, KeyError> {
        match &self.token {
            Some(token) => Ok(HeldKey::Token(token.generate(label).await?)),
            None => self.generate(random),
        }
    }

    /// How the ledger records a key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn place(&self, key: &HeldKey) -> Result<KeyPlace, KeyError> {
        Ok(match key {
            HeldKey::Ledger(key) => KeyPlace::Ledger { wrapped: key.wrap(&self.encryption)? },
            HeldKey::Token(_) => KeyPlace::Token,
        })
    }

    /// The key that the ledger recorded. One in the token is not looked for.
    ///
    /// # Errors
    /// When it does not open, or is in a token and none is configured.
    pub(super) fn hold(&self, stored: &StoredKey) -> Result<HeldKey, KeyError> {
        match &stored.place {
            KeyPlace::Ledger { wrapped } => {
                let key = SigningKey::unwrap(wrapped, stored.public_key, &self.encryption)?;
                Ok(HeldKey::Ledger(Arc::new(key)))
            }
            KeyPlace::Token => {
                let token = self.token.as_ref().ok_or(KeyError::NoToken)?;
                let request = CertificationRequest::from_der(&stored.request)?;
                Ok(HeldKey::Token(token.key(request.public_key().clone())))
            }
        }
    }
}
