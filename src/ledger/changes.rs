//! What a transaction of the writer will write: one multi-row statement a table.

use std::collections::{BTreeSet, HashMap};

use super::LedgerError;
use super::database::{Statement, Value};
use super::facts::Facts;
use super::rotations::{self, NewState};
use super::transaction::WriteTransaction;
use crate::clock::UnixTime;
use crate::model::rotation::RotationId;
use crate::model::{CredentialState, DeviceMetadata, PENDING_LIMIT};
use crate::pki::Fingerprint;

/// How many events of a device are kept.
const EVENTS_KEPT: i64 = 200;

/// The devices of a rotation that go to the same state for the same reason.
type Alike = HashMap<(RotationId, NewState), Vec<i64>>;

#[derive(Default)]
pub(super) struct Changes {
    pub(super) devices: Vec<[Value; 9]>,
    pub(super) credentials: Vec<[Value; 13]>,
    pub(super) enrolments: Vec<[Value; 8]>,
    pub(super) states: HashMap<i64, CredentialState>,
    pub(super) used: BTreeSet<i64>,
    pub(super) seen: BTreeSet<i64>,
    pub(super) allowances_used: BTreeSet<i64>,
    pub(super) held: Vec<(i64, [Value; 10])>,
    /// Devices with the keys of the bootstrap certificates that they came by.
    pub(super) introduced: Vec<(i64, Fingerprint)>,
    pub(super) forgotten: BTreeSet<i64>,
    /// Denied devices that are registered anew.
    pub(super) registered_anew: Vec<(i64, DeviceMetadata)>,
    /// Devices that an operator let back, with the credential that they came back with.
    pub(super) let_back: Vec<(i64, i64)>,
    /// The new states of devices in rotations.
    pub(super) members: HashMap<(RotationId, i64), NewState>,
    /// Devices with the keys that they say they will use next.
    pub(super) announced: Vec<(i64, Fingerprint)>,
    pub(super) events: Vec<[Value; 11]>,
    /// Devices that told events, with the number of the last.
    pub(super) told: HashMap<i64, i64>,
    /// Rotations that have changed; what they are now is among the facts.
    pub(super) rotations: BTreeSet<RotationId>,
}

impl Changes {
    pub(super) async fn write(
        self,
        transaction: &mut WriteTransaction,
        facts: &Facts,
        now: UnixTime,
    ) -> Result<(), LedgerError> {
        for ((rotation, state), devices) in alike(self.members) {
            rotations::write_members(transaction, rotation, devices, &state, now).await?;
        }
        for rotation in self.rotations.iter().filter_map(|id| facts.rotations.get(id)) {
            rotations::write(transaction, rotation).await?;
        }
        let into = "INSERT INTO device (id, factory_id, name, allowed_once, registered_at, last_seen_at, \
             alias, device_group, hardware_id) VALUES ";
        transaction.insert(into, self.devices, "").await?;
        for (id, metadata) in self.registered_anew {
            transaction.execute(register_anew(id, &metadata)).await?;
        }
        let into = "INSERT INTO credential (id, device_id, device_ca_id, state, sha256, \
             public_key_sha256, certificate, serial, key_algorithm, not_after, recorded_at, state_since, first_used_at) \
             VALUES ";
        transaction.insert(into, self.credentials, "").await?;
        let into = "INSERT INTO enrolment (id, credential_id, serial, operation, label, \
             presented_sha256, address, at) VALUES ";
        transaction.insert(into, self.enrolments, "").await?;
        for state in [CredentialState::Superseded, CredentialState::Current] {
            let ids = self.states.iter().filter(|(_, to)| **to == state).map(|(id, _)| *id);
            let change =
                Statement::new("UPDATE credential SET state = $1, state_since = $2 WHERE id IN ")
                    .bind(state.as_str())
                    .bind(now.0);
            update(transaction, change, ids.collect()).await?;
        }
        let now = now.0;
        for (device, credential) in self.let_back {
            transaction.execute(give_back_pendings(device, credential, now)).await?;
        }
        for (device, key) in self.announced {
            let update =
                Statement::new("UPDATE device SET next_key = $1, next_key_at = $2 WHERE id = $3");
            transaction.execute(update.bind(key.as_bytes()).bind(now).bind(device)).await?;
        }
        keep_events(transaction, self.events, self.told).await?;
        // The device uses the key that it had announced.
        let announced = "UPDATE device SET next_key = NULL, next_key_at = NULL \
             WHERE next_key IS NOT NULL AND EXISTS (SELECT 1 FROM credential \
             WHERE credential.device_id = device.id \
             AND credential.public_key_sha256 = device.next_key AND credential.id IN ";
        if !self.used.is_empty() {
            let used = self.used.iter().map(|id| Value::from(*id));
            let announced = Statement::new(announced).tuple(used).then(")");
            transaction.execute(announced).await?;
        }
        let used = "UPDATE credential SET first_used_at = COALESCE(first_used_at, $1) WHERE id IN ";
        update(transaction, Statement::new(used).bind(now), self.used).await?;
        let seen = "UPDATE device SET last_seen_at = $1 WHERE id IN ";
        update(transaction, Statement::new(seen).bind(now), self.seen).await?;
        let allowed = "UPDATE device SET allowed_once = 0, allowed_sha256 = NULL, \
             denied_at = NULL WHERE id IN ";
        update(transaction, Statement::new(allowed), self.allowances_used).await?;
        for (device, key) in self.introduced {
            let update = Statement::new("UPDATE device SET introduced_by = $1 WHERE id = $2");
            transaction.execute(update.bind(key.as_bytes()).bind(device)).await?;
        }
        // First: what takes the place of a forgotten request is for the same bytes.
        let held = self.held.into_iter().filter(|(id, _)| !self.forgotten.contains(id));
        let held: Vec<_> = held.map(|(_, row)| row).collect();
        let forget = Statement::new("DELETE FROM held_request WHERE id IN ");
        update(transaction, forget, self.forgotten).await?;
        let into = "INSERT INTO held_request (id, factory_id, device, request_sha256, operation, \
             key_algorithm, state, asked_at, decided_at, label) VALUES ";
        Ok(transaction.insert(into, held, "").await?)
    }
}

/// What a device was given before it was denied is as good as the credential that it comes back with, if
/// that was the one in use: an agent in the middle of its switch goes on with it, and with nothing else.
fn give_back_pendings(device: i64, credential: i64, now: i64) -> Statement {
    Statement::new(
        "UPDATE credential SET state = 'pending', state_since = $1 WHERE id IN ( \
         SELECT id FROM credential WHERE device_id = $2 AND id > $3 AND state = 'denied' \
         AND first_used_at IS NULL AND NOT EXISTS (SELECT 1 FROM credential later \
         WHERE later.device_id = $2 AND later.id > $3 AND later.first_used_at IS NOT NULL) \
         ORDER BY id DESC LIMIT $4)",
    )
    .bind(now)
    .bind(device)
    .bind(credential)
    .bind(i64::try_from(PENDING_LIMIT).unwrap_or(i64::MAX))
}

/// Gathers the devices whose new state is written by one statement.
fn alike(members: HashMap<(RotationId, i64), NewState>) -> Alike {
    let mut alike = Alike::new();
    for ((rotation, device), state) in members {
        alike.entry((rotation, state)).or_default().push(device);
    }
    alike
}

fn register_anew(id: i64, metadata: &DeviceMetadata) -> Statement {
    Statement::new(
        "UPDATE device SET denied_at = NULL, allowed_once = 0, allowed_sha256 = NULL, \
         alias = $1, device_group = $2, \
         hardware_id = $3 WHERE id = $4",
    )
    .bind(metadata.alias.as_deref())
    .bind(metadata.group.as_deref())
    .bind(metadata.hardware_id.as_deref())
    .bind(id)
}

/// What a device has said before, by the same id, is not kept twice.
async fn keep_events(
    transaction: &mut WriteTransaction,
    events: Vec<[Value; 11]>,
    told: HashMap<i64, i64>,
) -> Result<(), LedgerError> {
    let into = "INSERT INTO device_event (device_id, id, number, at, device_time, rotation, step, \
                target, version, success, details) VALUES ";
    transaction.insert(into, events, " ON CONFLICT (device_id, id) DO NOTHING").await?;
    for (device, number) in told {
        let forget = Statement::new(
            "DELETE FROM device_event WHERE device_id = $1 AND number <= (SELECT number FROM \
             device_event WHERE device_id = $1 AND number <= $2 ORDER BY number DESC LIMIT 1 OFFSET $3)",
        );
        transaction.execute(forget.bind(device).bind(number).bind(EVENTS_KEPT)).await?;
    }
    Ok(())
}

async fn update(
    transaction: &mut WriteTransaction,
    update: Statement,
    ids: BTreeSet<i64>,
) -> Result<(), LedgerError> {
    if !ids.is_empty() {
        transaction.execute(update.tuple(ids.into_iter().map(Value::from))).await?;
    }
    Ok(())
}
