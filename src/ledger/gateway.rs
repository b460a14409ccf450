//! What the device gateway asks and records: what a device is to be told, the key that it will use
//! next, and its events.

use super::database::{Row, Statement};
use super::facts::DeviceKey;
use super::rotations::{self, COLUMNS};
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::rotation::{MemberState, Rotation, RotationName, RotationState};
use crate::model::{DeviceEvent, DeviceName, FactoryId, Refusal};
use crate::pki::Fingerprint;

/// What a device is told of rotations.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The rotation, and what the device is to call it: its slot has come and it has not switched yet.
    pub rotation: Option<(Rotation, RotationName)>,
    /// When that changed last.
    pub changed_at: Option<UnixTime>,
}

impl Ledger {
    /// A device's part in the rotation that has it, else in its latest, as far as it is to be told of
    /// it: also after the rotation has finished with others, if it failed.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn rotation_to_deliver(
        &self,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<Delivery, LedgerError> {
        let select = Statement::new(
            "SELECT member.rotation_id, member.state, member.since, member.offered_at, \
             member.tries FROM device \
             JOIN rotation_device member ON member.device_id = device.id \
             JOIN rotation ON rotation.id = member.rotation_id \
             WHERE device.factory_id = $1 AND device.name = $2 AND member.state <> 'skipped' \
             ORDER BY CASE WHEN rotation.state NOT IN ('preparing', 'running', 'paused') THEN 2 \
             WHEN member.state = 'confirmed' THEN 1 ELSE 0 END, member.rotation_id DESC LIMIT 1",
        );
        let rows = self.database.rows(select.bind(factory.0).bind(device.as_str())).await?;
        let Some(row) = rows.first() else {
            return Ok(Delivery::default());
        };
        let by_id = Statement::new(COLUMNS).then("WHERE rotation.id = ");
        let found = self.database.rows(by_id.value(row.integer("rotation_id")?)).await?;
        let rotation = found.first().map(rotations::rotation).transpose()?;
        let rotation = rotation.ok_or_else(|| LedgerError::corrupt("no such rotation"))?;
        let told = [MemberState::Offered, MemberState::Issued, MemberState::Failed];
        let offered_at = row.maybe_integer("offered_at")?.map(UnixTime);
        let told = told.contains(&rotations::member_state(row)?)
            && (rotation.state.is_active() || rotation.state == RotationState::Finished)
            && offered_at.is_some();
        if told {
            let name = rotation.name.of_try(row.integer("tries")?);
            return Ok(Delivery { changed_at: offered_at, rotation: Some((rotation, name)) });
        }
        let withdrawn_at = UnixTime(row.integer("since")?).max(rotation.state_since);
        Ok(Delivery { changed_at: Some(withdrawn_at), rotation: None })
    }

    /// Notes the key that a device says it will use next.
    ///
    /// # Errors
    /// The refusal, an alarm, if no certificate that it may use has that key; or that the ledger
    /// cannot record anything.
    pub async fn announce_key(&self, device: DeviceKey, next: Fingerprint) -> Result<(), Refusal> {
        self.writer.announce(device, next).await
    }

    /// Keeps what a device says. What it has said before, by the same id, is not kept twice.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn keep_events(
        &self,
        device: DeviceKey,
        events: Vec<DeviceEvent>,
    ) -> Result<(), Refusal> {
        self.writer.tell(device, events).await
    }

    /// What the rotations are called that a device is or was in.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn names_of_rotations(
        &self,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<Vec<RotationName>, LedgerError> {
        let select = Statement::new(
            "SELECT rotation.name FROM device \
             JOIN rotation_device member ON member.device_id = device.id \
             JOIN rotation ON rotation.id = member.rotation_id \
             WHERE device.factory_id = $1 AND device.name = $2",
        );
        let rows = self.database.rows(select.bind(factory.0).bind(device.as_str())).await?;
        let name =
            |row: &Row| RotationName::parse(&row.text("name")?).map_err(LedgerError::corrupt);
        rows.iter().map(name).collect()
    }

    pub(super) async fn events_of_device(
        &self,
        device: i64,
    ) -> Result<Vec<DeviceEvent>, LedgerError> {
        let select = Statement::new(
            "SELECT id, device_time, rotation, step, target, version, success, details FROM device_event \
             WHERE device_id = $1 ORDER BY number",
        );
        self.database.rows(select.bind(device)).await?.iter().map(event).collect()
    }
}

fn event(row: &Row) -> Result<DeviceEvent, LedgerError> {
    Ok(DeviceEvent {
        id: row.text("id")?,
        device_time: row.text("device_time")?,
        rotation: row.text("rotation")?,
        step: row.text("step")?,
        target: row.text("target")?,
        version: row.text("version")?,
        success: row.maybe_integer("success")?.map(|success| success != 0),
        details: row.text("details")?,
    })
}
