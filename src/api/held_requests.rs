//! `/v1/held-requests`: requests that wait for an operator's word.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Serialize;

use super::Api;
use super::auth::Principal;
use super::error::ApiError;
use super::role::{Operator, Viewer};
use super::selection::FactoryQuery;
use crate::ledger::{Decision, HeldRequest};
use crate::model::HeldRequestId;

#[derive(Serialize)]
pub(super) struct HeldRequests {
    held_requests: Vec<HeldRequest>,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<HeldRequests>, ApiError> {
    let trust = query.select(&principal, &api.active.load())?;
    Ok(Json(HeldRequests { held_requests: api.ledger.held_requests(trust.factory.id).await? }))
}

pub(super) async fn approve(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<i64>,
) -> Result<Json<HeldRequests>, ApiError> {
    decide(principal, api, query, HeldRequestId(id), Decision::Approve).await
}

pub(super) async fn reject(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<i64>,
) -> Result<Json<HeldRequests>, ApiError> {
    decide(principal, api, query, HeldRequestId(id), Decision::Reject).await
}

async fn decide(
    principal: Principal,
    api: Arc<Api>,
    query: FactoryQuery,
    id: HeldRequestId,
    decision: Decision,
) -> Result<Json<HeldRequests>, ApiError> {
    let trust = query.select(&principal, &api.active.load())?;
    if !api.ledger.decide_held_request(trust.factory.id, id, decision, &principal.name).await? {
        return Err(ApiError::not_found("no request with this id waits"));
    }
    list(Viewer(principal), State(api), Query(query)).await
}
