//! `GET /ota/factories/{factory}/users/self/`: whose token it is. fioctl names Device CAs by it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::super::Api;
use super::super::error::ApiError;
use super::super::role::Viewer;
use super::super::selection::FactoryQuery;

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct User {
    polis_id: String,
    name: String,
    role: &'static str,
}

pub(super) async fn own(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Path(factory): Path<String>,
) -> Result<Json<User>, ApiError> {
    FactoryQuery::named(factory).select(&principal, &api.active.load())?;
    let role = principal.role.as_str();
    Ok(Json(User { polis_id: principal.name.clone(), name: principal.name, role }))
}
