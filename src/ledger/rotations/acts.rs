//! What an operator does to a rotation, and what it does to itself.

use super::super::change::change;
use super::super::database::Statement;
use super::super::transaction::WriteTransaction;
use super::super::{ChangeError, ChangeRefused, Ledger};
use super::start::open_canaries;
use super::{by_name, rotation, write};
use crate::clock::UnixTime;
use crate::model::rotation::{MemberState, Rotation, RotationAct, RotationName, RotationState};
use crate::model::{FactoryId, audit::Entry};

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
        let done = self.try_act_on_rotation(factory, name, act, actor, reason).await;
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
        let rows = transaction.rows(by_name(factory, name)).await?;
        let rotation = rows.first().map(rotation).transpose()?;
        let mut rotation = rotation.ok_or(ChangeRefused::NoSuchRotation)?;
        let after = rotation.state.after(act);
        let state = rotation.state.as_str();
        let after = after.ok_or(ChangeRefused::RotationState { act: act.as_str(), state })?;
        if act == RotationAct::Retry {
            retry(&mut transaction, &mut rotation).await?;
        }
        if act == RotationAct::Resume {
            // The operator has looked at what went wrong.
            rotation.outcomes.clear();
            rotation.canaries_left = open_canaries(&mut transaction, &rotation).await?;
        }
        if act == RotationAct::ResumePastCanaries {
            rotation.outcomes.clear();
            rotation.canaries_left = 0;
        }
        enter(&mut rotation, after, reason);
        write(&mut transaction, &rotation).await?;
        transaction.note(change(factory, actor, act.as_str(), name.to_string(), reason.to_owned()));
        if rotation.target.is_some() {
            transaction.change_snapshot();
        }
        transaction.commit().await?;
        Ok(rotation)
    }
}

/// Failed devices wait for a slot again, unless another rotation has taken them.
async fn retry(
    transaction: &mut WriteTransaction,
    rotation: &mut Rotation,
) -> Result<(), ChangeError> {
    let update = Statement::new(
        "UPDATE rotation_device SET state = $1, since = $2, reason = NULL, detail = NULL \
         WHERE rotation_id = $3 AND state = $4 AND NOT EXISTS (SELECT 1 \
         FROM rotation_device other JOIN rotation holder ON holder.id = other.rotation_id \
         WHERE other.device_id = rotation_device.device_id AND other.rotation_id <> $3 \
         AND other.state NOT IN ('confirmed', 'skipped') \
         AND holder.state IN ('preparing', 'running', 'paused'))",
    )
    .bind(MemberState::Waiting.as_str())
    .bind(UnixTime::now().0)
    .bind(rotation.id.0)
    .bind(MemberState::Failed.as_str());
    let count = i64::try_from(transaction.execute(update).await?).unwrap_or(i64::MAX);
    if count == 0 {
        return Err(ChangeRefused::NothingToRetry.into());
    }
    rotation.counts.failed -= count;
    rotation.counts.waiting += count;
    rotation.outcomes.clear();
    Ok(())
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
    enter(rotation, RotationState::Finished, "");
    let counts = &rotation.counts;
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
