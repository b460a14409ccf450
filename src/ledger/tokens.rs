//! Tokens of the API: made, listed, revoked, and found by their hash.

use serde::Serialize;

use super::change::{ChangeError, ChangeRefused};
use super::database::{Row, Statement, Value};
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::audit::{Entry, Outcome};
use crate::model::{Factory, FactoryId, Role, Token, TokenName};
use crate::pki::Fingerprint;

/// A token to be made.
pub struct NewToken<'a> {
    /// Its name.
    pub name: TokenName,
    /// What its bearer may do.
    pub role: Role,
    /// The only Factory that it is good for; `None`: every Factory.
    pub factory: Option<&'a Factory>,
    /// When it ends by itself.
    pub expires_at: Option<UnixTime>,
}

/// A token in a list.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct TokenSummary {
    /// Its name.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    pub role: &'static str,
    /// The only Factory that it is good for; `None`: every Factory.
    pub factory: Option<String>,
    /// `active`, `expired` or `revoked`.
    pub state: &'static str,
    /// When it was made.
    pub created_at: UnixTime,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: Option<UnixTime>,
    /// When somebody ended it.
    pub revoked_at: Option<UnixTime>,
}

impl Ledger {
    /// Makes a token whose text has this hash.
    ///
    /// # Errors
    /// When its name is taken, or the ledger fails.
    pub async fn create_token(
        &self,
        token: NewToken<'_>,
        sha256: Fingerprint,
        actor: &str,
    ) -> Result<(), ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let same_name = Statement::new("SELECT id FROM token WHERE name = $1");
        if !transaction.rows(same_name.bind(token.name.as_str())).await?.is_empty() {
            return Err(ChangeRefused::TokenNameTaken.into());
        }
        let factory = token.factory.map(|factory| factory.id);
        let now = UnixTime::now();
        let id = transaction.next_id();
        let insert = Statement::new(
            "INSERT INTO token (id, factory_id, name, role, sha256, created_at, created_by, \
             expires_at, revoked_at) VALUES ",
        )
        .tuple([
            id.into(),
            factory.map(|FactoryId(id)| id).into(),
            token.name.as_str().into(),
            token.role.as_str().into(),
            sha256.as_bytes().into(),
            now.0.into(),
            actor.into(),
            token.expires_at.map(|UnixTime(end)| end).into(),
            Value::Integer(None),
        ]);
        transaction.execute(insert).await?;
        let scope = scope(token.factory.map(|factory| factory.name.as_str()));
        let until = token.expires_at.map(|end| format!(", until {end}")).unwrap_or_default();
        transaction.note(Entry {
            at: now,
            factory,
            actor: actor.to_owned(),
            action: "create-token".to_owned(),
            subject: token.name.to_string(),
            outcome: Outcome::Done,
            code: String::new(),
            detail: format!("role {}, {scope}{until}", token.role),
        });
        Ok(transaction.commit().await?)
    }

    /// Ends a token; of one Factory only, if one is named. `false` if there is none to end.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn revoke_token(
        &self,
        name: &TokenName,
        factory: Option<FactoryId>,
        actor: &str,
    ) -> Result<bool, LedgerError> {
        let now = UnixTime::now();
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let update = Statement::new(
            "UPDATE token SET revoked_at = $1 WHERE name = $2 AND revoked_at IS NULL",
        )
        .bind(now.0)
        .bind(name.as_str());
        let update = match factory {
            Some(factory) => update.then(" AND factory_id = $3").bind(factory.0),
            None => update,
        };
        let returning = " RETURNING role, factory_id, \
             (SELECT name FROM factory WHERE factory.id = token.factory_id) AS factory";
        let rows = transaction.change(update.then(returning)).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        transaction.note(Entry {
            at: now,
            factory: row.maybe_integer("factory_id")?.map(FactoryId),
            actor: actor.to_owned(),
            action: "revoke-token".to_owned(),
            subject: name.to_string(),
            outcome: Outcome::Done,
            code: String::new(),
            detail: format!(
                "role {}, {}",
                row.text("role")?,
                scope(row.maybe_text("factory")?.as_deref())
            ),
        });
        transaction.commit().await?;
        Ok(true)
    }

    /// Every token that was ever made, in the order of their names; those of one Factory only, if
    /// one is named.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn tokens(
        &self,
        factory: Option<FactoryId>,
    ) -> Result<Vec<TokenSummary>, LedgerError> {
        let select = Statement::new(
            "SELECT token.name, token.role, token.factory_id, factory.name AS factory, \
             token.created_at, token.created_by, token.expires_at, token.revoked_at \
             FROM token LEFT JOIN factory ON factory.id = token.factory_id",
        );
        let select = match factory {
            Some(factory) => select.then(" WHERE token.factory_id = $1").bind(factory.0),
            None => select,
        };
        let rows = self.database.rows(select.then(" ORDER BY token.name")).await?;
        let now = UnixTime::now();
        rows.iter()
            .map(|row| {
                let token = read(row)?;
                Ok(TokenSummary {
                    name: token.name.to_string(),
                    role: token.role.as_str(),
                    factory: row.maybe_text("factory")?,
                    state: token.state(now).as_str(),
                    created_at: UnixTime(row.integer("created_at")?),
                    created_by: row.text("created_by")?,
                    expires_at: token.expires_at,
                    revoked_at: token.revoked_at,
                })
            })
            .collect()
    }

    /// The token whose text has this hash, in whatever state it is.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn token_of_hash(&self, sha256: Fingerprint) -> Result<Option<Token>, LedgerError> {
        let select = Statement::new(
            "SELECT name, role, factory_id, expires_at, revoked_at FROM token WHERE sha256 = $1",
        );
        let rows = self.database.rows(select.bind(sha256.as_bytes())).await?;
        rows.first().map(read).transpose()
    }
}

fn read(row: &Row) -> Result<Token, LedgerError> {
    let role = row.text("role")?;
    Ok(Token {
        name: TokenName::parse(&row.text("name")?).map_err(LedgerError::corrupt)?,
        role: Role::from_word(&role).ok_or(LedgerError::Corrupt(role))?,
        factory: row.maybe_integer("factory_id")?.map(FactoryId),
        expires_at: row.maybe_integer("expires_at")?.map(UnixTime),
        revoked_at: row.maybe_integer("revoked_at")?.map(UnixTime),
    })
}

fn scope(factory: Option<&str>) -> String {
    factory.map_or_else(|| "every Factory".to_owned(), |name| format!("Factory {name}"))
}
