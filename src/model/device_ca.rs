//! A Device CA: what signs device certificates, known by its key.

use super::FactoryId;
use crate::pki::Certificate;

/// A Device CA's row in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceCaId(pub i64);

/// Who holds its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCaKind {
    /// This server does, and issues with it.
    Online,
    /// Its owner does, a factory line for instance.
    Local,
}

/// What its certificates are good for (I5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCaState {
    /// Signs, registers new devices, and its devices connect.
    Enabled,
    /// Signs nothing and registers no new device; known devices connect.
    Disabled,
    /// Its certificates end in the handshake.
    Revoked,
}

/// A Device CA of a Factory.
#[derive(Clone, Debug)]
pub struct DeviceCa {
    /// Its row in the ledger; later ones are higher.
    pub id: DeviceCaId,
    /// Whose it is.
    pub factory: FactoryId,
    /// Who holds its key.
    pub kind: DeviceCaKind,
    /// Its state.
    pub state: DeviceCaState,
    /// Its certificate.
    pub certificate: Certificate,
}

impl DeviceCaKind {
    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Local => "local",
        }
    }

    /// The kind that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        [Self::Online, Self::Local].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl DeviceCaState {
    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }

    /// The state that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        let all = [Self::Enabled, Self::Disabled, Self::Revoked];
        all.into_iter().find(|state| state.as_str() == text)
    }
}
