//! Devices in the field: that one was seen, and with which certificate.

pub mod rotations;

use tracing::{info, warn};

use crate::clock::UnixTime;
use crate::keys::ActiveSnapshot;
use crate::ledger::{Contact, Ledger};
use crate::model::{Peer, Refusal, Sighting};
use crate::policy::{self, Standing};

/// Records that a device has opened a session with its certificate: the first contact registers it,
/// and a session with a pending credential proves that the device switched (I3).
///
/// # Errors
/// The refusal: what the certificate is not good for any more.
pub async fn sight(
    ledger: &Ledger,
    active: &ActiveSnapshot,
    peer: &Peer,
) -> Result<Sighting, Refusal> {
    let requester = policy::authenticate(peer, active.snapshot(), UnixTime::now())?;
    let device_ca = match requester.standing {
        Standing::Device(device_ca) | Standing::RegistrationAuthority(device_ca) => device_ca,
        Standing::Newcomer(_) => return Ok(Sighting::Expected),
    };
    let device = requester.name.to_string();
    let seen = ledger.contact(Contact::new(&requester, device_ca)).await;
    match &seen {
        Ok(Sighting::FirstContact) => info!(device, "registered at first contact"),
        Ok(Sighting::Confirmed { .. }) => info!(device, "switched to its new certificate"),
        Ok(Sighting::Allowed { .. }) => warn!(device, "readmitted by the operator's allowance"),
        Ok(Sighting::Expected | Sighting::Adopted { .. }) => {}
        Err(refusal) if refusal.is_alarm() => {
            warn!(device, code = refusal.code(), reason = %refusal, "alarm: seen");
        }
        Err(refusal) => info!(device, code = refusal.code(), reason = %refusal, "seen"),
    }
    seen
}
