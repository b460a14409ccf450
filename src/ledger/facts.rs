//! What a transaction of the writer must know of the ledger, read at once for all its work.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::database::{Row, Statement, Value};
use super::rotations::member_state;
use super::transaction::WriteTransaction;
use super::work::{Shown, Work};
use super::{LedgerError, rotations};
use crate::clock::UnixTime;
use crate::model::rotation::{MemberState, Rotation, RotationId};
use crate::model::{
    Allowance, BootstrapCaId, CredentialState, DeviceCaId, DeviceCaState, DeviceName, FactoryId,
    HeldState, KnownCredential, KnownDevice,
};
use crate::pki::Fingerprint;

pub(super) type DeviceKey = (FactoryId, DeviceName);

/// The ledger as it is in the transaction; the work of the same transaction changes it as it goes.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) devices: HashMap<DeviceKey, KnownDevice>,
    pub(super) cas: HashMap<DeviceCaId, DeviceCaState>,
    /// Those that are trusted; read only where somebody comes by one.
    pub(super) bootstrap_cas: HashSet<BootstrapCaId>,
    pub(super) held: HashMap<DeviceKey, Vec<HeldFacts>>,
    /// Which device has a name for people.
    pub(super) aliases: HashMap<(FactoryId, String), DeviceName>,
    /// When a device was last seen, by its row.
    pub(super) last_seen: HashMap<i64, i64>,
    /// The key that a device has said it will use next, by its row.
    pub(super) next_keys: HashMap<i64, Fingerprint>,
    /// The active rotations that a device is in, and its latest if that ended before it had switched,
    /// the latest first, by its row.
    pub(super) members: HashMap<i64, Vec<MemberFacts>>,
    /// Those rotations.
    pub(super) rotations: HashMap<RotationId, Rotation>,
    /// Which events of failed steps are known, by the device's row and the device's own id.
    pub(super) told: HashSet<(i64, String)>,
}

/// A held request as the ledger knows it.
pub(super) struct HeldFacts {
    pub(super) id: i64,
    pub(super) request: Fingerprint,
    pub(super) operation: String,
    pub(super) label: Option<String>,
    pub(super) state: HeldState,
    pub(super) decided_at: Option<UnixTime>,
}

/// A device's part in a rotation.
pub(super) struct MemberFacts {
    pub(super) rotation: RotationId,
    pub(super) ordinal: i64,
    pub(super) state: MemberState,
    pub(super) credential_before: Option<i64>,
    pub(super) failed_before: bool,
}

impl Facts {
    pub(super) async fn read(
        transaction: &mut WriteTransaction,
        works: &[Work],
    ) -> Result<Self, LedgerError> {
        let mut facts = Self::default();
        let shown = works.iter().filter_map(Work::shown);
        let askers = shown.map(|shown| (shown.factory, shown.device));
        let judged = works.iter().filter(|work| !work.only_tells()).filter_map(Work::device);
        for (factory, names) in by_factory(judged.chain(askers)) {
            facts.read_devices(transaction, factory, names).await?;
        }
        // Of whoever only tells something its certificates do not matter, and most of it is told by
        // those that have many.
        let told = works.iter().filter(|work| work.only_tells()).filter_map(Work::device);
        let known =
            |factory, device: &DeviceName| facts.devices.contains_key(&(factory, device.clone()));
        let others = by_factory(told.filter(|(factory, device)| !known(*factory, device)));
        for (factory, names) in others {
            facts.read_ids(transaction, factory, names).await?;
        }
        facts.read_told(transaction, works).await?;
        facts.read_members(transaction).await?;
        for shown in works.iter().filter_map(Work::shown) {
            facts.read_shown(transaction, &shown).await?;
        }
        if works.iter().any(Work::is_newcomers) {
            facts.read_bootstrap_cas(transaction).await?;
        }
        if works.iter().any(|work| work.device().is_some()) {
            facts.read_cas(transaction).await?;
        }
        for (factory, alias) in works.iter().filter_map(Work::alias) {
            facts.read_alias(transaction, factory, alias).await?;
        }
        let holds = works.iter().filter(|work| matches!(work, Work::Hold { .. }));
        let held: HashSet<_> = holds.filter_map(Work::device).collect();
        for (factory, device) in held {
            facts.read_held(transaction, factory, device).await?;
        }
        Ok(facts)
    }

    async fn read_held(
        &mut self,
        transaction: &mut WriteTransaction,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<(), LedgerError> {
        let select = Statement::new(
            "SELECT id, request_sha256, operation, label, state, decided_at FROM held_request \
             WHERE factory_id = $1 AND device = $2 ORDER BY id",
        );
        let select = select.bind(factory.0).bind(device.as_str());
        let mut known = Vec::new();
        for row in transaction.rows(select).await? {
            let state = row.text("state")?;
            known.push(HeldFacts {
                id: row.integer("id")?,
                request: fingerprint(&row, "request_sha256")?,
                operation: row.text("operation")?,
                label: row.maybe_text("label")?,
                decided_at: row.maybe_integer("decided_at")?.map(UnixTime),
                state: HeldState::from_word(&state).ok_or(LedgerError::Corrupt(state))?,
            });
        }
        self.held.insert((factory, device.clone()), known);
        Ok(())
    }

    async fn read_alias(
        &mut self,
        transaction: &mut WriteTransaction,
        factory: FactoryId,
        alias: &str,
    ) -> Result<(), LedgerError> {
        let select = Statement::new("SELECT name FROM device WHERE factory_id = $1 AND alias = $2");
        for row in transaction.rows(select.bind(factory.0).bind(alias)).await? {
            let name = DeviceName::parse(&row.text("name")?).map_err(LedgerError::corrupt)?;
            self.aliases.insert((factory, alias.to_owned()), name);
        }
        Ok(())
    }

    async fn read_devices(
        &mut self,
        transaction: &mut WriteTransaction,
        factory: FactoryId,
        names: BTreeSet<&str>,
    ) -> Result<(), LedgerError> {
        let select = Statement::new(
            "SELECT device.id AS device_id, device.name, device.allowed_once, device.allowed_sha256, \
             device.denied_at, device.introduced_by, device.last_seen_at, device.next_key, \
             credential.id AS credential_id, credential.sha256, credential.public_key_sha256, \
             credential.state, credential.recorded_at \
             FROM device LEFT JOIN credential ON credential.device_id = device.id \
             AND credential.state IN ('current', 'pending') \
             WHERE device.factory_id = $1 AND device.name IN ",
        )
        .bind(factory.0)
        .tuple(names.into_iter().map(Value::from))
        .then(" ORDER BY credential.id");
        for row in transaction.rows(select).await? {
            let id = row.integer("device_id")?;
            let name = DeviceName::parse(&row.text("name")?).map_err(LedgerError::corrupt)?;
            let device = self
                .devices
                .entry((factory, name))
                .or_insert_with(|| KnownDevice { id, ..KnownDevice::default() });
            device.allowance = allowance(&row)?;
            device.denied = row.maybe_integer("denied_at")?.is_some();
            device.introduced_by = maybe_fingerprint(&row, "introduced_by")?;
            if let Some(credential) = known_credential(&row)? {
                device.credentials.push(credential);
            }
            if let Some(next) = maybe_fingerprint(&row, "next_key")? {
                self.next_keys.insert(id, next);
            }
            if let Some(seen) = row.maybe_integer("last_seen_at")? {
                self.last_seen.insert(id, seen);
            }
        }
        Ok(())
    }

    async fn read_ids(
        &mut self,
        transaction: &mut WriteTransaction,
        factory: FactoryId,
        names: BTreeSet<&str>,
    ) -> Result<(), LedgerError> {
        let select =
            Statement::new("SELECT id, name FROM device WHERE factory_id = $1 AND name IN ")
                .bind(factory.0)
                .tuple(names.into_iter().map(Value::from));
        for row in transaction.rows(select).await? {
            let name = DeviceName::parse(&row.text("name")?).map_err(LedgerError::corrupt)?;
            let device = KnownDevice { id: row.integer("id")?, ..KnownDevice::default() };
            self.devices.insert((factory, name), device);
        }
        Ok(())
    }

    async fn read_told(
        &mut self,
        transaction: &mut WriteTransaction,
        works: &[Work],
    ) -> Result<(), LedgerError> {
        let mut failed = Vec::new();
        for work in works {
            let Work::Tell { device, events, .. } = work else { continue };
            let Some(KnownDevice { id, .. }) = self.devices.get(device) else { continue };
            let of_failed = events.iter().filter(|event| event.is_failed_step());
            failed.extend(of_failed.map(|event| [(*id).into(), event.id.as_str().into()]));
        }
        if failed.is_empty() {
            return Ok(());
        }
        // So that SQLite looks each up, where `IN (VALUES …)` would read all events there are.
        let select = Statement::new("WITH failed (device_id, id) AS (VALUES ").tuples(failed).then(
            ") SELECT known.device_id, known.id FROM failed JOIN device_event known \
             ON known.device_id = failed.device_id AND known.id = failed.id",
        );
        for row in transaction.rows(select).await? {
            self.told.insert((row.integer("device_id")?, row.text("id")?));
        }
        Ok(())
    }

    /// Adds what the ledger knows of a certificate or key that is not among the accepted ones: at
    /// most two credentials, however many the device once had.
    async fn read_shown(
        &mut self,
        transaction: &mut WriteTransaction,
        shown: &Shown<'_>,
    ) -> Result<(), LedgerError> {
        let Some(device) = self.devices.get_mut(&(shown.factory, shown.device.clone())) else {
            return Ok(());
        };
        let mut known = device.credentials.iter();
        if known.any(|known| Some(known.fingerprint) == shown.certificate) {
            return Ok(());
        }
        let select = Statement::new(
            "SELECT id AS credential_id, sha256, public_key_sha256, state, recorded_at FROM credential \
             WHERE device_id = $1 AND sha256 = $2 UNION \
             SELECT id, sha256, public_key_sha256, state, recorded_at FROM credential WHERE id = \
             (SELECT MAX(id) FROM credential WHERE device_id = $1 AND public_key_sha256 = $3)",
        )
        .bind(device.id)
        .bind(shown.certificate.as_ref().map_or(&[][..], Fingerprint::as_bytes))
        .bind(shown.key.as_bytes());
        for row in transaction.rows(select).await? {
            let found = known_credential(&row)?.into_iter();
            let new = found.filter(|new| device.credentials.iter().all(|one| one.id != new.id));
            device.credentials.extend(new.collect::<Vec<_>>());
        }
        device.credentials.sort_unstable_by_key(|known| known.id);
        Ok(())
    }

    async fn read_members(
        &mut self,
        transaction: &mut WriteTransaction,
    ) -> Result<(), LedgerError> {
        if self.devices.is_empty() {
            return Ok(());
        }
        let select = Statement::new(
            "SELECT member.device_id, member.rotation_id, member.ordinal, member.state, \
             member.credential_before, member.failures FROM rotation_device member \
             JOIN rotation ON rotation.id = member.rotation_id \
             WHERE member.device_id IN ",
        )
        .tuple(self.devices.values().map(|device| device.id.into()))
        .then(
            " AND ((rotation.state IN ('preparing', 'running', 'paused') \
             AND member.state <> 'skipped') \
             OR (member.state IN ('offered', 'issued', 'failed') AND member.rotation_id = \
             (SELECT MAX(latest.rotation_id) FROM rotation_device latest \
             WHERE latest.device_id = member.device_id AND latest.state <> 'skipped'))) \
             ORDER BY member.rotation_id DESC",
        );
        for row in transaction.rows(select).await? {
            let member = MemberFacts {
                rotation: RotationId(row.integer("rotation_id")?),
                ordinal: row.integer("ordinal")?,
                state: member_state(&row)?,
                credential_before: row.maybe_integer("credential_before")?,
                failed_before: row.integer("failures")? > 0,
            };
            self.members.entry(row.integer("device_id")?).or_default().push(member);
        }
        let rotations: BTreeSet<_> =
            self.members.values().flatten().map(|member| member.rotation).collect();
        if rotations.is_empty() {
            return Ok(());
        }
        let select = Statement::new(rotations::COLUMNS)
            .then("WHERE rotation.id IN ")
            .tuple(rotations.into_iter().map(|id| id.0.into()));
        for row in transaction.rows(select).await? {
            let rotation = rotations::rotation(&row)?;
            self.rotations.insert(rotation.id, rotation);
        }
        Ok(())
    }

    async fn read_bootstrap_cas(
        &mut self,
        transaction: &mut WriteTransaction,
    ) -> Result<(), LedgerError> {
        for row in transaction.rows(Statement::new("SELECT id FROM bootstrap_ca")).await? {
            self.bootstrap_cas.insert(BootstrapCaId(row.integer("id")?));
        }
        Ok(())
    }

    async fn read_cas(&mut self, transaction: &mut WriteTransaction) -> Result<(), LedgerError> {
        let rows = transaction.rows(Statement::new("SELECT id, state FROM device_ca")).await?;
        for row in rows {
            let state = row.text("state")?;
            let state = DeviceCaState::from_word(&state).ok_or(LedgerError::Corrupt(state))?;
            self.cas.insert(DeviceCaId(row.integer("id")?), state);
        }
        Ok(())
    }
}

fn by_factory<'a>(
    devices: impl IntoIterator<Item = (FactoryId, &'a DeviceName)>,
) -> HashMap<FactoryId, BTreeSet<&'a str>> {
    let mut names: HashMap<FactoryId, BTreeSet<&str>> = HashMap::new();
    for (factory, device) in devices {
        names.entry(factory).or_default().insert(device.as_str());
    }
    names
}

pub(super) fn known_credential(row: &Row) -> Result<Option<KnownCredential>, LedgerError> {
    let Some(id) = row.maybe_integer("credential_id")? else {
        return Ok(None);
    };
    let state = row.text("state")?;
    Ok(Some(KnownCredential {
        id,
        fingerprint: fingerprint(row, "sha256")?,
        key: fingerprint(row, "public_key_sha256")?,
        state: CredentialState::from_word(&state).ok_or(LedgerError::Corrupt(state))?,
        recorded_at: UnixTime(row.integer("recorded_at")?),
    }))
}

fn allowance(row: &Row) -> Result<Option<Allowance>, LedgerError> {
    if row.integer("allowed_once")? == 0 {
        return Ok(None);
    }
    let one = maybe_fingerprint(row, "allowed_sha256")?;
    Ok(Some(one.map_or(Allowance::Any, Allowance::Certificate)))
}

pub(super) fn maybe_fingerprint(
    row: &Row,
    column: &str,
) -> Result<Option<Fingerprint>, LedgerError> {
    row.maybe_bytes(column)?.map(|_| fingerprint(row, column)).transpose()
}

pub(super) fn fingerprint(row: &Row, column: &str) -> Result<Fingerprint, LedgerError> {
    Fingerprint::from_bytes(&row.bytes(column)?)
        .ok_or_else(|| LedgerError::corrupt(format!("a {column} of another length")))
}
