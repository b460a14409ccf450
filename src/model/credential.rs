//! The credentials of a device and how they change state: rules I3, I5, I6 and I7 as a pure
//! function over what the ledger knows.

use super::{DeviceCaState, Refusal};
use crate::clock::UnixTime;
use crate::pki::Fingerprint;

/// How many pending credentials a device may have; beyond, the oldest is dropped (I3). An agent
/// that retries makes a new key each time and only ever installs the newest.
pub const PENDING_LIMIT: usize = 16;
/// The shortest and the longest pause, in seconds, before a device with so many gets another.
const PAUSE: (i64, i64) = (60, 3600);
/// How old, in seconds, a pending credential may be to count for that: what an agent was given before
/// its present try was lost once, and says nothing of now.
const RECENT: i64 = 24 * 3600;

/// What a credential is to its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
    /// Issued, not yet seen in use.
    Pending,
    /// The one in use.
    Current,
    /// Replaced by one that was seen in use later.
    Superseded,
    /// Forbidden by an operator.
    Denied,
}

/// A credential as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownCredential {
    /// Its row; later ones are higher.
    pub id: i64,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its public key.
    pub key: Fingerprint,
    /// Its state.
    pub state: CredentialState,
    /// When it was recorded.
    pub recorded_at: UnixTime,
}

/// A device as the ledger knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownDevice {
    /// Its row.
    pub id: i64,
    /// With what an operator lets it come back, once, although it would be refused.
    pub allowance: Option<Allowance>,
    /// Whether an operator denied it, with every credential that it had then.
    pub denied: bool,
    /// SHA-256 of the key of the bootstrap certificate by which it came, if it came by one.
    pub introduced_by: Option<Fingerprint>,
    /// Its accepted credentials and those that have to do with what is shown now, oldest first.
    pub credentials: Vec<KnownCredential>,
}

/// What an operator lets a device come back with, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Whatever certificate of a trusted CA it presents next.
    Any,
    /// The certificate with this SHA-256.
    Certificate(Fingerprint),
}

impl Allowance {
    fn covers(self, certificate: Fingerprint) -> bool {
        match self {
            Self::Any => true,
            Self::Certificate(allowed) => allowed == certificate,
        }
    }
}

/// The certificate that a device proved to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented {
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its public key.
    pub key: Fingerprint,
}

/// What it means that a device was seen with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// The first contact: register the device, with this as its current credential.
    FirstContact,
    /// Its current credential, as expected.
    Expected,
    /// Its pending credential is in use: the device switched.
    Confirmed {
        /// The credential, now current.
        credential: i64,
        /// What it replaces.
        superseded: Vec<i64>,
    },
    /// A certificate that is new to the ledger, for a key of the device that it knows.
    Adopted {
        /// What it replaces.
        superseded: Vec<i64>,
    },
    /// Accepted by the operator's one-shot allowance.
    Allowed {
        /// The known credential that becomes current again, or none: adopt the certificate.
        credential: Option<i64>,
        /// What it replaces.
        superseded: Vec<i64>,
    },
}

impl Sighting {
    /// The word for it in the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::FirstContact => "first-contact",
            Self::Expected => "expected",
            Self::Confirmed { .. } => "confirmed",
            Self::Adopted { .. } => "adopted",
            Self::Allowed { .. } => "allowed",
        }
    }

    /// Judges a certificate that was presented in a device's name. `device` is `None` if the
    /// ledger knows no such device; `issuer` is the state of the Device CA of the certificate.
    ///
    /// # Errors
    /// The refusal, by rules I5, I6 and I7.
    pub fn judge(
        device: Option<&KnownDevice>,
        presented: Presented,
        issuer: DeviceCaState,
    ) -> Result<Self, Refusal> {
        if issuer == DeviceCaState::Revoked {
            return Err(Refusal::CaRevoked);
        }
        let Some(device) = device else {
            return match issuer {
                DeviceCaState::Enabled => Ok(Self::FirstContact),
                _ => Err(Refusal::CaDisabledUnregistered),
            };
        };
        match device.find(presented) {
            Some(known) if known.fingerprint == presented.fingerprint => {
                device.returns(known, presented)
            }
            Some(known) => match known.state {
                CredentialState::Pending | CredentialState::Current => {
                    Ok(Self::Adopted { superseded: device.up_to(known) })
                }
                CredentialState::Superseded => {
                    device.allowance(None, presented, Refusal::CredentialSuperseded)
                }
                CredentialState::Denied => {
                    device.allowance(None, presented, Refusal::CredentialDenied)
                }
            },
            None => device.allowance(None, presented, Refusal::CredentialUnknown),
        }
    }
}

impl KnownDevice {
    /// The credential with that certificate, else the newest with that key.
    fn find(&self, presented: Presented) -> Option<&KnownCredential> {
        let newest_first = || self.credentials.iter().rev();
        newest_first()
            .find(|known| known.fingerprint == presented.fingerprint)
            .or_else(|| newest_first().find(|known| known.key == presented.key))
    }

    fn returns(&self, known: &KnownCredential, presented: Presented) -> Result<Sighting, Refusal> {
        match known.state {
            CredentialState::Current => Ok(Sighting::Expected),
            CredentialState::Pending => Ok(Sighting::Confirmed {
                credential: known.id,
                superseded: self.up_to(known).into_iter().filter(|id| *id != known.id).collect(),
            }),
            CredentialState::Superseded => {
                self.allowance(Some(known.id), presented, Refusal::CredentialSuperseded)
            }
            CredentialState::Denied => {
                self.allowance(Some(known.id), presented, Refusal::CredentialDenied)
            }
        }
    }

    fn allowance(
        &self,
        credential: Option<i64>,
        presented: Presented,
        refusal: Refusal,
    ) -> Result<Sighting, Refusal> {
        if !self.allows(presented.fingerprint) {
            return Err(refusal);
        }
        let superseded = self.in_state(CredentialState::Current).map(|known| known.id).collect();
        Ok(Sighting::Allowed { credential, superseded })
    }

    /// Whether an operator lets it come back with that certificate.
    pub fn allows(&self, certificate: Fingerprint) -> bool {
        self.allowance.is_some_and(|allowance| allowance.covers(certificate))
    }

    /// Judges that the device comes by a bootstrap certificate although it is known: it may, as long
    /// as it has used none of what it was given for the same key, or by the operator's allowance.
    ///
    /// # Errors
    /// The refusal: it was denied, it has a certificate in use, or it came by another key.
    pub fn comes_again(&self, shown: Presented) -> Result<(), Refusal> {
        let in_use = self.current().is_some();
        if self.allows(shown.fingerprint) {
            return Ok(());
        }
        if self.denied {
            return Err(Refusal::DeviceDenied);
        }
        if in_use || self.introduced_by != Some(shown.key) {
            return Err(Refusal::BootstrapRepeated);
        }
        Ok(())
    }

    /// What a session with `known` makes obsolete: the current credential, and every pending one
    /// up to `known`. Later pending ones stay: the device may just have been given them.
    fn up_to(&self, known: &KnownCredential) -> Vec<i64> {
        let obsolete = |one: &&KnownCredential| match one.state {
            CredentialState::Current => true,
            CredentialState::Pending => one.id <= known.id,
            CredentialState::Superseded | CredentialState::Denied => false,
        };
        self.credentials.iter().filter(obsolete).map(|one| one.id).collect()
    }

    /// The certificate that it was last seen with.
    pub fn current(&self) -> Option<Fingerprint> {
        self.in_state(CredentialState::Current).next().map(|known| known.fingerprint)
    }

    /// Whether it was given that certificate, and no operator has denied it.
    pub fn holds(&self, certificate: Fingerprint) -> bool {
        let held = |one: &KnownCredential| one.state != CredentialState::Denied;
        self.credentials.iter().any(|one| one.fingerprint == certificate && held(one))
    }

    /// Whether that certificate is one that it may use.
    pub fn accepts(&self, certificate: Fingerprint) -> bool {
        let accepted = [CredentialState::Current, CredentialState::Pending];
        let is_it = |one: &KnownCredential| one.fingerprint == certificate;
        self.credentials.iter().any(|one| is_it(one) && accepted.contains(&one.state))
    }

    /// Whether a certificate that it may use has that key.
    pub fn accepts_key(&self, key: Fingerprint) -> bool {
        let accepted = [CredentialState::Current, CredentialState::Pending];
        self.credentials.iter().any(|one| one.key == key && accepted.contains(&one.state))
    }

    /// Whether a certificate that it was given and has not used yet has that key.
    pub fn awaits_key(&self, key: Fingerprint) -> bool {
        self.in_state(CredentialState::Pending).any(|one| one.key == key)
    }

    /// Whether an operator denied a credential of it that has this key.
    pub fn was_denied_with(&self, key: Fingerprint) -> bool {
        self.in_state(CredentialState::Denied).any(|one| one.key == key)
    }

    fn in_state(&self, state: CredentialState) -> impl Iterator<Item = &KnownCredential> {
        self.credentials.iter().filter(move |known| known.state == state)
    }

    /// The pending credentials to drop so that one more fits below [`PENDING_LIMIT`].
    pub fn pending_to_drop(&self) -> Vec<i64> {
        let pending: Vec<i64> =
            self.in_state(CredentialState::Pending).map(|known| known.id).collect();
        let excess = (pending.len() + 1).saturating_sub(PENDING_LIMIT);
        pending.into_iter().take(excess).collect()
    }

    /// Refuses another credential to a device that was given [`PENDING_LIMIT`] lately and uses none of
    /// them. It waits as long as it took to be given those, so that an agent that fails for ever asks
    /// ever more seldom with success, at last once an hour; and what it leaves in the ledger is bounded
    /// (I11). One whose certificate ends at `until`, within a day, never waits long.
    ///
    /// # Errors
    /// The refusal, with how long it has to wait.
    pub fn may_have_another(&self, now: UnixTime, until: Option<UnixTime>) -> Result<(), Refusal> {
        let pending = self.in_state(CredentialState::Pending).map(|known| known.recorded_at);
        let recorded: Vec<_> = pending.filter(|at| now < at.plus(RECENT)).collect();
        let (Some(first), Some(last)) = (recorded.first(), recorded.last()) else { return Ok(()) };
        let urgent = until.is_some_and(|until| until < now.plus(RECENT));
        let longest = if urgent { PAUSE.0 } else { PAUSE.1 };
        let wait = last.0.saturating_sub(first.0).clamp(PAUSE.0, longest);
        let passed = now.0.saturating_sub(last.0);
        // A clock that was set back must keep nobody waiting.
        if recorded.len() < PENDING_LIMIT || !(0..wait).contains(&passed) {
            return Ok(());
        }
        Err(Refusal::RetriedTooOften(u32::try_from(wait - passed).unwrap_or_default()))
    }

    /// Sets the state of some of its credentials.
    pub fn set_state(&mut self, ids: &[i64], state: CredentialState) {
        for known in self.credentials.iter_mut().filter(|known| ids.contains(&known.id)) {
            known.state = state;
        }
    }
}

impl CredentialState {
    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Current => "current",
            Self::Superseded => "superseded",
            Self::Denied => "denied",
        }
    }

    /// The state that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        let all = [Self::Pending, Self::Current, Self::Superseded, Self::Denied];
        all.into_iter().find(|state| state.as_str() == text)
    }
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
