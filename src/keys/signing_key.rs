//! A P-256 private key that signs certificates and requests.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SecureRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

use super::{KeyEncryptionKey, TokenError};
use crate::pki::{self, Fingerprint, Malformed, PublicKey, SignatureAlgorithm, ToBeSigned};

/// A private key. It prints as its public key's fingerprint.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    public_key: PublicKey,
}

/// Why a private key cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is no P-256 key.
    #[error("not a P-256 private key: {0}")]
    Rejected(#[from] KeyRejected),
    /// It does not open under this key-encryption key.
    #[error("it does not open: it was wrapped under another key-encryption key")]
    Wrapped,
    /// It is in a token, and there is none.
    #[error("the private key is in a PKCS#11 token, and the configuration has no keys.pkcs11")]
    NoToken,
    /// The token failed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The cryptography library failed.
    #[error("the cryptography library failed")]
    Failed,
    /// Something around it is not well formed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl From<Unspecified> for KeyError {
    fn from(Unspecified: Unspecified) -> Self {
        Self::Failed
    }
}

impl SigningKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, random)?;
        Self::from_der(document.as_ref())
    }

    /// Reads a key in DER: PKCS#8 or SEC 1.
    ///
    /// # Errors
    /// When it is no P-256 private key.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)?;
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?;
        let public_key = PublicKey::from_der(spki.as_ref())?;
        let pkcs8 = Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec());
        Ok(Self { pair, pkcs8, public_key })
    }

    /// Opens a key that was [wrapped](Self::wrap).
    ///
    /// # Errors
    /// When it was wrapped under another key-encryption key or for another public key.
    pub fn unwrap(
        wrapped: &[u8],
        public_key: Fingerprint,
        key: &KeyEncryptionKey,
    ) -> Result<Self, KeyError> {
        let pkcs8 = key.unwrap(wrapped, public_key).map_err(|Unspecified| KeyError::Wrapped)?;
        Self::from_der(&pkcs8)
    }

    /// Encrypts it for the ledger.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn wrap(&self, key: &KeyEncryptionKey) -> Result<Vec<u8>, KeyError> {
        Ok(key.wrap(&self.pkcs8, self.public_key.fingerprint())?)
    }

    /// Its public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What it signs with.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::EcdsaP256Sha256
    }

    /// Signs a certificate or request and gives its DER.
    ///
    /// # Errors
    /// When the cryptography library fails.
    pub fn sign(
        &self,
        to_be_signed: ToBeSigned,
        random: &dyn SecureRandom,
    ) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(random, to_be_signed.content())?;
        Ok(to_be_signed.with_signature(signature.as_ref())?)
    }

    /// The key as PKCS#8 PEM, for a file of its owner: a device, or the keeper of a root.
    ///
    /// # Errors
    /// Never for a key that was made or read.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, Malformed> {
        pki::to_pem("PRIVATE KEY", &self.pkcs8).map(Zeroizing::new)
    }

    /// The key as PKCS#8 DER, for the TLS library.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public_key.fingerprint())
    }
}
