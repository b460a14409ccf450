//! A private key wherever it is, in the ledger or in a token: one way to sign with it.

use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;

use super::{KeyError, SigningKey, TokenKey};
use crate::pki::{PublicKey, SignatureAlgorithm, ToBeSigned};

/// A private key of this server's.
#[derive(Clone, Debug)]
pub enum HeldKey {
    /// It rests in the ledger and is open here.
    Ledger(Arc<SigningKey>),
    /// It is in the PKCS#11 token.
    Token(TokenKey),
}

/// What signs certificates, requests and revocation lists.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'a> {
    /// A key that is open here.
    Ledger(&'a SigningKey),
    /// A key in the PKCS#11 token.
    Token(&'a TokenKey),
}

impl HeldKey {
    /// What signs with it.
    pub fn signer(&self) -> Signer<'_> {
        match self {
            Self::Ledger(key) => Signer::Ledger(key),
            Self::Token(key) => Signer::Token(key),
        }
    }
}

impl<'a> From<&'a SigningKey> for Signer<'a> {
    fn from(key: &'a SigningKey) -> Self {
        Self::Ledger(key)
    }
}

impl<'a> Signer<'a> {
    /// Its public key.
    pub fn public_key(self) -> &'a PublicKey {
        match self {
            Self::Ledger(key) => key.public_key(),
            Self::Token(key) => key.public_key(),
        }
    }

    /// What it signs with.
    pub fn algorithm(self) -> SignatureAlgorithm {
        SignatureAlgorithm::EcdsaP256Sha256
    }

    /// Signs a certificate, request or revocation list and gives its DER. A key that is open here
    /// signs at once; a token is waited for.
    ///
    /// # Errors
    /// When the token does not answer, or the cryptography library fails.
    pub async fn sign(
        self,
        to_be_signed: ToBeSigned,
        random: &(dyn SecureRandom + Sync),
    ) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Ledger(key) => key.sign(to_be_signed, random),
            Self::Token(key) => {
                let signature = key.sign(to_be_signed.content()).await?;
                Ok(to_be_signed.with_signature(&signature)?)
            }
        }
    }
}
