//! Whether there is anything to record of a device that is seen: mostly there is not, and then nobody
//! waits for the writer.

use super::Ledger;
use super::database::Statement;
use super::work::Contact;
use crate::clock::UnixTime;

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
}
