//! What the device gateway asks and records: what a device is to be told, the key that it will use
//! next, and its events.

use super::change::change;
use super::database::{Row, Statement, Value};
use super::rotations::{self, COLUMNS};
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::audit::{Entry, Outcome};
use crate::model::rotation::{Fact, MemberReason, MemberState, Rotation, Step};
use crate::model::{DeviceEvent, DeviceName, FactoryId};
use crate::pki::Fingerprint;

/// How many events of a device are kept.
const EVENTS_KEPT: i64 = 200;
/// The code of a next key that was never issued to the device.
const UNKNOWN_KEY: &str = "next-key-unknown";

/// What a device is told of rotations.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The rotation: its slot has come and it has not switched yet.
    pub rotation: Option<Rotation>,
    /// When that changed last.
    pub changed_at: Option<UnixTime>,
}

/// What became of a device's word on its next key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextKey {
    /// It is that of a certificate that was issued to the device.
    Noted,
    /// No certificate was issued to the device for it.
    Unknown,
}

impl Ledger {
    /// A device's part in its latest rotation, as far as it is to be told of it.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn rotation_to_deliver(
        &self,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<Delivery, LedgerError> {
        let select = Statement::new(
            "SELECT member.rotation_id, member.state, member.since, member.offered_at FROM device \
             JOIN rotation_device member ON member.device_id = device.id \
             WHERE device.factory_id = $1 AND device.name = $2 AND member.state <> 'skipped' \
             ORDER BY member.rotation_id DESC LIMIT 1",
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
            && rotation.state.is_active()
            && offered_at.is_some();
        if told {
            return Ok(Delivery { changed_at: offered_at, rotation: Some(rotation) });
        }
        let withdrawn_at = UnixTime(row.integer("since")?).max(rotation.state_since);
        Ok(Delivery { changed_at: Some(withdrawn_at), rotation: None })
    }

    /// Notes the key that a device says it will use next. Only one that was issued to it is believed:
    /// anything else is an alarm.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn announce_key(
        &self,
        factory: FactoryId,
        device: &DeviceName,
        key: Fingerprint,
    ) -> Result<NextKey, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let update = Statement::new(
            "UPDATE device SET next_key = $1, next_key_at = $2 WHERE factory_id = $3 AND name = $4 \
             AND EXISTS (SELECT 1 FROM credential WHERE credential.device_id = device.id \
             AND credential.public_key_sha256 = $1 AND credential.state IN ('current', 'pending'))",
        )
        .bind(key.as_bytes())
        .bind(UnixTime::now().0)
        .bind(factory.0)
        .bind(device.as_str());
        let known = transaction.execute(update).await? > 0;
        let (name, detail) = (device.to_string(), format!("public key {key}"));
        let entry = change(factory, device.as_str(), "announce-key", name, detail);
        transaction.note(if known {
            entry
        } else {
            Entry { outcome: Outcome::Alarm, code: UNKNOWN_KEY.to_owned(), ..entry }
        });
        transaction.commit().await?;
        Ok(if known { NextKey::Noted } else { NextKey::Unknown })
    }

    /// Keeps what a device says. What it has said before, by the same id, is not kept twice.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn keep_events(
        &self,
        factory: FactoryId,
        device: &DeviceName,
        events: &[DeviceEvent],
    ) -> Result<(), LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let select = Statement::new("SELECT id FROM device WHERE factory_id = $1 AND name = $2");
        let rows = transaction.rows(select.bind(factory.0).bind(device.as_str())).await?;
        let Some(row) = rows.first().filter(|_| !events.is_empty()) else {
            return Ok(());
        };
        let (id, now) = (row.integer("id")?, UnixTime::now());
        let mut number = 0;
        let mut rows = Vec::new();
        for event in events {
            number = transaction.next_id();
            rows.push(row_of(id, number, now, event));
        }
        let insert = Statement::new(
            "INSERT INTO device_event (device_id, id, number, at, device_time, rotation, step, \
             success, details) VALUES ",
        );
        let insert = insert.tuples(rows).then(" ON CONFLICT (device_id, id) DO NOTHING");
        transaction.execute(insert).await?;
        let forget = Statement::new(
            "DELETE FROM device_event WHERE device_id = $1 AND number <= (SELECT number FROM \
             device_event WHERE device_id = $1 AND number <= $2 ORDER BY number DESC LIMIT 1 OFFSET $3)",
        );
        transaction.execute(forget.bind(id).bind(number).bind(EVENTS_KEPT)).await?;
        for event in events.iter().filter(|event| event.is_failed_step()) {
            follow_failed_step(&mut transaction, id, event).await?;
        }
        transaction.commit().await
    }

    pub(super) async fn events_of_device(
        &self,
        device: i64,
    ) -> Result<Vec<DeviceEvent>, LedgerError> {
        let select = Statement::new(
            "SELECT id, device_time, rotation, step, success, details FROM device_event \
             WHERE device_id = $1 ORDER BY number",
        );
        self.database.rows(select.bind(device)).await?.iter().map(event).collect()
    }
}

/// A step that went wrong on the device is a failure of the rotation that it names, if that has it.
async fn follow_failed_step(
    transaction: &mut WriteTransaction,
    device: i64,
    event: &DeviceEvent,
) -> Result<(), LedgerError> {
    let select = Statement::new(
        "SELECT member.rotation_id, member.ordinal, member.state, member.failures \
         FROM rotation_device member JOIN rotation ON rotation.id = member.rotation_id \
         WHERE member.device_id = $1 AND rotation.name = $2 \
         AND rotation.state IN ('preparing', 'running', 'paused')",
    );
    let rows = transaction.rows(select.bind(device).bind(event.rotation.as_str())).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let from = rotations::member_state(row)?;
    let to = from.after(Fact::StepFailed);
    if to == from {
        return Ok(());
    }
    let by_id = Statement::new(COLUMNS).then("WHERE rotation.id = ");
    let found = transaction.rows(by_id.value(row.integer("rotation_id")?)).await?;
    let rotation = found.first().map(rotations::rotation).transpose()?;
    let mut rotation = rotation.ok_or_else(|| LedgerError::corrupt("no such rotation"))?;
    let reason = MemberReason::Step;
    let step = Step {
        ordinal: row.integer("ordinal")?,
        from,
        to,
        reason: Some(reason),
        failed_before: row.integer("failures")? > 0,
    };
    if let Some(why) = rotation.follow(step) {
        transaction.note_all(rotations::pause_itself(&mut rotation, &why));
    }
    let detail = format!("{}: {}", event.step, event.details);
    let why = (Some(reason.as_str()), Some(detail.as_str()));
    let now = UnixTime::now();
    rotations::write_members(transaction, rotation.id, [device], to, why, now).await?;
    rotations::write(transaction, &rotation).await
}

fn row_of(device: i64, number: i64, now: UnixTime, event: &DeviceEvent) -> [Value; 9] {
    [
        device.into(),
        event.id.as_str().into(),
        number.into(),
        now.0.into(),
        event.device_time.as_str().into(),
        event.rotation.as_str().into(),
        event.step.as_str().into(),
        event.success.map(i64::from).into(),
        event.details.as_str().into(),
    ]
}

fn event(row: &Row) -> Result<DeviceEvent, LedgerError> {
    Ok(DeviceEvent {
        id: row.text("id")?,
        device_time: row.text("device_time")?,
        rotation: row.text("rotation")?,
        step: row.text("step")?,
        success: row.maybe_integer("success")?.map(|success| success != 0),
        details: row.text("details")?,
    })
}
