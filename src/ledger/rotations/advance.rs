//! What time does to a rotation: more devices are gathered, slots come, patience ends, it finishes.

use super::super::database::{Row, Statement};
use super::super::device_cas::device_ca;
use super::super::transaction::WriteTransaction;
use super::super::{Ledger, LedgerError};
use super::acts::{finish_if_done, pause_itself};
use super::start::take_chunk;
use super::{COLUMNS, NewState, Wanted, member_state, rotation, write, write_members};
use crate::clock::{self, UnixTime};
use crate::model::DeviceCaState;
use crate::model::rotation::{
    MemberReason, MemberState, Rotation, RotationId, RotationState, Step,
};

/// How many slots one transaction gives out at most.
const SLOTS: i64 = 5000;
/// How many overdue devices one transaction settles.
const OVERDUE: i64 = 500;
/// How many devices go into one statement.
const DEVICES: usize = 1000;

/// A device of a rotation, in a transaction.
struct Member {
    device: i64,
    ordinal: i64,
    state: MemberState,
    denied: bool,
    failed_before: bool,
}

impl Ledger {
    /// The rotations for which time does something.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn advancing_rotations(&self) -> Result<Vec<RotationId>, LedgerError> {
        let select = Statement::new(
            "SELECT id FROM rotation WHERE state IN ('preparing', 'running') ORDER BY id",
        );
        let rows = self.database.rows(select).await?;
        rows.iter().map(|row| Ok(RotationId(row.integer("id")?))).collect()
    }

    /// Does what has come due in a rotation. Tells whether there is more to do at once.
    ///
    /// # Errors
    /// When the ledger fails; then nothing is done.
    pub async fn advance_rotation(&self, id: RotationId) -> Result<bool, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let select = Statement::new(COLUMNS).then("WHERE rotation.id = ").value(id.0);
        let rows = transaction.rows(select).await?;
        let Some(mut rotation) = rows.first().map(rotation).transpose()? else {
            return Ok(false);
        };
        let more = match rotation.state {
            RotationState::Preparing => {
                let wanted = Wanted::again(&rotation);
                take_chunk(&mut transaction, &mut rotation, &wanted, None).await?;
                true
            }
            // The time is that of the transaction, not from before it had to wait: devices compare
            // with it what they know.
            RotationState::Running => {
                run(&mut transaction, &mut rotation, clock::milliseconds()).await?
            }
            RotationState::Paused | RotationState::Finished | RotationState::Aborted => false,
        };
        transaction.commit().await?;
        Ok(more)
    }
}

async fn run(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
    now: i64,
) -> Result<bool, LedgerError> {
    let time = UnixTime(now / 1000);
    if let Some(why) = obstacle(transaction, rotation, time).await? {
        transaction.note_all(pause_itself(rotation, why));
        write(transaction, rotation).await?;
        return Ok(false);
    }
    let overdue = settle_overdue(transaction, rotation, time).await?;
    let offered = offer(transaction, rotation, now).await?;
    let finished = finish_if_done(transaction, rotation);
    if overdue > 0 || offered > 0 || finished {
        write(transaction, rotation).await?;
    }
    Ok(overdue >= OVERDUE || offered >= SLOTS)
}

/// Why the rotation cannot go on.
async fn obstacle(
    transaction: &mut WriteTransaction,
    rotation: &Rotation,
    now: UnixTime,
) -> Result<Option<&'static str>, LedgerError> {
    if rotation.counts.waiting > 0 && rotation.plan.pace.is_over(now) {
        let why =
            "its time is over and devices still wait for their slot: resumed, it takes longer";
        return Ok(Some(why));
    }
    let select = Statement::new(
        "SELECT id, factory_id, kind, state, certificate FROM device_ca WHERE factory_id = $1 \
         AND state = $2 ORDER BY id",
    );
    let select = select.bind(rotation.factory.0).bind(DeviceCaState::Enabled.as_str());
    let rows = transaction.rows(select).await?;
    let cas = rows.iter().map(device_ca).collect::<Result<Vec<_>, _>>()?;
    Ok(rotation.obstacle(&cas, now))
}

/// Devices that were given time and did not use it have failed, for now.
async fn settle_overdue(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
    now: UnixTime,
) -> Result<i64, LedgerError> {
    let mut settled = 0;
    for (state, reason) in [
        (MemberState::Offered, MemberReason::Silent),
        (MemberState::Issued, MemberReason::Unconfirmed),
    ] {
        let select = members(rotation.id, state)
            .then(" AND member.since < ")
            .value(now.0 - rotation.plan.patience)
            .then(" ORDER BY member.since LIMIT ")
            .value(OVERDUE - settled);
        let overdue = read_members(&transaction.rows(select).await?)?;
        settle(transaction, rotation, &overdue, MemberState::Failed, reason, now).await?;
        settled += i64::try_from(overdue.len()).unwrap_or(i64::MAX);
    }
    Ok(settled)
}

/// Gives out the slots that have come.
async fn offer(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
    now: i64,
) -> Result<i64, LedgerError> {
    if rotation.state != RotationState::Running {
        return Ok(0);
    }
    let (due, credit_at) = rotation.plan.pace.due(rotation.credit_at, now, SLOTS);
    if due == 0 {
        return Ok(0);
    }
    let last = match rotation.canaries_left {
        0 => i64::MAX,
        _ => i64::from(rotation.plan.pace.canary),
    };
    let select = members(rotation.id, MemberState::Waiting)
        .then(" AND member.ordinal <= ")
        .value(last)
        .then(" ORDER BY member.ordinal LIMIT ")
        .value(due);
    let next = read_members(&transaction.rows(select).await?)?;
    rotation.credit_at = credit_at;
    let time = UnixTime(now / 1000);
    let (denied, wanted): (Vec<_>, Vec<_>) = next.into_iter().partition(|member| member.denied);
    let (left_out, reason) = (MemberState::Skipped, MemberReason::Denied);
    settle(transaction, rotation, &denied, left_out, reason, time).await?;
    for members in wanted.chunks(DEVICES) {
        let devices = members.iter().map(|member| member.device);
        let state = MemberState::Offered;
        let offered = NewState { state, reason: None, detail: None, failed: false };
        write_members(transaction, rotation.id, devices, &offered, time).await?;
        let noted = Statement::new(
            "UPDATE rotation_device SET offered_at = $1 WHERE rotation_id = $2 AND device_id IN ",
        )
        .bind(time.0)
        .bind(rotation.id.0)
        .tuple(members.iter().map(|member| member.device.into()));
        transaction.execute(noted).await?;
        for member in members {
            rotation.counts.shift(member.state, state);
        }
    }
    Ok(i64::try_from(denied.len() + wanted.len()).unwrap_or(i64::MAX))
}

async fn settle(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
    members: &[Member],
    state: MemberState,
    reason: MemberReason,
    now: UnixTime,
) -> Result<(), LedgerError> {
    let failed = state == MemberState::Failed;
    let settled = NewState { state, reason: Some(reason), detail: None, failed };
    for members in members.chunks(DEVICES) {
        let devices = members.iter().map(|member| member.device);
        write_members(transaction, rotation.id, devices, &settled, now).await?;
    }
    for member in members {
        let step = Step {
            ordinal: member.ordinal,
            from: member.state,
            to: state,
            reason: Some(reason),
            failed_before: member.failed_before,
        };
        if let Some(why) = rotation.follow(step) {
            transaction.note_all(pause_itself(rotation, &why));
        }
    }
    Ok(())
}

fn members(rotation: RotationId, state: MemberState) -> Statement {
    Statement::new(
        "SELECT member.device_id, member.ordinal, member.state, member.failures, device.denied_at \
         FROM rotation_device member JOIN device ON device.id = member.device_id \
         WHERE member.rotation_id = ",
    )
    .value(rotation.0)
    .then(" AND member.state = ")
    .value(state.as_str())
}

fn read_members(rows: &[Row]) -> Result<Vec<Member>, LedgerError> {
    let read = |row: &Row| {
        Ok(Member {
            device: row.integer("device_id")?,
            ordinal: row.integer("ordinal")?,
            state: member_state(row)?,
            denied: row.maybe_integer("denied_at")?.is_some(),
            failed_before: row.integer("failures")? > 0,
        })
    };
    rows.iter().map(read).collect()
}

impl Wanted {
    /// Which devices a rotation took, of those that were not named, from what the ledger keeps of it.
    fn again(rotation: &Rotation) -> Self {
        let selection = &rotation.plan.selection;
        Self {
            device_ca: rotation.leaving,
            group: selection.group.clone(),
            expires_before: selection.expires_before.map(UnixTime),
            key_algorithm: selection.key_algorithm.clone(),
            named: None,
            not_on: selection.leaves_out_target().then_some(rotation.target).flatten(),
        }
    }
}
