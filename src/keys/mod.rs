//! The only private keys. They rest in the ledger, wrapped; nothing above this floor sees their
//! bytes but the TLS listener, which must hand its own to rustls.

mod key_encryption;
mod keyring;
mod sign;
mod signing_key;

pub use key_encryption::{KeyEncryptionKey, KeyFileError};
pub use keyring::{ActiveSnapshot, LoadError, ServerIdentity};
pub use sign::{SignError, Signed, sign};
pub use signing_key::{KeyError, SigningKey};
