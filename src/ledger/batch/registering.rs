//! Devices that are registered on the word of an API token, within a transaction of the writer.

use super::super::facts::DeviceKey;
use super::super::work::{Introduced, Registrar};
use super::Batch;
use crate::model::{CredentialState, DeviceCaState, DeviceMetadata, Operation, Refusal};
use crate::pki::Fingerprint;
use crate::policy::Introduction;

impl Batch<'_> {
    /// Registers a device with a certificate that it was given elsewhere. The same again changes
    /// nothing and is not on record.
    pub(super) fn introduce(
        &mut self,
        introduction: &Introduction,
        registrar: &Registrar,
    ) -> Result<Introduced, Refusal> {
        match self.facts.cas.get(&introduction.device_ca) {
            Some(DeviceCaState::Enabled) => {}
            Some(DeviceCaState::Disabled) => return Err(Refusal::CaDisabledUnregistered),
            Some(DeviceCaState::Revoked) => return Err(Refusal::CaRevoked),
            None => return Err(Refusal::CertificateUntrusted),
        }
        let Introduction { factory, device, certificate, device_ca, .. } = introduction;
        let key = (*factory, device.clone());
        let fingerprint = certificate.fingerprint();
        let known = self.facts.devices.get(&key).filter(|known| !known.denied);
        if known.is_some_and(|known| known.holds(fingerprint)) {
            return Ok(Introduced::Known);
        }
        let public_key = certificate.public_key().fingerprint();
        self.register_once(&key, public_key, &registrar.metadata)?;
        self.add_credential(&key, certificate, *device_ca, CredentialState::Pending);
        let detail = format!("certificate {fingerprint} serial {}", certificate.serial());
        self.done(Operation::Register.as_str(), &registrar.token, &key, detail);
        Ok(Introduced::New)
    }

    /// Registers a device on the word of a token: one that is unknown, or one that was denied and
    /// comes with another key than those that it was denied with.
    pub(super) fn register_once(
        &mut self,
        key: &DeviceKey,
        public_key: Fingerprint,
        metadata: &DeviceMetadata,
    ) -> Result<(), Refusal> {
        let known = self.facts.devices.get_mut(key);
        match &known {
            Some(device) if !device.denied => return Err(Refusal::DeviceKnown),
            Some(device) if device.was_denied_with(public_key) => {
                return Err(Refusal::CredentialDenied);
            }
            _ => {}
        }
        if let Some(alias) = metadata.alias.clone() {
            let owner = self.facts.aliases.entry((key.0, alias));
            if owner.or_insert_with(|| key.1.clone()) != &key.1 {
                return Err(Refusal::NameTaken);
            }
        }
        if let Some(device) = known {
            (device.allowance, device.denied) = (None, false);
            self.changes.registered_anew.push((device.id, metadata.clone()));
        } else {
            self.register(key.clone(), None, metadata);
        }
        Ok(())
    }
}
