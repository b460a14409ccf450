//! A device of a rotation, and how facts move it.

use serde::{Serialize, Serializer};

use super::RotationId;
use crate::model::DeviceCaId;

/// Where a device of a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Its slot has not come.
    Waiting,
    /// Its slot has come.
    Offered,
    /// It was issued a certificate.
    Issued,
    /// It was seen with it.
    Confirmed,
    /// It was refused, or did not come, or was not seen with what it was issued. What it does later
    /// still counts, and once the rotation has ended, that it is seen with what it was issued.
    Failed,
    /// It is left out.
    Skipped,
}

/// Why a device failed or is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberReason {
    /// Its request was refused.
    Refused,
    /// It said that a step of its own went wrong.
    Step,
    /// It did not ask in time.
    Silent,
    /// It was issued a certificate and was not seen with it in time.
    Unconfirmed,
    /// Another rotation has it.
    Held,
    /// An operator denied it.
    Denied,
    /// It uses a certificate of the target already.
    OnTarget,
}

/// What happened to a device, as the ledger sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It was issued a certificate, which reaches the aim or does not.
    Issued(bool),
    /// It is using another certificate than before, which reaches the aim or does not.
    InUse(bool),
    /// Its request was refused.
    Refused,
    /// It said that a step of its own went wrong.
    StepFailed,
    /// It asks again and again, and uses nothing of what it was given.
    PutOff,
}

impl MemberState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Offered, Self::Issued, Self::Confirmed, Self::Failed, Self::Skipped];

    /// Those in which it waits for something.
    pub const OPEN: [Self; 3] = [Self::Waiting, Self::Offered, Self::Issued];

    /// The state after a fact. Only a session with a certificate of the aim ends in
    /// [`Self::Confirmed`], from wherever; a device that goes back to another begins anew.
    #[must_use]
    pub fn after(self, fact: Fact) -> Self {
        match (self, fact) {
            (Self::Skipped, _) => Self::Skipped,
            (_, Fact::InUse(true)) => Self::Confirmed,
            (Self::Confirmed, Fact::InUse(false)) => Self::Waiting,
            (Self::Waiting | Self::Offered | Self::Failed, Fact::Issued(true)) => Self::Issued,
            (Self::Offered, Fact::Refused)
            | (Self::Offered | Self::Issued, Fact::StepFailed)
            | (Self::Issued, Fact::PutOff) => Self::Failed,
            (state, _) => state,
        }
    }

    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Offered => "offered",
            Self::Issued => "issued",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// The state that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl Serialize for MemberState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl MemberReason {
    /// Whether it says that rotating goes wrong: a silent device says nothing about that.
    pub fn counts_as_failure(self) -> bool {
        matches!(self, Self::Refused | Self::Step | Self::Unconfirmed)
    }

    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Step => "step",
            Self::Silent => "silent",
            Self::Unconfirmed => "unconfirmed",
            Self::Held => "held",
            Self::Denied => "denied",
            Self::OnTarget => "on-target",
        }
    }
}

/// What a certificate must be to count as a rotation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// The rotation.
    pub rotation: RotationId,
    /// The Device CA that it must be of.
    pub target: Option<DeviceCaId>,
    /// The Device CA that it must not be of.
    pub leaving: Option<DeviceCaId>,
}

impl Aim {
    /// Whether the credential in that row, of that Device CA, reaches the aim; `before` is the row of
    /// the one that the device had when the rotation began. Where Device CAs say what is wanted, one
    /// that was issued before the rotation began counts as well.
    pub fn is_met_by(self, credential: i64, ca: DeviceCaId, before: Option<i64>) -> bool {
        let of_the_right_ca = self.target.is_none_or(|target| target == ca)
            && self.leaving.is_none_or(|leaving| leaving != ca);
        let by_ca = self.target.is_some() || self.leaving.is_some();
        let new = credential > self.rotation.0 || (by_ca && Some(credential) != before);
        of_the_right_ca && new
    }
}
