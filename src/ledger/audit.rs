//! The audit log, read back: for people, and to prove that nobody edited it (I10).

use serde::Serialize;

use super::database::{Row, Statement, Value};
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::FactoryId;
use crate::model::audit::{self, Entry, Outcome};

const PAGE: i64 = 1000;

/// A row of the audit log.
#[derive(Debug, Serialize)]
pub struct AuditRow {
    /// Its number; the first is 1 and none is missing.
    pub number: i64,
    /// When the decision was taken.
    pub at: UnixTime,
    /// The row of the Factory, if it was about one.
    pub factory: Option<i64>,
    /// Who asked.
    pub actor: String,
    /// What was asked.
    pub action: String,
    /// About what.
    pub subject: String,
    /// `done`, `refused` or `alarm`.
    pub outcome: String,
    /// The refusal's code, or empty.
    pub code: String,
    /// What else a reader should know.
    pub detail: String,
}

/// Which rows of the audit log are wanted; all conditions must hold. Without any: all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// About this Factory.
    pub factory: Option<FactoryId>,
    /// Numbered below this.
    pub before: Option<i64>,
    /// Of this action, for instance `simplereenroll`.
    pub action: Option<String>,
    /// About this device or Device CA, as [`AuditRow::subject`] says it.
    pub subject: Option<String>,
    /// That went so.
    pub outcome: Option<Outcome>,
    /// Taken then or later.
    pub since: Option<UnixTime>,
}

/// Where the audit log is not what was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// A row is missing, or rows changed places.
    #[error("row {expected} of the audit log is missing: row {found} follows the one before")]
    Missing {
        /// The number that should be there.
        expected: i64,
        /// The number that is.
        found: i64,
    },
    /// A row does not fit its hash.
    #[error("row {0} of the audit log was changed, or one before it was removed")]
    Changed(i64),
    /// The log ends before the head says.
    #[error("the audit log ends at row {found}; it had {expected} rows")]
    Truncated {
        /// How many rows were written.
        expected: i64,
        /// How many are there.
        found: i64,
    },
}

/// Who set a Factory's PKI up, and who changed it last.
#[derive(Debug, Default)]
pub struct PkiHistory {
    /// Who set the root.
    pub created: Option<PkiChange>,
    /// The latest change.
    pub updated: Option<PkiChange>,
}

/// A change of a Factory's PKI.
#[derive(Debug)]
pub struct PkiChange {
    /// Who made it.
    pub by: String,
    /// When.
    pub at: UnixTime,
}

impl Ledger {
    /// Who set a Factory's PKI up, and who changed it last.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn pki_history(&self, factory: FactoryId) -> Result<PkiHistory, LedgerError> {
        // The words are those of the index audit_pki, which makes both of them one look each.
        let changes = "SELECT actor, at FROM audit WHERE factory_id = $1 AND outcome = 'done' AND \
             action IN ('set-root', 'install-server-certificate', 'add-device-ca', \
             'disable-device-ca', 'enable-device-ca', 'revoke-device-ca', 'readmit-device-ca')";
        let created = " AND action = 'set-root' ORDER BY number LIMIT 1";
        let updated = " ORDER BY number DESC LIMIT 1";
        let mut found = Vec::new();
        for which in [created, updated] {
            let select = Statement::new(changes).then(which).bind(factory.0);
            let rows = self.database.rows(select).await?;
            found.push(rows.first().map(pki_change).transpose()?);
        }
        let updated = found.pop().flatten();
        Ok(PkiHistory { created: found.pop().flatten(), updated })
    }

    /// Rows of the audit log, newest first, `limit` at most.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn audit_rows(
        &self,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRow>, LedgerError> {
        let select = Statement::new(
            "SELECT number, at, factory_id, actor, action, subject, outcome, code, detail \
             FROM audit WHERE number < ",
        );
        let select = filter.narrow(select.value(filter.before.unwrap_or(i64::MAX)));
        let select = select.then(" ORDER BY number DESC LIMIT ").value(i64::from(limit));
        self.database.rows(select).await?.iter().map(audit_row).collect()
    }

    /// Reads the whole audit log and checks its chain; gives the number of rows.
    ///
    /// # Errors
    /// When the ledger fails. A fault of the chain is the inner error.
    pub async fn verify_audit(&self) -> Result<Result<i64, ChainFault>, LedgerError> {
        // Rows that are written meanwhile come after the head read here and are left for next time.
        let head = Statement::new("SELECT audit_number, audit_hash FROM ledger_head");
        let rows = self.database.rows(head).await?;
        let head = rows.first().ok_or_else(|| LedgerError::corrupt("no head row"))?;
        let (total, last_hash) = (head.integer("audit_number")?, head.bytes("audit_hash")?);

        let (mut number, mut hash) = (0, audit::GENESIS.to_vec());
        while number < total {
            let page = Statement::new(
                "SELECT number, at, factory_id, actor, action, subject, outcome, code, detail, \
                 hash FROM audit WHERE number > $1 AND number <= $2 ORDER BY number LIMIT $3",
            );
            let page = page.bind(number).bind(total).bind(PAGE);
            let rows = self.database.rows(page).await?;
            if rows.is_empty() {
                return Ok(Err(ChainFault::Truncated { expected: total, found: number }));
            }
            for row in &rows {
                let found = row.integer("number")?;
                if found != number + 1 {
                    return Ok(Err(ChainFault::Missing { expected: number + 1, found }));
                }
                let link = entry(row)?.map(|entry| audit::link(&hash, found, &entry));
                let stored = row.bytes("hash")?;
                if link.is_none_or(|link| link.as_bytes() != stored) {
                    return Ok(Err(ChainFault::Changed(found)));
                }
                (number, hash) = (found, stored);
            }
        }
        if hash != last_hash {
            return Ok(Err(ChainFault::Changed(number)));
        }
        Ok(Ok(total))
    }
}

impl AuditFilter {
    fn narrow(&self, select: Statement) -> Statement {
        let conditions: [(&str, Option<Value>); 5] = [
            ("factory_id =", self.factory.map(|FactoryId(id)| id.into())),
            ("action =", self.action.as_deref().map(Value::from)),
            ("subject =", self.subject.as_deref().map(Value::from)),
            ("outcome =", self.outcome.map(|outcome| outcome.as_str().into())),
            ("at >=", self.since.map(|UnixTime(since)| since.into())),
        ];
        conditions.into_iter().fold(select, |select, (condition, value)| match value {
            Some(value) => select.then(" AND ").then(condition).then(" ").value(value),
            None => select,
        })
    }
}

fn pki_change(row: &Row) -> Result<PkiChange, LedgerError> {
    Ok(PkiChange { by: row.text("actor")?, at: UnixTime(row.integer("at")?) })
}

pub(super) fn audit_row(row: &Row) -> Result<AuditRow, LedgerError> {
    Ok(AuditRow {
        number: row.integer("number")?,
        at: UnixTime(row.integer("at")?),
        factory: row.maybe_integer("factory_id")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        subject: row.text("subject")?,
        outcome: row.text("outcome")?,
        code: row.text("code")?,
        detail: row.text("detail")?,
    })
}

/// The entry of a row; `None` if its outcome is no word of ours, so that it cannot fit its hash.
fn entry(row: &Row) -> Result<Option<Entry>, LedgerError> {
    let row = audit_row(row)?;
    let Some(outcome) = Outcome::from_word(&row.outcome) else {
        return Ok(None);
    };
    Ok(Some(Entry {
        at: row.at,
        factory: row.factory.map(FactoryId),
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        outcome,
        code: row.code,
        detail: row.detail,
    }))
}
