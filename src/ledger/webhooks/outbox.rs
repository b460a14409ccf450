//! The audit log as the outbox of webhooks: it is numbered without a gap, its rows become visible in
//! that order, and they were written in the same transaction as what they tell.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::super::audit::{AuditRow, audit_row};
use super::super::database::{Row, Statement};
use super::super::factories::certificate;
use super::super::{Ledger, LedgerError};
use super::Turn;
use crate::clock::UnixTime;
use crate::model::audit::Outcome;
use crate::model::{EventKind, FactoryId};
use crate::pki::{Certificate, Fingerprint};

/// How many events that wait are counted.
const COUNTED: u32 = 10_000;

const COLUMNS: &str = "audit.number, audit.at, audit.factory_id, audit.actor, audit.action, \
    audit.subject, audit.outcome, audit.code, audit.detail, factory.name AS factory";

/// Which rows are events of any kind: in the words of the index `audit_event`, so that it is used.
static ANY_EVENT: LazyLock<String> = LazyLock::new(|| {
    let actions = EventKind::ALL.into_iter().flat_map(EventKind::actions);
    let actions: Vec<_> = actions.copied().collect();
    format!("(outcome = 'alarm' OR (outcome = 'done' AND action IN {}))", words(&actions))
});

/// An event that a webhook is told of.
#[derive(Debug)]
pub struct WebhookEvent {
    /// What kind of thing happened.
    pub kind: EventKind,
    /// The name of the Factory, if it is about one.
    pub factory: Option<String>,
    /// What the audit log says.
    pub row: AuditRow,
}

/// Events that wait for a webhook, in their order.
#[derive(Debug)]
pub struct WebhookEvents {
    /// The events.
    pub events: Vec<WebhookEvent>,
    /// Up to which row of the audit log there are no others.
    pub looked_to: i64,
}

impl Ledger {
    /// The events after those that a webhook is done with, `limit` at most.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn webhook_events(
        &self,
        turn: &Turn,
        limit: u32,
    ) -> Result<WebhookEvents, LedgerError> {
        let head = Statement::new("SELECT audit_number FROM ledger_head");
        let head = self.database.rows(head).await?;
        let head = head.first().ok_or_else(|| LedgerError::corrupt("no head row"))?;
        let head = head.integer("audit_number")?;
        let select = format!(
            "SELECT {COLUMNS} FROM audit LEFT JOIN factory ON factory.id = audit.factory_id WHERE "
        );
        let select =
            waiting(select, turn, head).then(" ORDER BY number LIMIT ").value(i64::from(limit));
        let rows = self.database.rows(select).await?;
        let events: Vec<_> = rows.iter().map(event).collect::<Result<_, _>>()?;
        let full = events.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let last = events.last().filter(|_| full).map(|event| event.row.number);
        Ok(WebhookEvents { events, looked_to: last.unwrap_or(head) })
    }

    /// The switches of devices to other certificates after that row of the audit log, in their order,
    /// `limit` at most.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn switches(
        &self,
        factory: FactoryId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<WebhookEvent>, LedgerError> {
        let select = format!(
            "SELECT {COLUMNS} FROM audit LEFT JOIN factory ON factory.id = audit.factory_id \
             WHERE {} AND {} AND factory_id = ",
            *ANY_EVENT,
            is_of(EventKind::DeviceRotated),
        );
        let select = Statement::new(select).value(factory.0).then(" AND number > ").value(after);
        let select = select.then(" ORDER BY number LIMIT ").value(i64::from(limit));
        self.database.rows(select).await?.iter().map(event).collect()
    }

    /// How many events wait for a webhook, and when the first of them happened.
    pub(super) async fn pending(
        &self,
        turn: &Turn,
    ) -> Result<(i64, Option<UnixTime>), LedgerError> {
        let select = "SELECT COUNT(*) AS count, MIN(at) AS since FROM (SELECT at FROM audit WHERE ";
        let select = waiting(select.to_owned(), turn, i64::MAX).then(" ORDER BY number LIMIT ");
        let select = select.value(i64::from(COUNTED)).then(") AS waiting");
        let rows = self.database.rows(select).await?;
        let row = rows.first().ok_or_else(|| LedgerError::corrupt("no count"))?;
        Ok((row.integer("count")?, row.maybe_integer("since")?.map(UnixTime)))
    }

    /// The dead letters of a webhook that an operator wants to be delivered again, `limit` at most.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn letters_to_redeliver(
        &self,
        turn: &Turn,
        limit: u32,
    ) -> Result<Vec<WebhookEvent>, LedgerError> {
        let select = format!(
            "SELECT {COLUMNS} FROM webhook_dead_letter AS letter \
             JOIN audit ON audit.number = letter.number \
             LEFT JOIN factory ON factory.id = audit.factory_id \
             WHERE letter.webhook_id = $1 AND letter.again = 1 ORDER BY letter.number LIMIT $2"
        );
        let select = Statement::new(select).bind(turn.id.0).bind(i64::from(limit));
        self.database.rows(select).await?.iter().map(event).collect()
    }

    /// Those of these certificates that a device has or had.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn certificates(
        &self,
        factory: FactoryId,
        device: &str,
        certificates: &[Fingerprint],
    ) -> Result<HashMap<Fingerprint, Certificate>, LedgerError> {
        let select = Statement::new(
            "SELECT certificate FROM credential JOIN device ON device.id = device_id \
             WHERE device.factory_id = $1 AND device.name = $2 AND sha256 IN ",
        )
        .bind(factory.0)
        .bind(device)
        .tuple(certificates.iter().map(|one| one.as_bytes().into()));
        let rows = self.database.rows(select).await?;
        let read = |row| certificate(row, "certificate").map(|one| (one.fingerprint(), one));
        rows.iter().map(read).collect()
    }
}

/// Continues a `WHERE` by what makes a row one of the events that wait for a webhook.
fn waiting(select: String, turn: &Turn, up_to: i64) -> Statement {
    let select = Statement::new(select).then("number > ").value(turn.progress.done_to);
    let select = select.then(" AND number <= ").value(up_to);
    let wanted: Vec<_> = turn.events.wanted().iter().map(|kind| is_of(*kind)).collect();
    let select = select.then(&format!(" AND {} AND ({})", *ANY_EVENT, wanted.join(" OR ")));
    match turn.factory {
        Some(factory) => select.then(" AND factory_id = ").value(factory.0),
        None => select,
    }
}

fn is_of(kind: EventKind) -> String {
    match kind {
        EventKind::Alarm => "outcome = 'alarm'".to_owned(),
        _ => format!("(outcome = 'done' AND action IN {})", words(kind.actions())),
    }
}

/// Words of our own as a list of SQL.
fn words(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    format!("({})", quoted.join(", "))
}

fn event(row: &Row) -> Result<WebhookEvent, LedgerError> {
    let (factory, row) = (row.maybe_text("factory")?, audit_row(row)?);
    let kind = kind(&row).ok_or_else(|| LedgerError::Corrupt(row.action.clone()))?;
    Ok(WebhookEvent { kind, factory, row })
}

fn kind(row: &AuditRow) -> Option<EventKind> {
    EventKind::of(&row.action, Outcome::from_word(&row.outcome)?)
}

#[cfg(test)]
mod tests {
    use super::ANY_EVENT;

    /// Otherwise every look at the outbox reads the audit log as a whole.
    #[test]
    fn the_index_of_events_is_in_the_words_of_the_query() {
        let migration = include_str!("../../../migrations/0011_webhooks.sql");
        let words: Vec<_> = migration.split_whitespace().collect();
        let index = format!("audit_event ON audit (number) WHERE {};", *ANY_EVENT);
        assert!(words.join(" ").contains(&index), "{index}");
    }
}
