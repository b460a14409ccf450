//! SQLite or PostgreSQL behind one small face, so that the rest of the ledger is one SQL text.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection, Postgres, Row as _, Sqlite};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a statement waits for SQLite's write lock, held by another process for instance.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 8;
/// A connection that was used a moment ago is not tried before it is used again: each read would wait
/// for one answer more.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// I1 does not rest on how the database is administered, and no other session's lock holds this
/// server up for ever.
const POSTGRES_SETTINGS: [(&str, &str); 4] = [
    ("synchronous_commit", "on"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "30s"),
];
/// Batches come in many sizes, and each size of a multi-row statement is a statement of its own.
const STATEMENT_CACHE: usize = 512;

/// A database that holds the ledger.
pub(super) enum Database {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres(PgPool),
}

/// One SQL text with its values.
pub(super) struct Statement {
    text: String,
    values: Vec<Value>,
}

/// PostgreSQL's text holds no NUL character; so SQLite's shall hold none either.
#[derive(Debug, thiserror::Error)]
#[error("text with a NUL character")]
pub(super) struct NulInText;

pub(super) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// One transaction.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// One row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// Makes the ledger's file, unless it is there, for its owner alone; SQLite gives the files beside it
/// the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => Err(why),
        _ => Ok(()),
    }
}

impl Database {
    /// Connects to `url` (`sqlite:PATH` or `postgres://…`) and brings its schema up to date.
    pub(super) async fn open(url: &str) -> Result<Self, sqlx::Error> {
        let database = if url.starts_with("sqlite:") {
            Self::open_sqlite(url).await?
        } else {
            let options = PgConnectOptions::from_str(url)?
                .statement_cache_capacity(STATEMENT_CACHE)
                .application_name("estd")
                .options(POSTGRES_SETTINGS);
            // Once by itself: the pool would try again and again and then say no more than that it
            // took too long.
            PgConnection::connect_with(&options).await?.close().await?;
            let pool = PgPoolOptions::new()
                .max_connections(POSTGRES_CONNECTIONS)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .before_acquire(|connection, last| {
                    Box::pin(async move {
                        if last.idle_for > TRUSTED_FOR {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                });
            Self::Postgres(pool.connect_with(options).await?)
        };
        match &database {
            Self::Sqlite { writer, .. } => MIGRATIONS.run(writer).await?,
            Self::Postgres(pool) => MIGRATIONS.run(pool).await?,
        }
        Ok(database)
    }

    async fn open_sqlite(url: &str) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // Else a statement of several rows needs a folder for temporary files, and fails where none
            // can be written to: a container whose file system is read-only.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(LOCK_TIMEOUT)
            .statement_cache_capacity(STATEMENT_CACHE);
        make_private(options.get_filename())?;
        let pool =
            || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        let readers = pool().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self::Sqlite { writer, readers })
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        Ok(match self {
            Self::Sqlite { writer, .. } => {
                Transaction::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)
            }
            Self::Postgres(pool) => Transaction::Postgres(pool.begin().await?),
        })
    }

    /// Reads outside any transaction.
    pub(super) async fn rows(&self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        Ok(match self {
            Self::Sqlite { readers, .. } => {
                let rows = statement.into_sqlite()?.fetch_all(readers).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(pool) => {
                let rows = statement.into_postgres()?.fetch_all(pool).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Whether it locks rows by `SELECT … FOR UPDATE`; otherwise the transaction locks it all.
    pub(super) fn has_row_locks(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Closes every connection, after what they are doing.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Transaction {
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(tx) => statement.into_sqlite()?.execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => {
                statement.into_postgres()?.execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    pub(super) async fn rows(&mut self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(tx) => {
                let rows = statement.into_sqlite()?.fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(tx) => {
                let rows = statement.into_postgres()?.fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

type SqliteQuery = sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments>;
type PostgresQuery = sqlx::query::Query<'static, Postgres, sqlx::postgres::PgArguments>;

impl Statement {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new() }
    }

    /// Appends the value of the next placeholder.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Appends a placeholder with its value.
    pub(super) fn value(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
        self
    }

    /// Appends SQL.
    pub(super) fn then(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends `($n, $n+1, …)` with its values; for `IN` and for one row of `VALUES`.
    pub(super) fn tuple(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.text.push('(');
        let first = self.values.len();
        for value in values {
            if self.values.len() > first {
                self.text.push_str(", ");
            }
            self = self.value(value);
        }
        self.text.push(')');
        self
    }

    /// Appends several tuples, separated by commas.
    pub(super) fn tuples<T: IntoIterator<Item = Value>>(
        self,
        tuples: impl IntoIterator<Item = T>,
    ) -> Self {
        tuples.into_iter().enumerate().fold(self, |statement, (index, tuple)| {
            let statement = if index > 0 { statement.then(", ") } else { statement };
            statement.tuple(tuple)
        })
    }

    fn refuse_nul(&self) -> Result<(), sqlx::Error> {
        let has_nul =
            |value: &Value| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
        if self.values.iter().any(has_nul) {
            return Err(sqlx::Error::Encode(Box::new(NulInText)));
        }
        Ok(())
    }

    // The text is put together from literals and placeholders alone; values are always bound.
    fn into_sqlite(self) -> Result<SqliteQuery, sqlx::Error> {
        self.refuse_nul()?;
        let query = sqlx::query(AssertSqlSafe(self.text));
        Ok(self.values.into_iter().fold(query, |query, value| match value {
            Value::Integer(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        }))
    }

    fn into_postgres(self) -> Result<PostgresQuery, sqlx::Error> {
        self.refuse_nul()?;
        let query = sqlx::query(AssertSqlSafe(self.text));
        Ok(self.values.into_iter().fold(query, |query, value| match value {
            Value::Integer(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        }))
    }
}

impl Row {
    pub(super) fn integer(&self, column: &str) -> Result<i64, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn maybe_integer(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn text(&self, column: &str) -> Result<String, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn bytes(&self, column: &str) -> Result<Vec<u8>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn maybe_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn i11_sqlite_needs_no_folder_for_temporary_files() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ledger").display());
        let database = Database::open(&url).await.unwrap();
        let ask = || Statement::new("PRAGMA temp_store");
        let of_reader = database.rows(ask()).await.unwrap();
        let of_writer = database.begin().await.unwrap().rows(ask()).await.unwrap();
        for rows in [of_reader, of_writer] {
            assert_eq!(rows.first().unwrap().integer("temp_store").unwrap(), 2, "memory");
        }
        database.close().await;
    }
}
