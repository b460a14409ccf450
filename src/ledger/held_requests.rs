//! Requests that wait for an operator, listed and decided.

use serde::Serialize;

use super::database::Statement;
use super::facts::fingerprint;
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::audit::{Entry, Outcome};
use crate::model::{FactoryId, HeldRequestId, HeldState};

/// A request that waits, or that an operator has decided.
#[derive(Debug, Serialize)]
pub struct HeldRequest {
    /// Its row.
    pub id: i64,
    /// The device that it is for.
    pub device: String,
    /// SHA-256 of the PKCS#10 request.
    pub request_sha256: String,
    /// The operation that asked.
    pub operation: String,
    /// What kind of key it brings.
    pub key_algorithm: String,
    /// `waiting`, `approved` or `rejected`.
    pub state: String,
    /// When it was first asked.
    pub asked_at: UnixTime,
    /// When it was decided.
    pub decided_at: Option<UnixTime>,
}

/// What an operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The device gets its certificate when it asks again.
    Approve,
    /// The device is refused when it asks again.
    Reject,
}

impl Ledger {
    /// The held requests of a Factory, oldest first.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn held_requests(&self, factory: FactoryId) -> Result<Vec<HeldRequest>, LedgerError> {
        let select = Statement::new(
            "SELECT id, device, request_sha256, operation, key_algorithm, state, asked_at, \
             decided_at FROM held_request WHERE factory_id = $1 ORDER BY id",
        );
        let rows = self.database.rows(select.bind(factory.0)).await?;
        rows.iter()
            .map(|row| {
                Ok(HeldRequest {
                    id: row.integer("id")?,
                    device: row.text("device")?,
                    request_sha256: fingerprint(row, "request_sha256")?.to_string(),
                    operation: row.text("operation")?,
                    key_algorithm: row.text("key_algorithm")?,
                    state: row.text("state")?,
                    asked_at: UnixTime(row.integer("asked_at")?),
                    decided_at: row.maybe_integer("decided_at")?.map(UnixTime),
                })
            })
            .collect()
    }

    /// Decides a request that waits. `false` if none with that id does.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn decide_held_request(
        &self,
        factory: FactoryId,
        id: HeldRequestId,
        decision: Decision,
        actor: &str,
    ) -> Result<bool, LedgerError> {
        let (state, action) = match decision {
            Decision::Approve => (HeldState::Approved, "approve-request"),
            Decision::Reject => (HeldState::Rejected, "reject-request"),
        };
        let now = UnixTime::now();
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let update = Statement::new(
            "UPDATE held_request SET state = $1, decided_at = $2 \
             WHERE id = $3 AND factory_id = $4 AND state = $5 RETURNING device, request_sha256",
        )
        .bind(state.as_str())
        .bind(now.0)
        .bind(id.0)
        .bind(factory.0)
        .bind(HeldState::Waiting.as_str());
        let rows = transaction.change(update).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        transaction.note(Entry {
            at: now,
            factory: Some(factory),
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: row.text("device")?,
            outcome: Outcome::Done,
            code: String::new(),
            detail: format!("request {}", fingerprint(row, "request_sha256")?),
        });
        transaction.commit().await?;
        Ok(true)
    }
}
