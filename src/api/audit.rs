//! `/v1/audit`: the audit log, newest first, and whether its chain holds.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::Api;
use super::error::ApiError;
use super::role::{Viewer, ViewerOfAll};
use super::selection::{FactoryQuery, time};
use crate::ledger::{AuditFilter, AuditRow};
use crate::model::FactoryId;
use crate::model::audit::Outcome;

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

/// Which rows are wanted. A time is RFC 3339, or a date, which begins at 0 h UTC.
#[derive(Deserialize)]
pub(super) struct AuditQuery {
    before: Option<i64>,
    limit: Option<u32>,
    action: Option<String>,
    subject: Option<String>,
    outcome: Option<String>,
    since: Option<String>,
}

impl AuditQuery {
    fn filter(self, factory: Option<FactoryId>) -> Result<AuditFilter, ApiError> {
        let outcome = self.outcome.as_deref().map(|word| {
            let why = || ApiError::bad_request("an outcome is done, refused or alarm");
            Outcome::from_word(word).ok_or_else(why)
        });
        Ok(AuditFilter {
            factory,
            before: self.before,
            outcome: outcome.transpose()?,
            since: time("since", self.since.as_deref())?,
            action: self.action,
            subject: self.subject,
        })
    }
}

#[derive(Serialize)]
pub(super) struct AuditPage {
    rows: Vec<AuditRow>,
}

#[derive(Serialize)]
pub(super) struct Verification {
    intact: bool,
    rows: Option<i64>,
    fault: Option<String>,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(wanted): Query<AuditQuery>,
) -> Result<Json<AuditPage>, ApiError> {
    let scope = query.scope(&principal, &api.active.load())?;
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let filter = wanted.filter(scope.map(|trust| trust.factory.id))?;
    Ok(Json(AuditPage { rows: api.ledger.audit_rows(&filter, limit).await? }))
}

pub(super) async fn verify(
    _: ViewerOfAll,
    State(api): State<Arc<Api>>,
) -> Result<Json<Verification>, ApiError> {
    Ok(Json(match api.ledger.verify_audit().await? {
        Ok(rows) => Verification { intact: true, rows: Some(rows), fault: None },
        Err(fault) => Verification { intact: false, rows: None, fault: Some(fault.to_string()) },
    }))
}
