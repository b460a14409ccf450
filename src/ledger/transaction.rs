//! A transaction that writes: it holds the lock on `ledger_head`, gives out ids, and ends with the
//! audit rows of its decisions, chained (I10).

use super::LedgerError;
use super::database::{Database, Row, Statement, Transaction, Value};
use crate::model::FactoryId;
use crate::model::audit::{self, Entry};

/// How many values one statement binds: SQLite takes 32,766.
const VALUES_AT_ONCE: usize = 30_000;

pub(super) struct WriteTransaction {
    transaction: Transaction,
    head: Head,
    entries: Vec<Entry>,
    dirty: bool,
}

struct Head {
    last_id: i64,
    snapshot_version: i64,
    audit_number: i64,
    audit_hash: Vec<u8>,
}

/// Makes the head row of a new ledger.
pub(super) async fn found(database: &Database) -> Result<(), LedgerError> {
    let mut transaction = database.begin().await?;
    let insert = Statement::new(
        "INSERT INTO ledger_head (id, last_id, snapshot_version, audit_number, audit_hash, key_check) \
         VALUES ",
    )
    .tuple([
        1.into(),
        0.into(),
        0.into(),
        0.into(),
        Value::from(&audit::GENESIS[..]),
        Value::Bytes(None),
    ])
    .then(" ON CONFLICT (id) DO NOTHING");
    transaction.execute(insert).await?;
    Ok(transaction.commit().await?)
}

impl WriteTransaction {
    /// Begins, and waits for every other writer to end.
    pub(super) async fn begin(database: &Database) -> Result<Self, LedgerError> {
        let mut transaction = database.begin().await?;
        let lock = if database.has_row_locks() { " FOR UPDATE" } else { "" };
        let select = Statement::new(
            "SELECT last_id, snapshot_version, audit_number, audit_hash FROM ledger_head",
        );
        let rows = transaction.rows(select.then(lock)).await?;
        let row = rows.first().ok_or_else(|| LedgerError::corrupt("no head row"))?;
        let head = Head {
            last_id: row.integer("last_id")?,
            snapshot_version: row.integer("snapshot_version")?,
            audit_number: row.integer("audit_number")?,
            audit_hash: row.bytes("audit_hash")?,
        };
        Ok(Self { transaction, head, entries: Vec::new(), dirty: false })
    }

    /// An id for a new row of any table.
    pub(super) fn next_id(&mut self) -> i64 {
        self.head.last_id += 1;
        self.head.last_id
    }

    /// The number of the last row of the audit log so far.
    pub(super) fn audit_number(&self) -> i64 {
        self.head.audit_number
    }

    /// Makes every replica read the Factories anew.
    pub(super) fn change_snapshot(&mut self) {
        self.head.snapshot_version += 1;
    }

    /// Adds a row to the audit log.
    pub(super) fn note(&mut self, entry: Entry) {
        self.note_all([entry]);
    }

    /// Adds rows to the audit log.
    pub(super) fn note_all(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.entries.extend(
            entries
                .into_iter()
                .map(|entry| Entry { subject: audit::shortened(&entry.subject), ..entry }),
        );
    }

    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, sqlx::Error> {
        self.dirty = true;
        self.transaction.execute(statement).await
    }

    /// Inserts rows, by as many statements as it takes: a database binds so many values to one. `then`
    /// ends each.
    pub(super) async fn insert<const N: usize>(
        &mut self,
        into: &str,
        mut rows: Vec<[Value; N]>,
        then: &str,
    ) -> Result<(), sqlx::Error> {
        while !rows.is_empty() {
            let more = rows.split_off(rows.len().min(VALUES_AT_ONCE / N));
            self.execute(Statement::new(into).tuples(rows).then(then)).await?;
            rows = more;
        }
        Ok(())
    }

    /// Executes a statement that changes rows and returns some.
    pub(super) async fn change(&mut self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        self.dirty = true;
        self.transaction.rows(statement).await
    }

    pub(super) async fn rows(&mut self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        self.transaction.rows(statement).await
    }

    /// Writes the audit rows and the head, and commits. Nothing of it is visible before.
    pub(super) async fn commit(mut self) -> Result<(), LedgerError> {
        if self.dirty || !self.entries.is_empty() {
            self.write_audit().await?;
            self.write_head().await?;
        }
        Ok(self.transaction.commit().await?)
    }

    async fn write_audit(&mut self) -> Result<(), LedgerError> {
        let mut rows: Vec<[Value; 10]> = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            self.head.audit_number += 1;
            let hash = audit::link(&self.head.audit_hash, self.head.audit_number, &entry);
            self.head.audit_hash = hash.as_bytes().to_vec();
            rows.push([
                self.head.audit_number.into(),
                entry.at.0.into(),
                entry.factory.map(|FactoryId(id)| id).into(),
                entry.actor.into(),
                entry.action.into(),
                entry.subject.into(),
                entry.outcome.as_str().into(),
                entry.code.into(),
                entry.detail.into(),
                hash.as_bytes().into(),
            ]);
        }
        let into = "INSERT INTO audit (number, at, factory_id, actor, action, subject, outcome, code, \
                    detail, hash) VALUES ";
        Ok(self.insert(into, rows, "").await?)
    }

    async fn write_head(&mut self) -> Result<(), LedgerError> {
        let update = Statement::new(
            "UPDATE ledger_head SET last_id = $1, snapshot_version = $2, audit_number = $3, \
             audit_hash = $4",
        )
        .bind(self.head.last_id)
        .bind(self.head.snapshot_version)
        .bind(self.head.audit_number)
        .bind(self.head.audit_hash.as_slice());
        self.transaction.execute(update).await?;
        Ok(())
    }
}
