//! The only private keys. They rest in the ledger, wrapped, or in a PKCS#11 token; nothing above this
//! floor sees their bytes but the TLS listener, which must hand its own to rustls.

mod key_encryption;
mod keyring;
mod rewrap;
mod sign;
mod signer;
mod signing_key;
mod store;
mod token;
mod webhook_secret;

pub use key_encryption::{KeyEncryptionError, KeyEncryptionKey};
pub use keyring::{ActiveSnapshot, LoadError, ServerIdentity};
pub use rewrap::{RewrapError, Rewrapped, rewrap};
pub use sign::{SignError, Signed, sign};
pub use signer::{HeldKey, Signer};
pub use signing_key::{KeyError, SigningKey};
pub use store::KeyStore;
pub use token::{Token, TokenError, TokenKey};
pub use webhook_secret::{WebhookSecret, webhook_binding};
