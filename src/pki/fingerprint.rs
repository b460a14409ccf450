//! SHA-256 of something's DER: how credentials and public keys are known.

use std::fmt;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER_PERMISSIVE;

/// A SHA-256 digest; written and read as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&digest::digest(&digest::SHA256, bytes))
    }

    /// A SHA-256 that was computed in steps. A longer digest is cut, a shorter one padded.
    pub fn from_digest(digest: &digest::Digest) -> Self {
        let mut value = [0; 32];
        value.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(value)
    }

    /// A digest that was computed earlier; `None` unless it has 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A digest as people write it; `None` unless it is 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        Self::from_bytes(&HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?)
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
