//! Rotations: what is read of them. What changes them is beside: [`start`], [`acts`], [`advance`], and
//! the writer's transactions, which know what happens to devices.

mod acts;
mod advance;
mod start;

use std::collections::HashSet;

use serde::Serialize;

pub(super) use acts::pause_itself;
pub use start::{DryRun, NewRotation, Started, Wanted};

use super::database::{Row, Statement, Value};
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::rotation::{
    Counts, MemberReason, MemberState, Outcomes, Rotation, RotationId, RotationName, RotationState,
    Slot,
};
use crate::model::{DeviceCaId, DeviceCaState, DeviceName, FactoryId};
use crate::pki::Fingerprint;

/// A device of a rotation, for people.
#[derive(Debug, Serialize)]
pub struct RotationDevice {
    /// Its name.
    pub name: String,
    /// Its place in the order of the slots; of one that is left out, after all of them.
    pub ordinal: i64,
    /// Where it stands.
    pub state: MemberState,
    /// Since when.
    pub since: UnixTime,
    /// Why it failed or is left out.
    pub reason: Option<String>,
    /// What else is known of that.
    pub detail: Option<String>,
    /// When it was last seen, to the minute.
    pub last_seen_at: Option<UnixTime>,
}

/// Some devices of a rotation.
#[derive(Debug, Serialize)]
pub struct RotationDevicePage {
    /// In the order of their slots, or the longest in their state first.
    pub devices: Vec<RotationDevice>,
    /// What to ask for after this page; absent on the last.
    pub next: Option<String>,
}

/// A device's part in a rotation, in its story.
#[derive(Debug, Serialize)]
pub struct RotationOfDevice {
    /// The rotation.
    pub rotation: String,
    /// Where the device stands in it.
    pub state: MemberState,
    /// Since when.
    pub since: UnixTime,
    /// Why it failed or is left out.
    pub reason: Option<String>,
    /// What else is known of that.
    pub detail: Option<String>,
}

/// What is written of a device of a rotation that goes to a state.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct NewState {
    pub(super) state: MemberState,
    /// Why it failed or is left out.
    pub(super) reason: Option<MemberReason>,
    /// What else is known of that.
    pub(super) detail: Option<String>,
    /// Whether it failed on its way there.
    pub(super) failed: bool,
}

pub(super) const COLUMNS: &str = "SELECT rotation.id, rotation.factory_id, rotation.name, \
     rotation.state, rotation.state_reason, rotation.state_since, rotation.plan, \
     rotation.target_ca_id, rotation.leaving_ca_id, rotation.created_by, rotation.created_at, \
     rotation.prepared_to, rotation.credit_at, rotation.canaries_left, rotation.outcomes, \
     rotation.waiting, rotation.offered, rotation.issued, rotation.confirmed, rotation.failed, \
     rotation.skipped FROM rotation ";

impl Ledger {
    /// The rotations of a Factory, the latest first: `limit` at most, those before `before`.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn rotations(
        &self,
        factory: FactoryId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Rotation>, LedgerError> {
        let select = Statement::new(COLUMNS)
            .then("WHERE rotation.factory_id = ")
            .value(factory.0)
            .then(" AND rotation.id < ")
            .value(before.unwrap_or(i64::MAX))
            .then(" ORDER BY rotation.id DESC LIMIT ")
            .value(i64::from(limit));
        self.database.rows(select).await?.iter().map(rotation).collect()
    }

    /// One rotation; `None` if there is no such rotation. It costs the same for any number of devices.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn rotation(
        &self,
        factory: FactoryId,
        name: &RotationName,
    ) -> Result<Option<Rotation>, LedgerError> {
        let rows = self.database.rows(by_name(factory, name)).await?;
        rows.first().map(rotation).transpose()
    }

    /// The latest active rotation that takes its devices off a Device CA.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn rotation_off(
        &self,
        device_ca: DeviceCaId,
    ) -> Result<Option<Rotation>, LedgerError> {
        let select = Statement::new(COLUMNS)
            .then(
                "WHERE rotation.state IN ('preparing', 'running', 'paused') \
                 AND rotation.leaving_ca_id = ",
            )
            .value(device_ca.0)
            .then(" ORDER BY rotation.id DESC LIMIT 1");
        self.database.rows(select).await?.first().map(rotation).transpose()
    }

    /// Devices of a rotation in the order of their slots, `limit` at most, those after `after`.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn rotation_devices(
        &self,
        rotation: RotationId,
        state: Option<MemberState>,
        after: i64,
        limit: u32,
    ) -> Result<RotationDevicePage, LedgerError> {
        let select = match state {
            Some(state) => device_rows(rotation).then(" AND member.state = ").value(state.as_str()),
            None => device_rows(rotation),
        };
        let select = select.then(" AND member.ordinal > ").value(after);
        let select = select.then(" ORDER BY member.ordinal LIMIT ").value(i64::from(limit));
        let rows = self.database.rows(select).await?;
        let devices = rows.iter().map(device).collect::<Result<Vec<_>, _>>()?;
        let full = devices.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let next = devices.last().filter(|_| full).map(|last| last.ordinal.to_string());
        Ok(RotationDevicePage { devices, next })
    }

    /// The devices that have been in a state for longest.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn slowest_rotation_devices(
        &self,
        rotation: RotationId,
        state: MemberState,
        limit: u32,
    ) -> Result<Vec<RotationDevice>, LedgerError> {
        let select = device_rows(rotation).then(" AND member.state = ").value(state.as_str());
        let select = select.then(" ORDER BY member.since LIMIT ").value(i64::from(limit));
        self.database.rows(select).await?.iter().map(device).collect()
    }

    /// The rotation that holds the device with this accepted certificate, if the certificate is one to
    /// be replaced in it, and the device's slot.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn slot_of(
        &self,
        factory: FactoryId,
        certificate: Fingerprint,
        serial: &[u8],
    ) -> Result<Option<(Rotation, Slot)>, LedgerError> {
        // By the serial number, which has an index; the certificate tells which of several it is.
        let select = Statement::new(
            "SELECT member.rotation_id, member.state, member.since, member.ordinal, \
             member.credential_before, member.offered_at, credential.id AS credential_id, \
             credential.device_ca_id, credential.recorded_at, \
             device_ca.state AS ca_state, \
             (SELECT MIN(first.ordinal) FROM rotation_device first \
              WHERE first.rotation_id = member.rotation_id AND first.state = 'waiting') AS first \
             FROM credential \
             JOIN device ON device.id = credential.device_id \
             JOIN device_ca ON device_ca.id = credential.device_ca_id \
             JOIN rotation_device member ON member.device_id = credential.device_id \
             JOIN rotation ON rotation.id = member.rotation_id \
             WHERE credential.serial = $1 AND credential.state IN ('current', 'pending') \
             AND credential.sha256 = $2 AND device.factory_id = $3 \
             AND rotation.state IN ('preparing', 'running', 'paused') \
             AND member.state <> 'skipped' \
             ORDER BY CASE member.state WHEN 'confirmed' THEN 1 ELSE 0 END, \
             member.rotation_id DESC LIMIT 1",
        )
        .bind(serial)
        .bind(certificate.as_bytes())
        .bind(factory.0);
        let rows = self.database.rows(select).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let by_id = Statement::new(COLUMNS).then("WHERE rotation.id = ");
        let rotations = self.database.rows(by_id.value(row.integer("rotation_id")?)).await?;
        let rotation = rotations.first().map(rotation).transpose()?;
        let rotation = rotation.ok_or_else(|| LedgerError::corrupt("no such rotation"))?;
        let credential = row.integer("credential_id")?;
        let ca = DeviceCaId(row.integer("device_ca_id")?);
        let before = row.maybe_integer("credential_before")?;
        if rotation.aim().is_met_by(credential, ca, before) {
            return Ok(None);
        }
        let offered_at = row.maybe_integer("offered_at")?.unwrap_or(i64::MAX);
        let ordinal = row.integer("ordinal")?;
        let first = row.maybe_integer("first")?.unwrap_or(ordinal);
        let slot = Slot {
            state: member_state(row)?,
            since: UnixTime(row.integer("since")?),
            ordinal,
            // After a retry there are gaps between those that wait.
            ahead: (ordinal - first).min(rotation.counts.waiting - 1),
            issuer_disabled: row.text("ca_state")? == DeviceCaState::Disabled.as_str(),
            issued_since: row.integer("recorded_at")? > offered_at,
        };
        Ok(Some((rotation, slot)))
    }

    /// The Device CA that an active rotation wants a device to have a certificate of.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn rotation_target(
        &self,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<Option<DeviceCaId>, LedgerError> {
        let select = Statement::new(
            "SELECT rotation.target_ca_id FROM device \
             JOIN rotation_device member ON member.device_id = device.id \
             JOIN rotation ON rotation.id = member.rotation_id \
             WHERE device.factory_id = $1 AND device.name = $2 \
             AND rotation.state IN ('preparing', 'running', 'paused') \
             AND rotation.target_ca_id IS NOT NULL AND member.state <> 'skipped' \
             ORDER BY CASE member.state WHEN 'confirmed' THEN 1 ELSE 0 END, \
             rotation.id DESC LIMIT 1",
        );
        let select = select.bind(factory.0).bind(device.as_str());
        let rows = self.database.rows(select).await?;
        Ok(rows.first().map(|row| row.integer("target_ca_id")).transpose()?.map(DeviceCaId))
    }

    /// The Factories with an active rotation that has a target.
    pub(super) async fn factories_with_targets(&self) -> Result<HashSet<FactoryId>, LedgerError> {
        let select = Statement::new(
            "SELECT DISTINCT factory_id FROM rotation \
             WHERE state IN ('preparing', 'running', 'paused') AND target_ca_id IS NOT NULL",
        );
        let rows = self.database.rows(select).await?;
        rows.iter().map(|row| Ok(FactoryId(row.integer("factory_id")?))).collect()
    }

    pub(super) async fn rotations_of_device(
        &self,
        device: i64,
    ) -> Result<Vec<RotationOfDevice>, LedgerError> {
        let select = Statement::new(
            "SELECT rotation.name, member.state, member.since, member.reason, member.detail \
             FROM rotation_device member JOIN rotation ON rotation.id = member.rotation_id \
             WHERE member.device_id = $1 ORDER BY member.rotation_id DESC LIMIT 20",
        );
        let rows = self.database.rows(select.bind(device)).await?;
        let read = |row: &Row| {
            Ok(RotationOfDevice {
                rotation: row.text("name")?,
                state: member_state(row)?,
                since: UnixTime(row.integer("since")?),
                reason: row.maybe_text("reason")?,
                detail: row.maybe_text("detail")?,
            })
        };
        rows.iter().map(read).collect()
    }
}

fn device_rows(rotation: RotationId) -> Statement {
    Statement::new(
        "SELECT device.name, device.last_seen_at, member.ordinal, member.state, member.since, \
         member.reason, member.detail FROM rotation_device member \
         JOIN device ON device.id = member.device_id WHERE member.rotation_id = ",
    )
    .value(rotation.0)
}

fn by_name(factory: FactoryId, name: &RotationName) -> Statement {
    Statement::new(COLUMNS)
        .then("WHERE rotation.factory_id = ")
        .value(factory.0)
        .then(" AND rotation.name = ")
        .value(name.as_str())
}

fn device(row: &Row) -> Result<RotationDevice, LedgerError> {
    Ok(RotationDevice {
        name: row.text("name")?,
        ordinal: row.integer("ordinal")?,
        state: member_state(row)?,
        since: UnixTime(row.integer("since")?),
        reason: row.maybe_text("reason")?,
        detail: row.maybe_text("detail")?,
        last_seen_at: row.maybe_integer("last_seen_at")?.map(UnixTime),
    })
}

pub(super) fn member_state(row: &Row) -> Result<MemberState, LedgerError> {
    let state = row.text("state")?;
    MemberState::from_word(&state).ok_or(LedgerError::Corrupt(state))
}

pub(super) fn rotation(row: &Row) -> Result<Rotation, LedgerError> {
    let state = row.text("state")?;
    let ca = |column: &str| Ok::<_, LedgerError>(row.maybe_integer(column)?.map(DeviceCaId));
    Ok(Rotation {
        id: RotationId(row.integer("id")?),
        factory: FactoryId(row.integer("factory_id")?),
        name: RotationName::parse(&row.text("name")?).map_err(LedgerError::corrupt)?,
        state: RotationState::from_word(&state).ok_or(LedgerError::Corrupt(state))?,
        state_reason: row.text("state_reason")?,
        state_since: UnixTime(row.integer("state_since")?),
        plan: serde_json::from_str(&row.text("plan")?).map_err(LedgerError::corrupt)?,
        target: ca("target_ca_id")?,
        leaving: ca("leaving_ca_id")?,
        counts: Counts {
            waiting: row.integer("waiting")?,
            offered: row.integer("offered")?,
            issued: row.integer("issued")?,
            confirmed: row.integer("confirmed")?,
            failed: row.integer("failed")?,
            skipped: row.integer("skipped")?,
        },
        credit_at: row.integer("credit_at")?,
        canaries_left: row.integer("canaries_left")?,
        outcomes: Outcomes::from_text(&row.text("outcomes")?),
        created_by: row.text("created_by")?,
        created_at: UnixTime(row.integer("created_at")?),
    })
}

/// Writes what changes of a rotation.
pub(super) async fn write(
    transaction: &mut WriteTransaction,
    rotation: &Rotation,
) -> Result<(), LedgerError> {
    let counts = &rotation.counts;
    let update = Statement::new(
        "UPDATE rotation SET state = $1, state_reason = $2, state_since = $3, credit_at = $4, \
         canaries_left = $5, outcomes = $6, waiting = $7, offered = $8, issued = $9, \
         confirmed = $10, failed = $11, skipped = $12 WHERE id = $13",
    )
    .bind(rotation.state.as_str())
    .bind(rotation.state_reason.as_str())
    .bind(rotation.state_since.0)
    .bind(rotation.credit_at)
    .bind(rotation.canaries_left)
    .bind(rotation.outcomes.to_text())
    .bind(counts.waiting)
    .bind(counts.offered)
    .bind(counts.issued)
    .bind(counts.confirmed)
    .bind(counts.failed)
    .bind(counts.skipped)
    .bind(rotation.id.0);
    transaction.execute(update).await?;
    Ok(())
}

/// Writes the new state of some devices of a rotation.
pub(super) async fn write_members(
    transaction: &mut WriteTransaction,
    rotation: RotationId,
    devices: impl IntoIterator<Item = i64>,
    new: &NewState,
    now: UnixTime,
) -> Result<(), LedgerError> {
    let update = Statement::new(
        "UPDATE rotation_device SET state = $1, since = $2, reason = $3, detail = $4, \
         failures = failures + $5, tries = tries + $6 WHERE rotation_id = $7 AND device_id IN ",
    )
    .bind(new.state.as_str())
    .bind(now.0)
    .bind(new.reason.map(MemberReason::as_str))
    .bind(new.detail.as_deref())
    .bind(i64::from(new.failed))
    .bind(i64::from(new.state == MemberState::Waiting))
    .bind(rotation.0)
    .tuple(devices.into_iter().map(Value::from));
    transaction.execute(update).await?;
    Ok(())
}
