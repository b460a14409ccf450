//! Whether there is anything to record of a device that is seen: mostly there is not, and then nobody
//! waits for the writer.

use super::Ledger;
use super::database::Statement;
use super::facts::known_credential;
use super::work::Contact;
use crate::clock::UnixTime;
use crate::model::{KnownDevice, Refusal};

/// How old, in seconds, the record of a device's last contact may grow before it is written anew.
pub(super) const LAST_SEEN_RESOLUTION: i64 = 60;

impl Ledger {
    /// Whether the device uses its current credential, as expected, and was seen a moment ago. What
    /// cannot be read is the writer's to judge.
    pub(super) async fn has_nothing_to_record(&self, contact: &Contact) -> bool {
        let select = Statement::new(
            "SELECT device.id FROM device JOIN credential ON credential.device_id = device.id \
             JOIN device_ca ON device_ca.id = $1 \
             WHERE device.factory_id = $2 AND device.name = $3 AND device.allowed_once = 0 \
             AND device.last_seen_at > $4 AND credential.sha256 = $5 \
             AND credential.state = 'current' AND device_ca.state <> 'revoked'",
        )
        .bind(contact.device_ca.0)
        .bind(contact.factory.0)
        .bind(contact.device.as_str())
        .bind(UnixTime::now().0 - LAST_SEEN_RESOLUTION)
        .bind(contact.certificate.fingerprint().as_bytes());
        self.database.rows(select).await.is_ok_and(|rows| !rows.is_empty())
    }

    /// Whether a device has to wait for another certificate, as the writer would say. What cannot be
    /// read is the writer's to judge; so is a device that comes by another certificate than its current
    /// one, or whom an operator lets in.
    ///
    /// # Errors
    /// The refusal, which is not on record yet.
    pub async fn check_pause(&self, contact: &Contact, now: UnixTime) -> Result<(), Refusal> {
        let select = Statement::new(
            "SELECT credential.id AS credential_id, credential.sha256, \
             credential.public_key_sha256, credential.state, credential.recorded_at \
             FROM device JOIN credential ON credential.device_id = device.id \
             WHERE device.factory_id = $1 AND device.name = $2 AND device.allowed_once = 0 \
             AND credential.state IN ('current', 'pending') ORDER BY credential.id",
        );
        let select = select.bind(contact.factory.0).bind(contact.device.as_str());
        let Ok(rows) = self.database.rows(select).await else { return Ok(()) };
        let credentials: Vec<_> =
            rows.iter().filter_map(|row| known_credential(row).ok().flatten()).collect();
        let device = KnownDevice { credentials, ..KnownDevice::default() };
        if device.current() != Some(contact.certificate.fingerprint()) {
            return Ok(());
        }
        device.may_have_another(now, Some(contact.certificate.validity().not_after))
    }
}
