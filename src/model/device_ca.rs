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

/// What is done to a Device CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCaAct {
    /// It signs nothing and registers nobody from now on; known devices connect.
    Disable,
    /// It is as good as new again.
    Enable,
    /// Its certificates end in the handshake. Gated by rule I8.
    Revoke,
    /// It comes back from being revoked.
    Readmit,
}

/// An act that the present state of a Device CA forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActRefused {
    /// Nothing but an explicit readmission brings it back.
    #[error("it is revoked, and comes back only by `estd device-ca add --again`")]
    Revoked,
    /// Only what is revoked can be readmitted.
    #[error("it is {}, not revoked", .0.as_str())]
    NotRevoked(DeviceCaState),
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

impl DeviceCaAct {
    /// The word for it in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable-device-ca",
            Self::Enable => "enable-device-ca",
            Self::Revoke => "revoke-device-ca",
            Self::Readmit => "readmit-device-ca",
        }
    }
}

impl DeviceCaState {
    /// The state after `act`. What is so already stays so, for clients repeat themselves.
    ///
    /// # Errors
    /// When a revoked one is acted upon, or another is readmitted.
    pub fn after(self, act: DeviceCaAct) -> Result<Self, ActRefused> {
        match (self, act) {
            (Self::Enabled | Self::Disabled, DeviceCaAct::Disable) => Ok(Self::Disabled),
            (Self::Enabled | Self::Disabled, DeviceCaAct::Enable)
            | (Self::Revoked, DeviceCaAct::Readmit) => Ok(Self::Enabled),
            (_, DeviceCaAct::Revoke) => Ok(Self::Revoked),
            (Self::Revoked, DeviceCaAct::Disable | DeviceCaAct::Enable) => Err(ActRefused::Revoked),
            (state, DeviceCaAct::Readmit) => Err(ActRefused::NotRevoked(state)),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::ActRefused::{NotRevoked, Revoked as StaysRevoked};
    use super::DeviceCaAct::{Disable, Enable, Readmit, Revoke};
    use super::DeviceCaState::{Disabled, Enabled, Revoked};

    #[test]
    fn i5_disabling_can_be_undone_and_revoking_only_by_an_explicit_act() {
        let table = [
            (Enabled, Disable, Ok(Disabled)),
            (Enabled, Enable, Ok(Enabled)),
            (Enabled, Revoke, Ok(Revoked)),
            (Enabled, Readmit, Err(NotRevoked(Enabled))),
            (Disabled, Disable, Ok(Disabled)),
            (Disabled, Enable, Ok(Enabled)),
            (Disabled, Revoke, Ok(Revoked)),
            (Disabled, Readmit, Err(NotRevoked(Disabled))),
            (Revoked, Disable, Err(StaysRevoked)),
            (Revoked, Enable, Err(StaysRevoked)),
            (Revoked, Revoke, Ok(Revoked)),
            (Revoked, Readmit, Ok(Enabled)),
        ];
        for (state, act, after) in table {
            assert_eq!(state.after(act), after, "{state:?} {act:?}");
        }
    }
}
