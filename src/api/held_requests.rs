//! `/v1/held-requests`: requests that wait for an operator's word.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Serialize;

use super::Api;
use super::device_cas::ACTOR;
use super::error::ApiError;
use super::selection::FactoryQuery;
use crate::ledger::{Decision, HeldRequest};
use crate::model::HeldRequestId;

#[derive(Serialize)]
pub(super) struct HeldRequests {
    held_requests: Vec<HeldRequest>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<HeldRequests>, ApiError> {
    let trust = query.select(&api.active.load())?;
    Ok(Json(HeldRequests { held_requests: api.ledger.held_requests(trust.factory.id).await? }))
}

pub(super) async fn approve(
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<i64>,
) -> Result<Json<HeldRequests>, ApiError> {
    decide(api, query, HeldRequestId(id), Decision::Approve).await
}

pub(super) async fn reject(
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<i64>,
) -> Result<Json<HeldRequests>, ApiError> {
    decide(api, query, HeldRequestId(id), Decision::Reject).await
}

async fn decide(
    api: Arc<Api>,
    query: FactoryQuery,
    id: HeldRequestId,
    decision: Decision,
) -> Result<Json<HeldRequests>, ApiError> {
    let trust = query.select(&api.active.load())?;
    if !api.ledger.decide_held_request(trust.factory.id, id, decision, ACTOR).await? {
        return Err(ApiError::not_found("no request with this id waits"));
    }
    list(State(api), Query(query)).await
}
