//! The PKCS#11 token where keys of online Device CAs are made and stay. PKCS#11 blocks, so everything
//! happens on the module's own thread, and nobody waits for it without end.

mod module;
mod session;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::{Pkcs11, SecretError};
use crate::pki::{Fingerprint, Malformed, PublicKey};
use module::Module;
use session::Session;

/// How long a caller waits for the token.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of a session is waited for.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// A token of the configuration. Nothing is asked of it before it is needed, and when it went away
/// the next request looks for it anew.
#[derive(Clone)]
pub struct Token(Arc<Configured>);

struct Configured {
    id: TokenId,
    settings: Arc<Pkcs11>,
}

/// A private key in a token. It prints as its public key's fingerprint.
#[derive(Clone)]
pub struct TokenKey {
    token: Token,
    public_key: PublicKey,
}

/// Tells the tokens that one process has configured apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct TokenId(u64);

/// Why a token did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The module cannot be loaded or does not start.
    #[error("keys.pkcs11.module: {0}")]
    Module(String),
    /// No token has the label.
    #[error("keys.pkcs11.token: no token is labelled {label:?}; there are: {found}")]
    Absent {
        /// The label that was looked for.
        label: String,
        /// The labels that there are.
        found: String,
    },
    /// The PIN cannot be read.
    #[error("keys.pkcs11.pin_file: {0}")]
    PinUnreadable(#[from] SecretError),
    /// The token refused the PIN. It is not tried again, for tokens lock themselves.
    #[error(
        "keys.pkcs11.pin_file: the token refused the PIN in {0}; no other attempt is made until the \
         PIN has changed or the server gets SIGHUP"
    )]
    PinRefused(String),
    /// The key is not in the token.
    #[error("the token has no private key with the CKA_ID {0}")]
    KeyAbsent(Fingerprint),
    /// The token let a key be made that could be read out of it.
    #[error("the token does not make keys that are sensitive and not extractable")]
    Extractable,
    /// What it signed does not verify.
    #[error("the token's signature does not verify under the public key {0}")]
    WrongSignature(Fingerprint),
    /// A PKCS#11 call failed.
    #[error("the token: {0}")]
    Failed(String),
    /// It did not answer in time.
    #[error("the token does not answer")]
    Silent,
    /// Too many wait for it.
    #[error("too many requests wait for the token")]
    Busy,
    /// Its bytes are not what they should be.
    #[error("the token: {0}")]
    Malformed(#[from] Malformed),
}

impl Token {
    /// The token of this configuration.
    pub fn new(settings: Pkcs11) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = TokenId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Arc::new(Configured { id, settings: Arc::new(settings) }))
    }

    /// Finds the token and logs in, unless that has been done.
    ///
    /// # Errors
    /// What is wrong, by the key of the configuration.
    pub async fn check(&self) -> Result<(), TokenError> {
        self.ask(Session::check).await
    }

    /// Lets a PIN that was refused be tried once more.
    pub(super) fn forgive(&self) {
        let id = self.0.id;
        let forgive = Box::new(move |module: &mut Module| module.forgive(id));
        // A module that is too busy for that is not one whose PIN was refused.
        let _busy = module::enqueue(&self.0.settings.module, forgive);
    }

    /// Makes a P-256 key that never leaves the token.
    pub(super) async fn generate(&self, label: &str) -> Result<TokenKey, TokenError> {
        let label = label.to_owned();
        let public_key = self.ask(move |session| session.generate(&label)).await?;
        Ok(self.key(public_key))
    }

    /// The key that was made here before, as it may be.
    pub(super) fn key(&self, public_key: PublicKey) -> TokenKey {
        TokenKey { token: self.clone(), public_key }
    }

    /// Lets the module's thread work in a session of this token.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Session) -> Result<T, TokenError> + Send + 'static,
    ) -> Result<T, TokenError> {
        let (reply, answer) = oneshot::channel();
        let (id, settings) = (self.0.id, Arc::clone(&self.0.settings));
        let job = move |module: &mut Module| {
            if reply.is_closed() {
                // Whoever asked has given up.
                return;
            }
            let done = module.in_session(id, &settings, work);
            // The same.
            let _gone = reply.send(done);
        };
        module::enqueue(&self.0.settings.module, Box::new(job))?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) | Err(_) => Err(TokenError::Silent),
        }
    }
}

impl Drop for Configured {
    /// Waits a little for the session to end: the module must not be at work when the process ends.
    fn drop(&mut self) {
        let id = self.id;
        let (done, closed) = sync_channel(1);
        let close = move |module: &mut Module| {
            module.close(id);
            // Whoever waited may have given up.
            let _gone = done.send(());
        };
        if module::enqueue(&self.settings.module, Box::new(close)).is_ok() {
            // A module that hangs is left to the process's end.
            let _hangs = closed.recv_timeout(CLOSE_TIME);
        }
    }
}

impl TokenKey {
    /// Its public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Signs `content` by ECDSA with SHA-256; gives the DER of the signature.
    ///
    /// # Errors
    /// When the token does not answer in time, or does not sign.
    pub async fn sign(&self, content: &[u8]) -> Result<Vec<u8>, TokenError> {
        let key = self.public_key.fingerprint();
        let hash = digest(&SHA256, content);
        let signature = self.token.ask(move |session| session.sign(key, hash.as_ref())).await?;
        // Handles are numbers that a module gives out: that this one was still the key's is known
        // only by the signature.
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.public_key.der())
            .verify(content, &signature)
            .map_err(|_| TokenError::WrongSignature(key))?;
        Ok(signature)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.public_key.fingerprint())
    }
}
