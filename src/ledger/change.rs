//! Why a change of a Factory is refused, and the audit rows of changes.

use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::audit::{Entry, Outcome};
use crate::model::{ActRefused, FactoryId};

/// Why a change of a Factory did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It must not.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(error.into())
    }
}

/// A change that the present state of the ledger forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// The name is taken.
    #[error("there is a Factory of this name already")]
    FactoryExists,
    /// A host is taken: a Factory is found by it (SNI).
    #[error("another Factory has this EST host or gateway host")]
    HostTaken,
    /// I9.
    #[error("the Root of Trust is set already, and it is set once")]
    RootAlreadySet,
    /// No key waits for this certificate.
    #[error("no key of this Factory waits for the certificate of {0}")]
    NoPendingKey(String),
    /// A Device CA is known by its key.
    #[error("the Device CA {0} is known already")]
    DeviceCaKnown(String),
    /// The two kinds are kept apart.
    #[error("the CA {0} is known as a bootstrap CA: a key is one or the other")]
    BootstrapCaKnown(String),
    /// A revoked one comes back only by an explicit act.
    #[error("the Device CA {0} was revoked: `estd device-ca add --again` brings it back")]
    DeviceCaRevoked(String),
    /// Device CAs are told apart by serial number, in CRLs and by people.
    #[error("another Device CA of this Factory has the serial number {0}")]
    SerialTaken(String),
    /// There is no such Device CA.
    #[error("there is no such Device CA")]
    NoSuchDeviceCa,
    /// The state of the Device CA forbids it.
    #[error("the Device CA {device_ca}, serial {serial}: {why}")]
    State {
        /// Its subject.
        device_ca: String,
        /// The serial number of its certificate.
        serial: String,
        /// Why not.
        why: ActRefused,
    },
    /// I8.
    #[error(
        "{count} devices depend on the Device CA with serial {serial}; revoking it would strand \
         them{}. `estd device-ca phase-out {serial}` lists them; `estd device-ca revoke {serial} \
         --strand {count}` revokes it all the same", strand_said(*strand)
    )]
    StillNeeded {
        /// The serial number of its certificate.
        serial: String,
        /// How many devices depend on it.
        count: u64,
        /// How many the operator said.
        strand: u64,
        /// Some of them.
        devices: Vec<String>,
    },
    /// Rotations are told apart by name, on devices too.
    #[error("there is, or was, a rotation {0} in this Factory")]
    RotationExists(String),
    /// The same Idempotency-Key with another request.
    #[error("that Idempotency-Key has started the rotation {0}, by another request")]
    RequestKeyReused(String),
    /// There is no such rotation.
    #[error("there is no such rotation")]
    NoSuchRotation,
    /// The state of the rotation forbids it.
    #[error("the rotation is {state}: {act} is not for it now")]
    RotationState {
        /// What was to be done.
        act: &'static str,
        /// Where it stands.
        state: &'static str,
    },
    /// Only an enabled Device CA whose key is here signs (I2).
    #[error("the target is no Device CA that signs here: it must be online and enabled")]
    TargetDoesNotSign,
    /// Its certificates would be cut short, where those of another Device CA would not.
    #[error(
        "the target ends on {0}, before the certificates that it shall sign: name a Device CA that \
         lives longer as the target, or disable those that do"
    )]
    TargetEndsSoon(UnixTime),
    /// The devices would get what they have.
    #[error(
        "devices that re-enrol now get their certificates of the very Device CA that they are to \
         leave: disable it, or name another as the target"
    )]
    NothingLeaves,
    /// It encrypts its own files anew meanwhile.
    #[error(
        "the device has announced its next key: its configuration cannot be changed until it is \
         seen using that"
    )]
    DeviceSwitching,
    /// More than devices can be told.
    #[error("that would be more than {files} files, or more than {kib} KiB of them")]
    TooMuchConfig {
        /// How many files there may be.
        files: i64,
        /// How large they may be together, in KiB.
        kib: i64,
    },
    /// No device is in it.
    #[error("no device is in the group {0:?}")]
    NoSuchGroup(String),
    /// Somebody named devices that are not there.
    #[error("{count} of the named devices are unknown: {}", devices.join(", "))]
    NoSuchDevices {
        /// How many.
        count: usize,
        /// Some of them.
        devices: Vec<String>,
    },
    /// No device is wanted.
    #[error(
        "no device is left to rotate ({skipped} are in another rotation, or use a certificate of \
         the target already)"
    )]
    NothingToRotate {
        /// How many would be, but for that.
        skipped: i64,
    },
    /// No device has failed.
    #[error("no device of the rotation has failed that no other rotation has taken")]
    NothingToRetry,
    /// A token's name stays its own, also when it is revoked.
    #[error("there is, or was, another token of this name")]
    TokenNameTaken,
    /// A webhook of this name is there.
    #[error("there is another webhook of this name")]
    WebhookNameTaken,
    /// The private keys were wrapped anew, and whoever asks still has the key-encryption key before.
    #[error(
        "the ledger's private keys have another key-encryption key since `estd keys rewrap`: restart \
         this server, so that it takes the new one"
    )]
    KeyEncryptionKeyReplaced,
}

impl ChangeRefused {
    /// The stable code for it in the audit log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::FactoryExists => "factory-exists",
            Self::HostTaken => "host-taken",
            Self::RootAlreadySet => "root-already-set",
            Self::NoPendingKey(_) => "no-pending-key",
            Self::DeviceCaKnown(_) => "device-ca-known",
            Self::BootstrapCaKnown(_) => "bootstrap-ca-known",
            Self::DeviceCaRevoked(_) => "device-ca-revoked",
            Self::SerialTaken(_) => "serial-taken",
            Self::NoSuchDeviceCa => "device-ca-unknown",
            Self::State { .. } => "device-ca-state",
            Self::StillNeeded { .. } => "device-ca-needed",
            Self::RotationExists(_) => "rotation-exists",
            Self::RequestKeyReused(_) => "request-key-reused",
            Self::NoSuchRotation => "rotation-unknown",
            Self::RotationState { .. } => "rotation-state",
            Self::TargetDoesNotSign => "target-does-not-sign",
            Self::TargetEndsSoon(_) => "target-ends-soon",
            Self::NothingLeaves => "nothing-leaves",
            Self::DeviceSwitching => "device-switching",
            Self::TooMuchConfig { .. } => "too-much-config",
            Self::NoSuchGroup(_) => "group-unknown",
            Self::NoSuchDevices { .. } => "devices-unknown",
            Self::NothingToRotate { .. } => "nothing-to-rotate",
            Self::NothingToRetry => "nothing-to-retry",
            Self::TokenNameTaken => "token-name-taken",
            Self::WebhookNameTaken => "webhook-name-taken",
            Self::KeyEncryptionKeyReplaced => "key-encryption-key-replaced",
        }
    }
}

fn strand_said(strand: u64) -> String {
    if strand == 0 { String::new() } else { format!(" (--strand says {strand})") }
}

impl Ledger {
    /// Puts a change that was refused on record: the transaction that refused it is gone.
    pub(super) async fn recorded<T>(
        &self,
        done: Result<T, ChangeError>,
        factory: Option<FactoryId>,
        actor: &str,
        action: &str,
        subject: String,
    ) -> Result<T, ChangeError> {
        if let Err(ChangeError::Refused(why)) = &done {
            let entry = Entry {
                at: UnixTime::now(),
                factory,
                actor: actor.to_owned(),
                action: action.to_owned(),
                subject,
                outcome: Outcome::Refused,
                code: why.code().to_owned(),
                detail: why.to_string(),
            };
            // Best effort: what the operator must learn is the refusal, not that it went unrecorded.
            let _unrecorded = self.note(entry).await;
        }
        done
    }
}

/// The audit row of a change of a Factory.
pub(super) fn change(
    factory: FactoryId,
    actor: &str,
    action: &str,
    subject: String,
    detail: String,
) -> Entry {
    Entry {
        at: UnixTime::now(),
        factory: Some(factory),
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject,
        outcome: Outcome::Done,
        code: String::new(),
        detail,
    }
}
