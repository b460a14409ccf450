//! How a rotation starts: which devices it takes, gathered in chunks so that nothing else waits long.

use serde::Serialize;

use super::super::change::change;
use super::super::database::{Statement, Value};
use super::super::transaction::WriteTransaction;
use super::super::{ChangeError, ChangeRefused, Ledger, LedgerError};
use super::acts::enter;
use super::{by_name, rotation, write};
use crate::clock::UnixTime;
use crate::model::rotation::{
    Counts, MemberReason, MemberState, Outcomes, Plan, Rotation, RotationId, RotationName,
    RotationState,
};
use crate::model::{DeviceCaId, DeviceCaKind, DeviceCaState, DeviceName, FactoryId};
use crate::pki::Fingerprint;

/// How many devices one transaction looks at.
const CHUNK: i64 = 5000;
/// How many names go into one statement.
const NAMES: usize = 1000;
/// The ordinals of devices that are left out are above this: they take no place among the slots.
const LEFT_OUT: i64 = 1_000_000_000_000;
/// How many devices a dry run or a refusal names.
const SHOWN: i64 = 20;

/// Which devices a rotation takes; all that is said must hold.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those with an accepted credential of this Device CA.
    pub device_ca: Option<DeviceCaId>,
    /// Those in this group.
    pub group: Option<String>,
    /// Those whose certificate in use ends before this.
    pub expires_before: Option<UnixTime>,
    /// Those whose certificate in use has a key of this kind.
    pub key_algorithm: Option<String>,
    /// Those of these names; `None`: any.
    pub named: Option<Vec<DeviceName>>,
    /// Those that have no certificate of it in use; otherwise they are left out.
    pub not_on: Option<DeviceCaId>,
}

/// A rotation to be started.
#[derive(Clone, Debug)]
pub struct NewRotation {
    /// In which Factory.
    pub factory: FactoryId,
    /// Its name.
    pub name: RotationName,
    /// What was asked for, as the ledger keeps it.
    pub plan: Plan,
    /// Which devices.
    pub wanted: Wanted,
    /// The Device CA that they shall have a certificate of.
    pub target: Option<DeviceCaId>,
    /// What tells the same request when it comes again, and SHA-256 of what came with it.
    pub request: Option<(String, Fingerprint)>,
}

/// What became of a request for a rotation.
pub enum Started {
    /// It has started.
    New(Box<Rotation>),
    /// The same request had started it before.
    Before(Box<Rotation>),
}

/// What a rotation would do.
#[derive(Debug, Serialize)]
pub struct DryRun {
    /// How many devices it would take.
    pub devices: i64,
    /// How many it would leave out because another rotation has them.
    pub held: i64,
    /// How many it would leave out because they use a certificate of the target already.
    pub on_target: i64,
    /// Some of those that it would take.
    pub some: Vec<String>,
}

impl Ledger {
    /// Tells what a rotation would do.
    ///
    /// # Errors
    /// When a device or the group is unknown, or the ledger fails.
    pub async fn dry_run(
        &self,
        factory: FactoryId,
        wanted: &Wanted,
    ) -> Result<DryRun, ChangeError> {
        // Ended before the counting, which may take a while and needs no lock.
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        check_wanted(&mut transaction, factory, wanted).await?;
        drop(transaction);
        let mut run = DryRun { devices: 0, held: 0, on_target: 0, some: Vec::new() };
        for part in wanted.parts() {
            let all = (0, i64::MAX);
            let count = Statement::new("SELECT reason, COUNT(*) AS count FROM (");
            let count =
                wanted.choose(count, factory, all, part).then(") AS chosen GROUP BY reason");
            for row in self.database.rows(count).await? {
                let count = row.integer("count")?;
                match row.maybe_text("reason")?.as_deref() {
                    None => run.devices += count,
                    Some("held") => run.held += count,
                    Some(_) => run.on_target += count,
                }
            }
            let room = SHOWN - i64::try_from(run.some.len()).unwrap_or(SHOWN);
            let some = wanted
                .choose(Statement::new("SELECT name FROM ("), factory, all, part)
                .then(") AS chosen WHERE reason IS NULL ORDER BY seen DESC, id LIMIT ")
                .value(room);
            for row in self.database.rows(some).await? {
                run.some.push(row.text("name")?);
            }
        }
        Ok(run)
    }

    /// Starts a rotation: all of it or nothing. Of a large fleet the first devices are gathered when
    /// this returns, the others by [`Self::advance_rotation`].
    ///
    /// # Errors
    /// When its name is taken, the target does not sign, a device or the group is unknown, no device
    /// is wanted, or the ledger fails.
    pub async fn start_rotation(
        &self,
        new: NewRotation,
        actor: &str,
    ) -> Result<Started, ChangeError> {
        let (factory, name) = (new.factory, new.name.to_string());
        let done = self.try_start_rotation(new, actor).await;
        self.recorded(done, Some(factory), actor, "start-rotation", name).await
    }

    async fn try_start_rotation(
        &self,
        new: NewRotation,
        actor: &str,
    ) -> Result<Started, ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        if let Some(before) = started_before(&mut transaction, &new).await? {
            return Ok(Started::Before(Box::new(before)));
        }
        if !transaction.rows(by_name(new.factory, &new.name)).await?.is_empty() {
            return Err(ChangeRefused::RotationExists(new.name.to_string()).into());
        }
        check_target(&mut transaction, new.factory, new.target).await?;
        check_wanted(&mut transaction, new.factory, &new.wanted).await?;
        let mut started = insert(&mut transaction, &new, actor).await?;
        for part in new.wanted.parts() {
            take_chunk(&mut transaction, &mut started, &new.wanted, part).await?;
        }
        if started.state == RotationState::Running && started.counts.open() == 0 {
            let skipped = started.counts.skipped;
            return Err(ChangeRefused::NothingToRotate { skipped }.into());
        }
        let detail = format!(
            "{} devices so far, {} a minute; {}",
            started.counts.waiting, new.plan.pace.per_minute, new.plan.reason
        );
        let subject = new.name.to_string();
        transaction.note(change(new.factory, actor, "start-rotation", subject, detail));
        if new.target.is_some() {
            transaction.change_snapshot();
        }
        transaction.commit().await?;
        Ok(Started::New(Box::new(started)))
    }
}

async fn started_before(
    transaction: &mut WriteTransaction,
    new: &NewRotation,
) -> Result<Option<Rotation>, ChangeError> {
    let Some((key, sha256)) = &new.request else {
        return Ok(None);
    };
    let select = Statement::new(
        "SELECT name, request_sha256 FROM rotation WHERE factory_id = $1 AND request_key = $2",
    );
    let rows = transaction.rows(select.bind(new.factory.0).bind(key.as_str())).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let name = row.text("name")?;
    if row.bytes("request_sha256")? != sha256.as_bytes() {
        return Err(ChangeRefused::RequestKeyReused(name).into());
    }
    let name = RotationName::parse(&name).map_err(LedgerError::corrupt)?;
    let rows = transaction.rows(by_name(new.factory, &name)).await?;
    Ok(rows.first().map(rotation).transpose()?)
}

async fn check_target(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    target: Option<DeviceCaId>,
) -> Result<(), ChangeError> {
    let Some(target) = target else {
        return Ok(());
    };
    let select = Statement::new(
        "SELECT id FROM device_ca WHERE id = $1 AND factory_id = $2 AND state = $3 AND kind = $4",
    )
    .bind(target.0)
    .bind(factory.0)
    .bind(DeviceCaState::Enabled.as_str())
    .bind(DeviceCaKind::Online.as_str());
    if transaction.rows(select).await?.is_empty() {
        return Err(ChangeRefused::TargetDoesNotSign.into());
    }
    Ok(())
}

/// Whoever is named must be there: a typing error must not leave a device out.
async fn check_wanted(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    wanted: &Wanted,
) -> Result<(), ChangeError> {
    if let Some(group) = &wanted.group {
        let select = Statement::new(
            "SELECT id FROM device WHERE factory_id = $1 AND device_group = $2 LIMIT 1",
        );
        let select = select.bind(factory.0).bind(group.as_str());
        if transaction.rows(select).await?.is_empty() {
            return Err(ChangeRefused::NoSuchGroup(group.clone()).into());
        }
    }
    let mut unknown = Vec::new();
    for names in wanted.named.iter().flat_map(|names| names.chunks(NAMES)) {
        let select = Statement::new("SELECT name FROM device WHERE factory_id = $1 AND name IN ")
            .bind(factory.0)
            .tuple(names.iter().map(|name| name.as_str().into()));
        let rows = transaction.rows(select).await?;
        let known: Vec<_> = rows.iter().map(|row| row.text("name")).collect::<Result<_, _>>()?;
        let is_unknown = |name: &&DeviceName| !known.iter().any(|known| known == name.as_str());
        unknown.extend(names.iter().filter(is_unknown).map(ToString::to_string));
    }
    if !unknown.is_empty() {
        let count = unknown.len();
        unknown.truncate(usize::try_from(SHOWN).unwrap_or(0));
        return Err(ChangeRefused::NoSuchDevices { count, devices: unknown }.into());
    }
    Ok(())
}

async fn insert(
    transaction: &mut WriteTransaction,
    new: &NewRotation,
    actor: &str,
) -> Result<Rotation, ChangeError> {
    let now = UnixTime::now();
    let started = Rotation {
        id: RotationId(transaction.next_id()),
        factory: new.factory,
        name: new.name.clone(),
        state: RotationState::Preparing,
        state_reason: String::new(),
        state_since: now,
        plan: new.plan.clone(),
        target: new.target,
        leaving: new.wanted.device_ca,
        counts: Counts::default(),
        credit_at: now.0 * 1000,
        canaries_left: 0,
        outcomes: Outcomes::default(),
        created_by: actor.to_owned(),
        created_at: now,
    };
    let (key, sha256) = new.request.as_ref().map_or((None, None), |(key, sha256)| {
        (Some(key.as_str()), Some(sha256.as_bytes().to_vec()))
    });
    let plan = serde_json::to_string(&new.plan).map_err(LedgerError::corrupt)?;
    let insert = Statement::new(
        "INSERT INTO rotation (id, factory_id, name, state, state_reason, state_since, plan, \
         target_ca_id, leaving_ca_id, request_key, request_sha256, created_by, created_at, \
         prepared_to, credit_at, canaries_left, outcomes, waiting, offered, issued, confirmed, \
         failed, skipped) VALUES ",
    )
    .tuple([
        started.id.0.into(),
        started.factory.0.into(),
        started.name.as_str().into(),
        started.state.as_str().into(),
        "".into(),
        now.0.into(),
        plan.into(),
        started.target.map(|ca| ca.0).into(),
        started.leaving.map(|ca| ca.0).into(),
        key.into(),
        Value::Bytes(sha256),
        actor.into(),
        now.0.into(),
        0.into(),
        started.credit_at.into(),
        0.into(),
        "".into(),
        0.into(),
        0.into(),
        0.into(),
        0.into(),
        0.into(),
        0.into(),
    ]);
    transaction.execute(insert).await?;
    Ok(started)
}

/// Looks at some more devices, or at those that are named, and takes those that are wanted. After the
/// last the rotation runs.
pub(super) async fn take_chunk(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
    wanted: &Wanted,
    part: Option<&[DeviceName]>,
) -> Result<(), LedgerError> {
    let (range, last) = match part {
        Some(_) => ((0, i64::MAX), true),
        None => next_range(transaction, rotation).await?,
    };
    let left_out = LEFT_OUT + rotation.counts.skipped;
    let taken = rotation.counts.total() - rotation.counts.skipped;
    let insert = Statement::new(
        "INSERT INTO rotation_device (rotation_id, device_id, ordinal, state, since, reason, \
         credential_before) SELECT CAST(",
    )
    .value(rotation.id.0)
    .then(" AS BIGINT), chosen.id, CASE WHEN chosen.reason IS NULL THEN CAST(")
    .value(taken)
    .then(" AS BIGINT) ELSE CAST(")
    .value(left_out)
    .then(
        " AS BIGINT) END + ROW_NUMBER() OVER (PARTITION BY CASE WHEN chosen.reason IS NULL \
         THEN 0 ELSE 1 END ORDER BY chosen.seen DESC, chosen.id), \
         CASE WHEN chosen.reason IS NULL THEN 'waiting' ELSE 'skipped' END, CAST(",
    )
    .value(UnixTime::now().0)
    .then(" AS BIGINT), chosen.reason, chosen.credential FROM (");
    let insert = wanted.choose(insert, rotation.factory, range, part).then(") AS chosen");
    transaction.execute(insert).await?;
    let count = Statement::new(
        "SELECT state, COUNT(*) AS count FROM rotation_device \
         WHERE rotation_id = $1 AND ((state = 'waiting' AND ordinal > $2) \
         OR (state = 'skipped' AND ordinal > $3)) GROUP BY state",
    );
    let count = count.bind(rotation.id.0).bind(taken).bind(left_out);
    for row in transaction.rows(count).await? {
        *rotation.counts.of(super::member_state(&row)?) += row.integer("count")?;
    }
    let prepared = Statement::new("UPDATE rotation SET prepared_to = $1 WHERE id = $2");
    transaction.execute(prepared.bind(range.1).bind(rotation.id.0)).await?;
    if last {
        begin_to_run(transaction, rotation).await?;
    }
    write(transaction, rotation).await
}

async fn begin_to_run(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
) -> Result<(), LedgerError> {
    rotation.canaries_left = open_canaries(transaction, rotation).await?;
    enter(rotation, RotationState::Running, "");
    Ok(())
}

/// How many canaries are not confirmed, of those that have never failed, or not since a retry.
pub(super) async fn open_canaries(
    transaction: &mut WriteTransaction,
    rotation: &Rotation,
) -> Result<i64, LedgerError> {
    let select = Statement::new(
        "SELECT COUNT(*) AS count FROM rotation_device WHERE rotation_id = $1 AND ordinal <= $2 \
         AND failures = 0 AND state IN ",
    )
    .bind(rotation.id.0)
    .bind(i64::from(rotation.plan.pace.canary))
    .tuple(MemberState::OPEN.map(|state| state.as_str().into()));
    let rows = transaction.rows(select).await?;
    let count = rows.first().ok_or_else(|| LedgerError::corrupt("no count"))?;
    Ok(count.integer("count")?)
}

/// The rows of the devices to look at next, from after the first until the second, and whether they
/// are the last.
async fn next_range(
    transaction: &mut WriteTransaction,
    rotation: &Rotation,
) -> Result<((i64, i64), bool), LedgerError> {
    let from = Statement::new("SELECT prepared_to FROM rotation WHERE id = $1");
    let rows = transaction.rows(from.bind(rotation.id.0)).await?;
    let row = rows.first().ok_or_else(|| LedgerError::corrupt("no such rotation"))?;
    let from = row.integer("prepared_to")?;
    // Devices that come later are none of its business.
    let select = Statement::new(
        "SELECT COUNT(*) AS count, MAX(id) AS last FROM (SELECT id FROM device \
         WHERE factory_id = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4) AS chunk",
    )
    .bind(rotation.factory.0)
    .bind(from)
    .bind(rotation.id.0)
    .bind(CHUNK);
    let rows = transaction.rows(select).await?;
    let row = rows.first().ok_or_else(|| LedgerError::corrupt("no count"))?;
    let last = row.maybe_integer("last")?.unwrap_or(from);
    Ok(((from, last), row.integer("count")? < CHUNK))
}

impl Wanted {
    /// What one statement can take: some of the named devices, or any.
    fn parts(&self) -> impl Iterator<Item = Option<&[DeviceName]>> {
        let any = self.named.is_none().then_some(None);
        let named = self.named.iter().flat_map(|names| names.chunks(NAMES)).map(Some);
        any.into_iter().chain(named)
    }

    /// Appends a query for the devices with these rows, and why one is left out.
    fn choose(
        &self,
        statement: Statement,
        factory: FactoryId,
        (after, until): (i64, i64),
        part: Option<&[DeviceName]>,
    ) -> Statement {
        let select = statement.then(&format!(
            "SELECT device.id, device.name, COALESCE(device.last_seen_at, 0) AS seen, \
             current.id AS credential, CASE WHEN EXISTS (SELECT 1 FROM rotation_device other \
             JOIN rotation holder ON holder.id = other.rotation_id \
             WHERE other.device_id = device.id AND other.state NOT IN ('confirmed', 'skipped') \
             AND holder.state IN ('preparing', 'running', 'paused')) THEN '{}' \
             WHEN current.device_ca_id = CAST(",
            MemberReason::Held.as_str(),
        ));
        let select = select
            .value(self.not_on.map(|ca| ca.0))
            .then(&format!(
                " AS BIGINT) THEN '{}' END AS reason \
             FROM device LEFT JOIN credential current \
             ON current.device_id = device.id AND current.state = 'current' \
             WHERE device.denied_at IS NULL AND device.factory_id = ",
                MemberReason::OnTarget.as_str(),
            ))
            .value(factory.0);
        let select = select.then(" AND device.id > ").value(after);
        let mut select = select.then(" AND device.id <= ").value(until);
        if let Some(device_ca) = self.device_ca {
            select = select
                .then(
                    " AND EXISTS (SELECT 1 FROM credential held WHERE held.device_id = device.id \
                     AND held.state IN ('current', 'pending') AND held.device_ca_id = ",
                )
                .value(device_ca.0)
                .then(")");
        }
        if let Some(group) = &self.group {
            select = select.then(" AND device.device_group = ").value(group.as_str());
        }
        if let Some(before) = self.expires_before {
            select = select.then(" AND current.not_after < ").value(before.0);
        }
        if let Some(algorithm) = &self.key_algorithm {
            select = select.then(" AND current.key_algorithm = ").value(algorithm.as_str());
        }
        if let Some(names) = part {
            let names = names.iter().map(|name| name.as_str().into());
            select = select.then(" AND device.name IN ").tuple(names);
        }
        select
    }
}
