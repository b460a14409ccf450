//! Devices that were told to wait for another certificate. Whoever asks again before the time is judged
//! without a signature: thousands that fail must not use up the keys that healthy devices need.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Enrolments;
use crate::clock::UnixTime;
use crate::ledger::Contact;
use crate::model::{DeviceName, FactoryId, Refusal};
use crate::policy::{Requester, Standing};

/// How many devices are remembered.
const LIMIT: usize = 65_536;

/// Until when each device was put off. It says only whom to look at: the ledger says who waits.
#[derive(Default)]
pub(super) struct PutOff(Mutex<HashMap<(FactoryId, DeviceName), UnixTime>>);

impl PutOff {
    fn devices(&self) -> MutexGuard<'_, HashMap<(FactoryId, DeviceName), UnixTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_remembered(&self, contact: &Contact, now: UnixTime) -> bool {
        let device = (contact.factory, contact.device.clone());
        self.devices().get(&device).is_some_and(|until| now < *until)
    }

    /// Remembers the device if it was refused for coming too often.
    pub(super) fn note(&self, requester: &Requester<'_>, refusal: &Refusal, now: UnixTime) {
        let Refusal::RetriedTooOften(seconds) = refusal else { return };
        let mut devices = self.devices();
        if devices.len() >= LIMIT {
            devices.retain(|_, until| now < *until);
        }
        if devices.len() < LIMIT {
            let device = (requester.trust.factory.id, requester.name.clone());
            devices.insert(device, now.plus(i64::from(*seconds)));
        }
    }
}

impl Enrolments {
    /// Refuses a device that was put off and still has to wait.
    ///
    /// # Errors
    /// The refusal, which is not on record yet.
    pub(super) async fn check_put_off(
        &self,
        requester: &Requester<'_>,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let Standing::Device(device_ca) = requester.standing else { return Ok(()) };
        let contact = Contact::new(requester, device_ca);
        if !self.put_off.is_remembered(&contact, now) {
            return Ok(());
        }
        self.ledger.check_pause(&contact, now).await
    }
}
