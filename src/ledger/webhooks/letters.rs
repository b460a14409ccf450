//! Dead letters: events that a webhook's receiver did not take in any attempt. They wait for an
//! operator.

use serde::Serialize;

use super::super::database::{Row, Statement};
use super::super::transaction::WriteTransaction;
use super::super::{Ledger, LedgerError};
use super::turn::AT_ONCE;
use super::{Turn, act, named};
use crate::clock::UnixTime;
use crate::model::{FactoryId, WebhookId, WebhookName};

/// How many a list has at most.
const LISTED: i64 = 1000;

/// An event that nobody took.
#[derive(Debug, Serialize)]
pub struct DeadLetter {
    /// The number of its row in the audit log.
    pub number: i64,
    /// When it happened.
    pub at: UnixTime,
    /// What was done.
    pub action: String,
    /// About what: a device, a rotation, a Device CA.
    pub subject: String,
    /// Why the last attempt failed.
    pub error: String,
    /// When it was the last time.
    pub given_up_at: UnixTime,
    /// Whether it will be delivered again.
    pub again: bool,
}

impl Ledger {
    /// The dead letters of a webhook, the oldest 1000; `None` if there is no such webhook, in this
    /// Factory, if one is named.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn dead_letters(
        &self,
        name: &WebhookName,
        factory: Option<FactoryId>,
    ) -> Result<Option<Vec<DeadLetter>>, LedgerError> {
        let rows = self.database.rows(named(name, factory)).await?;
        let Some(webhook) = rows.first() else { return Ok(None) };
        let select = Statement::new(
            "SELECT audit.number, audit.at, audit.action, audit.subject, letter.error, \
             letter.given_up_at, letter.again FROM webhook_dead_letter AS letter \
             JOIN audit ON audit.number = letter.number \
             WHERE letter.webhook_id = $1 ORDER BY letter.number LIMIT $2",
        );
        let select = select.bind(webhook.integer("id")?).bind(LISTED);
        let rows = self.database.rows(select).await?;
        rows.iter().map(letter).collect::<Result<_, _>>().map(Some)
    }

    /// Has every dead letter of a webhook delivered again, and what waits for its next attempt tried
    /// now. Gives their number; `None` if there is no such webhook, in this Factory, if one is named.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn redeliver(
        &self,
        name: &WebhookName,
        factory: Option<FactoryId>,
        actor: &str,
    ) -> Result<Option<u64>, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let rows = transaction.rows(named(name, factory)).await?;
        let Some(webhook) = rows.first() else { return Ok(None) };
        let id = webhook.integer("id")?;
        let now = Statement::new("UPDATE webhook SET next_attempt_at = $1 WHERE id = $2");
        transaction.execute(now.bind(AT_ONCE).bind(id)).await?;
        let again = "UPDATE webhook_dead_letter SET again = 1 WHERE webhook_id = $1";
        let count = transaction.execute(Statement::new(again).bind(id)).await?;
        let factory = webhook.maybe_integer("factory_id")?.map(FactoryId);
        let detail = format!("{count} dead letters");
        transaction.note(act(factory, actor, "redeliver-webhook", name, detail));
        transaction.commit().await?;
        Ok(Some(count))
    }

    /// A dead letter was delivered after all.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn redelivered(&self, turn: &Turn, number: i64) -> Result<(), LedgerError> {
        let delete = "DELETE FROM webhook_dead_letter WHERE webhook_id = $1 AND number = $2";
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        transaction.execute(Statement::new(delete).bind(turn.id.0).bind(number)).await?;
        transaction.commit().await
    }

    /// A dead letter was not delivered this time either: it waits for an operator again.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn not_redelivered(
        &self,
        turn: &Turn,
        number: i64,
        error: &str,
    ) -> Result<(), LedgerError> {
        let update = Statement::new(
            "UPDATE webhook_dead_letter SET again = 0, error = $1, given_up_at = $2 \
             WHERE webhook_id = $3 AND number = $4",
        )
        .bind(error)
        .bind(UnixTime::now().0)
        .bind(turn.id.0)
        .bind(number);
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        transaction.execute(update).await?;
        transaction.commit().await
    }
}

/// Makes an event a dead letter.
pub(super) async fn bury(
    transaction: &mut WriteTransaction,
    webhook: WebhookId,
    number: i64,
    error: &str,
) -> Result<(), LedgerError> {
    let insert = "INSERT INTO webhook_dead_letter (webhook_id, number, error, given_up_at, again) \
         VALUES ";
    let row = [webhook.0.into(), number.into(), error.into(), UnixTime::now().0.into(), 0.into()];
    transaction.execute(Statement::new(insert).tuple(row)).await?;
    Ok(())
}

fn letter(row: &Row) -> Result<DeadLetter, LedgerError> {
    Ok(DeadLetter {
        number: row.integer("number")?,
        at: UnixTime(row.integer("at")?),
        action: row.text("action")?,
        subject: row.text("subject")?,
        error: row.text("error")?,
        given_up_at: UnixTime(row.integer("given_up_at")?),
        again: row.integer("again")? != 0,
    })
}
