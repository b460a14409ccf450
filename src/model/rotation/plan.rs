//! What is asked of a rotation.

use serde::{Deserialize, Serialize};

use super::{Pace, RotationName};

/// How many outcomes a stop rule may look back on.
const LONGEST_LOOK: u32 = 1000;

/// What an operator asks of a rotation, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which devices.
    pub selection: Selection,
    /// How fast.
    pub pace: Pace,
    /// When it pauses by itself.
    pub stop: Option<StopRule>,
    /// How long, in seconds, a device may take to ask, and then to be seen with what it was given.
    pub patience: i64,
    /// How long, in seconds, the certificates live that its devices get, unless their Device CA ends
    /// earlier.
    #[serde(default)]
    pub validity: i64,
    /// Where fioconfig finds what it needs.
    pub fioconfig: FioconfigSettings,
    /// Why.
    pub reason: String,
}

/// The configuration file that starts a rotation on fioconfig devices.
pub const ROTATE_CERTS: &str = "fio-rotate-certs";
/// What it makes them run.
pub const ROTATE_CERTS_HANDLER: &str = "/usr/share/fioconfig/handlers/renew-client-cert";

/// What holds for a rotation that says nothing else.
#[derive(Clone, Debug)]
pub struct RotationDefaults {
    /// How fast.
    pub pace: Pace,
    /// When it pauses by itself.
    pub stop: StopRule,
    /// How long, in seconds, a device may take.
    pub patience: i64,
    /// What fioconfig devices are told.
    pub fioconfig: FioconfigSettings,
}

/// What the `fio-rotate-certs` file tells a fioconfig device, beside where the server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FioconfigSettings {
    /// The EST label that devices are sent to.
    pub label: Option<String>,
    /// The PKCS#11 ids of keys to use in turn.
    pub pkey_ids: String,
    /// The PKCS#11 ids of certificates to use in turn.
    pub cert_ids: String,
}

impl Default for FioconfigSettings {
    fn default() -> Self {
        Self { label: None, pkey_ids: "01,07".to_owned(), cert_ids: "03,09".to_owned() }
    }
}

impl FioconfigSettings {
    /// Whether a text is a list of PKCS#11 ids.
    pub fn are_ids(text: &str) -> bool {
        let is_id = |id: &str| {
            (1..=8).contains(&id.len()) && id.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        text.len() <= 64 && text.split(',').all(is_id)
    }

    /// The value of the `fio-rotate-certs` file that starts the rotation on a device. `est` is
    /// `HOST[:PORT]`.
    pub fn file(&self, est: &str, rotation: &RotationName) -> String {
        let Self { label, pkey_ids, cert_ids } = self;
        let label = label.as_ref().map(|label| format!("/{label}")).unwrap_or_default();
        format!(
            "ESTSERVER=https://{est}/.well-known/est{label}\nPKEYIDS={pkey_ids}\n\
             CERTIDS={cert_ids}\nROTATIONID={rotation}\n"
        )
    }
}

/// Which devices, as people said it; all that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Those that depend on the Device CA with this serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_ca: Option<String>,
    /// Those in this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Those whose certificate ends before this, in unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_before: Option<i64>,
    /// Those with a key of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<String>,
    /// How many were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named: Option<usize>,
}

impl Selection {
    /// Whether devices that use a certificate of the target already are left out: where they are
    /// chosen by what their certificate says, another of the same Device CA is what is wanted; and
    /// those that depend on a Device CA do so until they have replaced what they were issued of it.
    pub fn leaves_out_target(&self) -> bool {
        self.device_ca.is_none() && self.expires_before.is_none() && self.key_algorithm.is_none()
    }
}

/// Pause when more than `percent` of the last `last` devices failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRule {
    /// How many devices are looked back on. Those that are still to come count as well.
    pub last: u32,
    /// The share that may fail.
    pub percent: u8,
}

impl Default for StopRule {
    fn default() -> Self {
        Self { last: 100, percent: 10 }
    }
}

impl StopRule {
    /// A rule; `None` unless it looks back on 1 to 1000 devices and allows 0 to 99 per cent.
    pub fn new(last: u32, percent: u8) -> Option<Self> {
        ((1..=LONGEST_LOOK).contains(&last) && percent < 100).then_some(Self { last, percent })
    }

    /// Whether that many failures are too many.
    pub fn is_exceeded_by(self, failures: usize) -> bool {
        failures * 100 > usize::from(self.percent) * self.last as usize
    }
}

/// How the last devices of a rotation fared, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes(Vec<bool>);

const WENT_WELL: char = '.';
const FAILED: char = 'x';

impl Outcomes {
    /// Reads what [`Self::to_text`] wrote.
    pub fn from_text(text: &str) -> Self {
        Self(text.chars().map(|mark| mark == FAILED).collect())
    }

    /// One character a device.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|failed| if *failed { FAILED } else { WENT_WELL }).collect()
    }

    /// Adds the outcome of a device, and forgets what the rule does not look back on.
    pub fn push(&mut self, failed: bool, rule: StopRule) {
        self.0.push(failed);
        let excess = self.0.len().saturating_sub(rule.last as usize);
        self.0.drain(..excess);
    }

    /// How many failed.
    pub fn failures(&self) -> usize {
        self.0.iter().filter(|failed| **failed).count()
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
