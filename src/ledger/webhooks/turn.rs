//! How far each webhook has come, and whose turn it is to deliver: one server at a time, by a lease
//! that is taken in a transaction that writes.

use super::super::database::{Row, Statement};
use super::super::transaction::WriteTransaction;
use super::super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::{EventKinds, FactoryId, Progress, WebhookId, WebhookName, WebhookUrl};

/// How long a turn lasts, in seconds, unless it is prolonged; a delivery takes a sixth of it at most.
const LEASE_SECONDS: i64 = 60;
/// As the time of the next attempt: at once, and be a turn under way that would put it off.
pub(super) const AT_ONCE: i64 = -1;
/// How many rows that are none of its business a webhook may have before it, before that is noted.
const UNNOTED_ROWS: i64 = 1000;

/// A webhook for which something is to be done.
pub struct Due(Turn);

/// A server's turn to deliver a webhook's events, which no other server does meanwhile.
pub struct Turn {
    /// The webhook.
    pub(super) id: WebhookId,
    /// Its name.
    pub name: WebhookName,
    /// Where its events are posted to.
    pub url: WebhookUrl,
    /// The events that it wants.
    pub(super) events: EventKinds,
    /// The only Factory whose events it gets.
    pub(super) factory: Option<FactoryId>,
    /// How far it has come.
    pub progress: Progress,
    secret: Vec<u8>,
    /// Also what tells this turn from a later one.
    leased_until: UnixTime,
}

impl Due {
    /// Its name.
    pub fn name(&self) -> &WebhookName {
        &self.0.name
    }

    /// Its secret, wrapped.
    pub fn wrapped_secret(&self) -> &[u8] {
        &self.0.secret
    }
}

impl Ledger {
    /// The webhooks for which something is to be done now and which no server has its turn with.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn due_webhooks(&self) -> Result<Vec<Due>, LedgerError> {
        let select = Statement::new(
            "SELECT webhook.*, (SELECT COUNT(*) FROM webhook_dead_letter \
             WHERE webhook_id = webhook.id AND again = 1) AS again \
             FROM webhook WHERE leased_until <= $1 AND next_attempt_at <= $1 ORDER BY id",
        );
        let mut due = Vec::new();
        for row in self.database.rows(select.bind(UnixTime::now().0)).await? {
            let turn = turn(&row)?;
            if row.integer("again")? > 0 || self.has_news(&turn).await? {
                due.push(Due(turn));
            }
        }
        Ok(due)
    }

    async fn has_news(&self, turn: &Turn) -> Result<bool, LedgerError> {
        let page = self.webhook_events(turn, 1).await?;
        Ok(!page.events.is_empty() || page.looked_to - turn.progress.done_to >= UNNOTED_ROWS)
    }

    /// Takes the turn with a webhook; `None` if another server has it, or had it just now.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn take_turn(&self, due: Due) -> Result<Option<Turn>, LedgerError> {
        let (Due(before), now) = (due, UnixTime::now());
        let update = Statement::new(
            "UPDATE webhook SET leased_until = $1, next_attempt_at = $4 \
             WHERE id = $2 AND leased_until = $3 AND next_attempt_at <= $4 RETURNING *",
        )
        .bind(now.plus(LEASE_SECONDS).0)
        .bind(before.id.0)
        .bind(before.leased_until.0)
        .bind(now.0);
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let rows = transaction.change(update).await?;
        transaction.commit().await?;
        rows.first().map(turn).transpose()
    }

    /// Notes how far the webhook has come, and prolongs the turn. `false` if it is over: the webhook
    /// was removed, or another server has its turn.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn prolong_turn(&self, turn: &mut Turn) -> Result<bool, LedgerError> {
        let until = UnixTime::now().plus(LEASE_SECONDS);
        let kept = self.save_turn(turn, until, None).await?;
        turn.leased_until = until;
        Ok(kept)
    }

    /// Notes how far the webhook has come, with the event that became a dead letter, if one did, and
    /// ends the turn.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn end_turn(&self, turn: Turn, dead: Option<i64>) -> Result<(), LedgerError> {
        self.save_turn(&turn, UnixTime(0), dead).await?;
        Ok(())
    }

    async fn save_turn(
        &self,
        turn: &Turn,
        leased_until: UnixTime,
        dead: Option<i64>,
    ) -> Result<bool, LedgerError> {
        let progress = &turn.progress;
        let update = Statement::new(
            "UPDATE webhook SET done_to = $1, attempts = $2, next_attempt_at = \
             CASE WHEN next_attempt_at = $9 THEN next_attempt_at ELSE $3 END, \
             last_error = $4, delivered_at = $5, leased_until = $6 \
             WHERE id = $7 AND leased_until = $8",
        )
        .bind(progress.done_to)
        .bind(i64::from(progress.attempts))
        .bind(progress.next_attempt_at.0)
        .bind(progress.last_error.as_deref())
        .bind(progress.delivered_at.map(|UnixTime(at)| at))
        .bind(leased_until.0)
        .bind(turn.id.0)
        .bind(turn.leased_until.0)
        .bind(AT_ONCE);
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let kept = transaction.execute(update).await? > 0;
        if let Some(number) = dead.filter(|_| kept) {
            let error = progress.last_error.as_deref().unwrap_or_default();
            super::letters::bury(&mut transaction, turn.id, number, error).await?;
        }
        transaction.commit().await?;
        Ok(kept)
    }
}

/// A row of webhook.
pub(super) fn turn(row: &Row) -> Result<Turn, LedgerError> {
    let attempts = row.integer("attempts")?;
    let url = WebhookUrl::parse(&row.text("url")?).map_err(LedgerError::corrupt)?;
    let events = row.text("events")?;
    Ok(Turn {
        id: WebhookId(row.integer("id")?),
        name: super::name(row)?,
        url,
        events: EventKinds::parse(events.split_whitespace()).map_err(LedgerError::corrupt)?,
        factory: row.maybe_integer("factory_id")?.map(FactoryId),
        progress: Progress {
            done_to: row.integer("done_to")?,
            attempts: u32::try_from(attempts).map_err(LedgerError::corrupt)?,
            next_attempt_at: UnixTime(row.integer("next_attempt_at")?),
            last_error: row.maybe_text("last_error")?,
            delivered_at: row.maybe_integer("delivered_at")?.map(UnixTime),
        },
        secret: row.bytes("secret")?,
        leased_until: UnixTime(row.integer("leased_until")?),
    })
}
