//! `/v1/audit`: the audit log, newest first, and whether its chain holds.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::Api;
use super::error::ApiError;
use super::role::{Viewer, ViewerOfAll};
use super::selection::FactoryQuery;
use crate::ledger::AuditRow;

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

#[derive(Deserialize)]
pub(super) struct AuditQuery {
    before: Option<i64>,
    limit: Option<u32>,
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
    Query(page): Query<AuditQuery>,
) -> Result<Json<AuditPage>, ApiError> {
    let scope = query.scope(&principal, &api.active.load())?;
    let factory = scope.map(|trust| trust.factory.id);
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    Ok(Json(AuditPage { rows: api.ledger.audit_rows(factory, page.before, limit).await? }))
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
