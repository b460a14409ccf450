//! What the handshake and the pipeline must know of the Factories: immutable, replaced as a whole.

use std::collections::{HashMap, HashSet};

use super::{
    BootstrapCa, DeviceCa, DeviceCaId, DeviceCaKind, DeviceCaState, EnrolmentProfile, Factory,
    FactoryId, Label,
};
use crate::pki::{Certificate, Fingerprint, Serial};

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

    /// The Factory whose EST host has that name, else the only one.
    pub fn factory_of_host(&self, host: Option<&str>) -> Option<&FactoryTrust> {
        let by_name = host.and_then(|host| {
            self.factories
                .iter()
                .find(|trust| trust.factory.est_host.as_str().eq_ignore_ascii_case(host))
        });
        by_name.or(match self.factories.as_slice() {
            [only] => Some(only),
            _ => None,
        })
    }

    /// Every Device CA whose certificates may still connect, with its Factory.
    pub fn trusted_cas(&self) -> impl Iterator<Item = &DeviceCa> {
        self.factories.iter().flat_map(FactoryTrust::trusted_cas)
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
    /// writes it.
    pub fn device_ca_by_written_serial(&self, text: &str) -> Option<&DeviceCa> {
        let in_hex = Serial::from_hex(text).and_then(|serial| self.device_ca_by_serial(&serial));
        in_hex.or_else(|| {
            self.device_cas.iter().find(|ca| ca.certificate.serial().to_decimal() == text)
        })
    }

    /// Every Device CA whose certificates may still connect.
    pub fn trusted_cas(&self) -> impl Iterator<Item = &DeviceCa> {
        self.device_cas.iter().filter(|ca| ca.state != DeviceCaState::Revoked)
    }

    /// The Device CA that signs (I2): the latest that is online and enabled.
    pub fn issuing_ca(&self) -> Option<&DeviceCa> {
        self.device_cas
            .iter()
            .rev()
            .find(|ca| ca.kind == DeviceCaKind::Online && ca.state == DeviceCaState::Enabled)
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
