//! What the handshake and the pipeline must know of the Factories: immutable, replaced as a whole.

use std::collections::{HashMap, HashSet};

use super::{
    BootstrapCa, DeviceCa, DeviceCaId, DeviceCaKind, DeviceCaState, EnrolmentProfile, Factory,
    FactoryId, Label,
};
use crate::clock::UnixTime;
use crate::pki::{Certificate, Fingerprint, Serial};

/// How long, in seconds, a Device CA must still live to sign anything: a day.
const LEAST_LIFE: i64 = 24 * 3600;

/// All Factories as of one version of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change of a Factory.
    pub version: i64,
    /// Every Factory.
    pub factories: Vec<FactoryTrust>,
    /// The enrolment profiles of the configuration.
    pub profiles: Profiles,
    /// Public keys of the certificates that may act as registration authority (E-25).
    pub registration_authorities: HashSet<Fingerprint>,
}

/// A Factory and whom it trusts.
#[derive(Clone, Debug)]
pub struct FactoryTrust {
    /// The Factory.
    pub factory: Factory,
    /// Its Device CAs in every state, oldest first.
    pub device_cas: Vec<DeviceCa>,
    /// Its bootstrap CAs: trusted for a first enrolment and nothing else.
    pub bootstrap_cas: Vec<BootstrapCa>,
    /// Whether an active rotation says which Device CA its devices shall have a certificate of.
    pub has_targets: bool,
}

/// The profile without a label and those with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    /// What holds without a label.
    pub unlabelled: EnrolmentProfile,
    /// What holds under each label.
    pub labelled: HashMap<Label, EnrolmentProfile>,
}

impl Profiles {
    /// The profile that a path selects; `None` for an unknown label.
    pub fn select(&self, label: Option<&Label>) -> Option<&EnrolmentProfile> {
        match label {
            None => Some(&self.unlabelled),
            Some(label) => self.labelled.get(label),
        }
    }
}

impl Snapshot {
    /// The Factory with that row.
    pub fn factory(&self, id: FactoryId) -> Option<&FactoryTrust> {
        self.factories.iter().find(|trust| trust.factory.id == id)
    }
}

impl FactoryTrust {
    /// The Device CA with that row.
    pub fn device_ca(&self, id: DeviceCaId) -> Option<&DeviceCa> {
        self.device_cas.iter().find(|ca| ca.id == id)
    }

    /// The Device CA with that serial number: no two of a Factory share one.
    pub fn device_ca_by_serial(&self, serial: &Serial) -> Option<&DeviceCa> {
        self.device_cas.iter().find(|ca| ca.certificate.serial() == serial)
    }

    /// The Device CA whose serial number an operator has written: in hex, or in decimal as fioctl
    /// writes it. None if the text is the number of one Device CA in hex and of another in decimal.
    pub fn device_ca_by_written_serial(&self, text: &str) -> Option<&DeviceCa> {
        let in_hex = Serial::from_hex(text);
        let mut meant = self.device_cas.iter().filter(|ca| {
            let serial = ca.certificate.serial();
            Some(serial) == in_hex.as_ref() || serial.to_decimal() == text
        });
        meant.next().filter(|_| meant.next().is_none())
    }

    /// Every Device CA whose certificates may still connect.
    pub fn trusted_cas(&self) -> impl Iterator<Item = &DeviceCa> {
        self.device_cas.iter().filter(|ca| ca.state != DeviceCaState::Revoked)
    }

    /// The Device CA that signs, of those of the Factory: see [`issuing_ca`].
    pub fn issuing_ca(&self, now: UnixTime, certificate_seconds: i64) -> Option<&DeviceCa> {
        issuing_ca(&self.device_cas, now, certificate_seconds)
    }

    /// The Device CA with that row, if it signs.
    pub fn signing_ca(&self, id: DeviceCaId, now: UnixTime) -> Option<&DeviceCa> {
        signing_ca(&self.device_cas, id, now)
    }

    /// Every Device CA that is not revoked and whose key is here.
    pub fn online_cas(&self) -> impl Iterator<Item = &DeviceCa> {
        self.trusted_cas().filter(|ca| ca.kind == DeviceCaKind::Online)
    }

    /// The root and every certificate that chains an issued one to it (E-29).
    pub fn ca_certificates(&self) -> Vec<&Certificate> {
        let cas = self.trusted_cas().map(|ca| &ca.certificate);
        self.factory.root.iter().chain(cas).collect()
    }
}

/// The Device CA that signs (I2), of these, oldest first, that are online and enabled: the latest that
/// lives as long as a certificate shall, else the one that lives longest. One that ends within a day
/// signs nothing: what it could give a device would end too soon after the device had switched.
pub fn issuing_ca(cas: &[DeviceCa], now: UnixTime, certificate_seconds: i64) -> Option<&DeviceCa> {
    let end = |ca: &&DeviceCa| ca.certificate.validity().not_after;
    let candidates = || cas.iter().filter(|ca| signs(ca, now));
    let lasting = candidates().rev().find(|ca| end(ca) >= now.plus(certificate_seconds));
    lasting.or_else(|| candidates().max_by_key(end))
}

/// The Device CA with that row, if it is one of these and signs.
pub fn signing_ca(cas: &[DeviceCa], id: DeviceCaId, now: UnixTime) -> Option<&DeviceCa> {
    cas.iter().find(|ca| ca.id == id && signs(ca, now))
}

fn signs(ca: &DeviceCa, now: UnixTime) -> bool {
    let validity = ca.certificate.validity();
    ca.kind == DeviceCaKind::Online
        && ca.state == DeviceCaState::Enabled
        && validity.not_before <= now
        && validity.not_after > now.plus(LEAST_LIFE)
}
