//! `/v1/device-keys`: which devices have taken another key into use, for what keeps their keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use super::error::ApiError;
use super::role::Viewer;
use super::selection::FactoryQuery;
use crate::fleet::webhooks::event_to_json;

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

#[derive(Deserialize)]
pub(super) struct KeysQuery {
    /// `next` of what was asked before; absent: from the beginning.
    since: Option<i64>,
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct DeviceKeys {
    /// As webhooks are told them, in their order.
    keys: Vec<Value>,
    /// What to ask for next, now or later.
    next: i64,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(page): Query<KeysQuery>,
) -> Result<Json<DeviceKeys>, ApiError> {
    let factory = query.select(&principal, &api.active.load())?.factory.id;
    let since = page.since.unwrap_or(0);
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let switches = api.ledger.switches(factory, since, limit).await?;
    let next = switches.last().map_or(since, |last| last.row.number);
    let mut keys = Vec::new();
    for switch in &switches {
        keys.push(event_to_json(&api.ledger, switch).await?);
    }
    Ok(Json(DeviceKeys { keys, next }))
}
