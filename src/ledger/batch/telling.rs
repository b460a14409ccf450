//! What devices tell the gateway, within a transaction of the writer.

use super::super::facts::DeviceKey;
use super::Batch;
use super::rotating::Happened;
use crate::model::{DeviceEvent, KnownDevice, Refusal};
use crate::pki::Fingerprint;

impl Batch<'_> {
    /// Notes the key that a device says it will use next. Only one that was issued to it is believed:
    /// anything else is an alarm.
    pub(super) fn announce(&mut self, key: &DeviceKey, next: Fingerprint) -> Result<(), Refusal> {
        let action = "announce-key";
        let device = self.facts.devices.get(key).filter(|device| device.accepts_key(next));
        let Some(device) = device.map(|device| device.id) else {
            let refusal = Refusal::NextKeyUnknown(next);
            self.refused(action, key.1.as_str(), key.0, &key.1, None, &refusal);
            return Err(refusal);
        };
        // One that it uses already is no next one.
        let in_use = !self.facts.devices.get(key).is_some_and(|device| device.awaits_key(next));
        if in_use {
            return Ok(());
        }
        // Said again, it holds from now: the device begins anew where it was.
        self.changes.announced.push((device, next));
        if self.facts.next_keys.insert(device, next) == Some(next) {
            return Ok(());
        }
        self.done(action, key.1.as_str(), key, format!("public key {next}"));
        Ok(())
    }

    /// Keeps what a device says. A step that went wrong is a failure of the rotation that it names.
    pub(super) fn keep_events(&mut self, key: &DeviceKey, events: &[DeviceEvent]) {
        let Some(device) = self.facts.devices.get(key).map(|KnownDevice { id, .. }| *id) else {
            return;
        };
        for event in events {
            let number = self.transaction.next_id();
            self.changes.events.push([
                device.into(),
                event.id.as_str().into(),
                number.into(),
                self.now.0.into(),
                event.device_time.as_str().into(),
                event.rotation.as_str().into(),
                event.step.as_str().into(),
                event.target.as_str().into(),
                event.version.as_str().into(),
                event.success.map(i64::from).into(),
                event.details.as_str().into(),
            ]);
            self.changes.told.insert(device, number);
            // One that comes again may be of a try before.
            if event.is_failed_step() && self.facts.told.insert((device, event.id.clone())) {
                self.follow(key, Happened::StepFailed(event));
            }
        }
    }
}
