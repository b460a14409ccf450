//! Webhooks: made, listed, removed. The audit log is their outbox: `outbox.rs` reads it, `turn.rs`
//! keeps how far each has come, `letters.rs` what nobody took.

mod letters;
mod outbox;
mod turn;

use serde::Serialize;

use super::change::ChangeRefused;
use super::database::{Row, Statement, Value};
use super::private_keys::must_have_check;
use super::transaction::WriteTransaction;
use super::{ChangeError, Ledger, LedgerError, RewrapFailure};
use crate::clock::UnixTime;
use crate::keys::{KeyError, webhook_binding};
use crate::model::audit::{Entry, Outcome};
use crate::model::{EventKinds, Factory, FactoryId, WebhookName, WebhookUrl};
use crate::pki::Fingerprint;

pub use letters::DeadLetter;
pub use outbox::{WebhookEvent, WebhookEvents};
pub use turn::{Due, Turn};

/// A webhook to be made.
pub struct NewWebhook<'a> {
    /// Its name.
    pub name: WebhookName,
    /// Where its events are posted to.
    pub url: WebhookUrl,
    /// The events that it wants.
    pub events: EventKinds,
    /// The only Factory whose events it gets; `None`: all events.
    pub factory: Option<&'a Factory>,
    /// What its deliveries are signed with, wrapped.
    pub secret: Vec<u8>,
}

/// A webhook in a list.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct WebhookSummary {
    /// Its name.
    pub name: String,
    /// Where its events are posted to.
    pub url: String,
    /// The events that it wants; none named means all.
    pub events: Vec<&'static str>,
    /// The only Factory whose events it gets; `None`: all events.
    pub factory: Option<String>,
    /// When it was made.
    pub created_at: UnixTime,
    /// Who made it.
    pub created_by: String,
    /// How many events wait; not counted beyond 10000.
    pub pending: i64,
    /// When the first of them happened.
    pub pending_since: Option<UnixTime>,
    /// How many attempts at the first of them have failed.
    pub failed_attempts: i64,
    /// When the next attempt is due, if one has failed.
    pub next_attempt_at: Option<UnixTime>,
    /// Why the latest attempt failed, if it did.
    pub last_error: Option<String>,
    /// When something was delivered last.
    pub delivered_at: Option<UnixTime>,
    /// How many events nobody took.
    pub dead_letters: i64,
}

impl Ledger {
    /// Makes a webhook, whose secret is wrapped under the key-encryption key that has this check
    /// value. It gets what happens from now on.
    ///
    /// # Errors
    /// When its name is taken, the ledger has another key-encryption key by now, or it fails.
    pub async fn create_webhook(
        &self,
        webhook: NewWebhook<'_>,
        check: Fingerprint,
        actor: &str,
    ) -> Result<(), ChangeError> {
        let (factory, name) = (webhook.factory.map(|one| one.id), webhook.name.to_string());
        let done = self.try_create_webhook(webhook, check, actor).await;
        self.recorded(done, factory, actor, "create-webhook", name).await
    }

    async fn try_create_webhook(
        &self,
        webhook: NewWebhook<'_>,
        check: Fingerprint,
        actor: &str,
    ) -> Result<(), ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        must_have_check(&mut transaction, check).await?;
        let same_name = Statement::new("SELECT id FROM webhook WHERE name = $1");
        if !transaction.rows(same_name.bind(webhook.name.as_str())).await?.is_empty() {
            return Err(ChangeRefused::WebhookNameTaken.into());
        }
        let now = UnixTime::now();
        let factory = webhook.factory.map(|factory| factory.id);
        let (id, done_to) = (transaction.next_id(), transaction.audit_number());
        let insert = Statement::new(
            "INSERT INTO webhook (id, factory_id, name, url, events, secret, created_at, \
             created_by, done_to, attempts, next_attempt_at, last_error, delivered_at, \
             leased_until) VALUES ",
        )
        .tuple([
            id.into(),
            factory.map(|FactoryId(id)| id).into(),
            webhook.name.as_str().into(),
            webhook.url.to_string().into(),
            webhook.events.words().join(" ").into(),
            webhook.secret.as_slice().into(),
            now.0.into(),
            actor.into(),
            done_to.into(),
            0.into(),
            0.into(),
            Value::Text(None),
            Value::Integer(None),
            0.into(),
        ]);
        transaction.execute(insert).await?;
        let wanted: Vec<_> = webhook.events.wanted().iter().map(|kind| kind.as_str()).collect();
        let detail = format!("{} to {}", wanted.join(", "), webhook.url);
        transaction.note(act(factory, actor, "create-webhook", &webhook.name, detail));
        Ok(transaction.commit().await?)
    }

    /// Removes a webhook with everything that waits for it; of one Factory only, if one is named.
    /// `false` if there is none.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn remove_webhook(
        &self,
        name: &WebhookName,
        factory: Option<FactoryId>,
        actor: &str,
    ) -> Result<bool, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let rows = transaction.rows(named(name, factory)).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        for delete in [
            "DELETE FROM webhook_dead_letter WHERE webhook_id = $1",
            "DELETE FROM webhook WHERE id = $1",
        ] {
            transaction.execute(Statement::new(delete).bind(row.integer("id")?)).await?;
        }
        let factory = row.maybe_integer("factory_id")?.map(FactoryId);
        transaction.note(act(factory, actor, "remove-webhook", name, row.text("url")?));
        transaction.commit().await?;
        Ok(true)
    }

    /// Every webhook, in the order of their names; those of one Factory only, if one is named.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn webhooks(
        &self,
        factory: Option<FactoryId>,
    ) -> Result<Vec<WebhookSummary>, LedgerError> {
        let select = Statement::new(
            "SELECT webhook.*, factory.name AS factory, (SELECT COUNT(*) FROM \
             webhook_dead_letter WHERE webhook_id = webhook.id) AS dead_letters \
             FROM webhook LEFT JOIN factory ON factory.id = webhook.factory_id",
        );
        let select = match factory {
            Some(factory) => select.then(" WHERE webhook.factory_id = $1").bind(factory.0),
            None => select,
        };
        let rows = self.database.rows(select.then(" ORDER BY webhook.name")).await?;
        let mut summaries = Vec::new();
        for row in &rows {
            summaries.push(self.summary(row).await?);
        }
        Ok(summaries)
    }

    async fn summary(&self, row: &Row) -> Result<WebhookSummary, LedgerError> {
        let turn = turn::turn(row)?;
        let (pending, pending_since) = self.pending(&turn).await?;
        let progress = turn.progress;
        Ok(WebhookSummary {
            name: turn.name.to_string(),
            url: turn.url.to_string(),
            events: turn.events.words(),
            factory: row.maybe_text("factory")?,
            created_at: UnixTime(row.integer("created_at")?),
            created_by: row.text("created_by")?,
            pending,
            pending_since,
            failed_attempts: progress.attempts.into(),
            next_attempt_at: (progress.attempts > 0).then_some(progress.next_attempt_at),
            last_error: progress.last_error,
            delivered_at: progress.delivered_at,
            dead_letters: row.integer("dead_letters")?,
        })
    }
}

/// Wraps the secret of every webhook anew; gives their number.
pub(super) async fn rewrap_webhook_secrets(
    transaction: &mut WriteTransaction,
    rewrap: impl Fn(&[u8], Fingerprint) -> Result<Vec<u8>, KeyError>,
) -> Result<usize, RewrapFailure> {
    let failed = |why: sqlx::Error| RewrapFailure::Change(why.into());
    let select = Statement::new("SELECT id, name, secret FROM webhook");
    let rows = transaction.rows(select).await.map_err(failed)?;
    for row in &rows {
        let webhook = name(row).map_err(ChangeError::from)?;
        let wrapped = rewrap(&row.bytes("secret").map_err(failed)?, webhook_binding(&webhook))
            .map_err(|source| RewrapFailure::WebhookSecret { webhook, source })?;
        let update = Statement::new("UPDATE webhook SET secret = $1 WHERE id = $2");
        let update = update.bind(wrapped.as_slice()).bind(row.integer("id").map_err(failed)?);
        transaction.execute(update).await.map_err(failed)?;
    }
    Ok(rows.len())
}

/// Reads a webhook by its name; of one Factory only, if one is named.
fn named(name: &WebhookName, factory: Option<FactoryId>) -> Statement {
    let select = Statement::new("SELECT id, factory_id, url FROM webhook WHERE name = $1");
    let select = select.bind(name.as_str());
    match factory {
        Some(factory) => select.then(" AND factory_id = $2").bind(factory.0),
        None => select,
    }
}

fn name(row: &Row) -> Result<WebhookName, LedgerError> {
    WebhookName::parse(&row.text("name")?).map_err(LedgerError::corrupt)
}

/// The audit row of what was done with a webhook.
fn act(
    factory: Option<FactoryId>,
    actor: &str,
    action: &str,
    webhook: &WebhookName,
    detail: String,
) -> Entry {
    Entry {
        at: UnixTime::now(),
        factory,
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject: webhook.to_string(),
        outcome: Outcome::Done,
        code: String::new(),
        detail,
    }
}
