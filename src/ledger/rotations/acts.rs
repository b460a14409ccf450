//! What an operator does to a rotation, and what it does to itself.

use super::super::change::change;
use super::super::database::Statement;
use super::super::transaction::WriteTransaction;
use super::super::{ChangeError, ChangeRefused, Ledger, LedgerError};
use super::start::open_canaries;
use super::{by_name, rotation, write};
use crate::clock::UnixTime;
use crate::model::rotation::{MemberState, Rotation, RotationAct, RotationName, RotationState};
use crate::model::{FactoryId, audit::Entry};

/// How many failed devices one transaction looks at.
const CHUNK: i64 = 5000;
/// Who acts when a rotation does so by itself.
const ITSELF: &str = "estd";

impl Ledger {
    /// Acts upon a rotation.
    ///
    /// # Errors
    /// When there is no such rotation, its state forbids that, or the ledger fails.
    pub async fn act_on_rotation(
        &self,
        factory: FactoryId,
        name: &RotationName,
        act: RotationAct,
        actor: &str,
        reason: &str,
    ) -> Result<Rotation, ChangeError> {
        let done = match act {
            RotationAct::Retry => self.retry_rotation(factory, name, actor, reason).await,
            _ => self.try_act_on_rotation(factory, name, act, actor, reason).await,
        };
        self.recorded(done, Some(factory), actor, act.as_str(), name.to_string()).await
    }

    async fn try_act_on_rotation(
        &self,
        factory: FactoryId,
        name: &RotationName,
        act: RotationAct,
        actor: &str,
        reason: &str,
    ) -> Result<Rotation, ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let mut rotation = find(&mut transaction, factory, name).await?;
        let after = state_after(&rotation, act)?;
        if after == RotationState::Running {
            // The operator has looked at what went wrong.
            rotation.outcomes.clear();
            give_time(&mut transaction, &mut rotation).await?;
            rotation.canaries_left = match act {
                RotationAct::ResumePastCanaries => 0,
                _ => open_canaries(&mut transaction, &rotation).await?,
            };
        }
        enter(&mut rotation, after, reason);
        note(&mut transaction, &rotation, act, actor, reason);
        write(&mut transaction, &rotation).await?;
        transaction.commit().await?;
        Ok(rotation)
    }

    /// Failed devices wait for a slot again, in chunks so that nothing else waits long. Where it is cut
    /// short, another retry takes the others.
    async fn retry_rotation(
        &self,
        factory: FactoryId,
        name: &RotationName,
        actor: &str,
        reason: &str,
    ) -> Result<Rotation, ChangeError> {
        let act = RotationAct::Retry;
        let (mut retried, mut from) = (None, 0);
        loop {
            let mut transaction = WriteTransaction::begin(&self.database).await?;
            let mut rotation = find(&mut transaction, factory, name).await?;
            let state = match state_after(&rotation, act) {
                Ok(state) => state,
                // Unless somebody has ended it meanwhile.
                Err(why) => return retried.ok_or_else(|| why.into()),
            };
            let Some(last) = last_to_retry(&mut transaction, &rotation, from).await? else {
                return retried.ok_or_else(|| ChangeRefused::NothingToRetry.into());
            };
            if retry(&mut transaction, &mut rotation, (from, last)).await? > 0 {
                if retried.is_none() || rotation.state != state {
                    rotation.outcomes.clear();
                    enter(&mut rotation, state, reason);
                    note(&mut transaction, &rotation, act, actor, reason);
                }
                write(&mut transaction, &rotation).await?;
                transaction.commit().await?;
                retried = Some(rotation);
            }
            from = last;
        }
    }
}

async fn find(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    name: &RotationName,
) -> Result<Rotation, ChangeError> {
    let rows = transaction.rows(by_name(factory, name)).await?;
    let found = rows.first().map(rotation).transpose()?;
    found.ok_or_else(|| ChangeRefused::NoSuchRotation.into())
}

fn state_after(rotation: &Rotation, act: RotationAct) -> Result<RotationState, ChangeRefused> {
    let state = rotation.state.as_str();
    let after = rotation.state.after(act);
    after.ok_or(ChangeRefused::RotationState { act: act.as_str(), state })
}

/// Puts an operator's act on record.
fn note(
    transaction: &mut WriteTransaction,
    rotation: &Rotation,
    act: RotationAct,
    actor: &str,
    reason: &str,
) {
    let (name, detail) = (rotation.name.to_string(), reason.to_owned());
    transaction.note(change(rotation.factory, actor, act.as_str(), name, detail));
    if rotation.target.is_some() {
        transaction.change_snapshot();
    }
}

/// A rotation that is resumed when its time is over would pause itself at once: it has all the time
/// that it takes.
async fn give_time(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
) -> Result<(), LedgerError> {
    if !rotation.plan.pace.is_over(UnixTime::now()) {
        return Ok(());
    }
    rotation.plan.pace.until = None;
    let plan = serde_json::to_string(&rotation.plan).map_err(LedgerError::corrupt)?;
    let update = Statement::new("UPDATE rotation SET plan = $1 WHERE id = $2");
    transaction.execute(update.bind(plan).bind(rotation.id.0)).await?;
    Ok(())
}

/// The last ordinal of the failed devices that one transaction looks at, those after `from`.
async fn last_to_retry(
    transaction: &mut WriteTransaction,
    rotation: &Rotation,
    from: i64,
) -> Result<Option<i64>, LedgerError> {
    let select = Statement::new(
        "SELECT MAX(ordinal) AS last FROM (SELECT ordinal FROM rotation_device \
         WHERE rotation_id = $1 AND state = $2 AND ordinal > $3 ORDER BY ordinal LIMIT $4) AS chunk",
    )
    .bind(rotation.id.0)
    .bind(MemberState::Failed.as_str())
    .bind(from)
    .bind(CHUNK);
    let rows = transaction.rows(select).await?;
    let row = rows.first().ok_or_else(|| LedgerError::corrupt("no maximum"))?;
    Ok(row.maybe_integer("last")?)
}

/// Failed devices, those after the first ordinal until the second, wait for a slot again as if they
/// had not failed, unless another rotation has taken them. Gives how many.
async fn retry(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
    (from, last): (i64, i64),
) -> Result<i64, LedgerError> {
    let update = Statement::new(
        "UPDATE rotation_device SET state = $1, since = $2, reason = NULL, detail = NULL, \
         failures = 0, tries = tries + 1 \
         WHERE rotation_id = $3 AND state = $4 AND ordinal > $5 AND ordinal <= $6 \
         AND NOT EXISTS (SELECT 1 \
         FROM rotation_device other JOIN rotation holder ON holder.id = other.rotation_id \
         WHERE other.device_id = rotation_device.device_id AND other.rotation_id <> $3 \
         AND other.state NOT IN ('confirmed', 'skipped') \
         AND holder.state IN ('preparing', 'running', 'paused'))",
    )
    .bind(MemberState::Waiting.as_str())
    .bind(UnixTime::now().0)
    .bind(rotation.id.0)
    .bind(MemberState::Failed.as_str())
    .bind(from)
    .bind(last);
    let count = i64::try_from(transaction.execute(update).await?).unwrap_or(i64::MAX);
    rotation.counts.failed -= count;
    rotation.counts.waiting += count;
    rotation.canaries_left = open_canaries(transaction, rotation).await?;
    Ok(count)
}

/// The rotation goes to a state.
pub(super) fn enter(rotation: &mut Rotation, state: RotationState, reason: &str) {
    let now = UnixTime::now();
    rotation.state = state;
    reason.clone_into(&mut rotation.state_reason);
    rotation.state_since = now;
    rotation.credit_at = now.0 * 1000;
}

/// The rotation pauses by itself: somebody must look at it. Gives the row for the audit log.
pub(crate) fn pause_itself(rotation: &mut Rotation, why: &str) -> Option<Entry> {
    if rotation.state != RotationState::Running {
        return None;
    }
    enter(rotation, RotationState::Paused, why);
    let (action, name) = (RotationAct::Pause.as_str(), rotation.name.to_string());
    Some(change(rotation.factory, ITSELF, action, name, why.to_owned()))
}

/// Ends the rotation if no device of it waits for anything.
pub(super) fn finish_if_done(transaction: &mut WriteTransaction, rotation: &mut Rotation) -> bool {
    if rotation.state != RotationState::Running || rotation.counts.open() > 0 {
        return false;
    }
    let counts = rotation.counts;
    let empty = counts.total() == counts.skipped;
    let why = if empty { "there was no device to rotate" } else { "" };
    enter(rotation, RotationState::Finished, why);
    let detail = format!(
        "{} confirmed, {} failed, {} left out",
        counts.confirmed, counts.failed, counts.skipped
    );
    let name = rotation.name.to_string();
    transaction.note(change(rotation.factory, ITSELF, "finish-rotation", name, detail));
    if rotation.target.is_some() {
        transaction.change_snapshot();
    }
    true
}
