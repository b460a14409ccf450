//! `/v1/devices`: list them, tell the story of one, let one come back, deny one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Principal;
use super::error::ApiError;
use super::role::{Operator, Viewer};
use super::selection::{FactoryQuery, time};
use crate::ledger::{DevicePage, DeviceStory, InventoryFilter};
use crate::model::{Allowance, DeviceName, FactoryTrust};
use crate::pki::Fingerprint;

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

/// Which devices of the inventory are wanted. Times are RFC 3339, or a date, which begins at 0 h UTC.
#[derive(Deserialize)]
pub(super) struct InventoryQuery {
    after: Option<String>,
    limit: Option<u32>,
    /// The serial number of the Device CA of the credential in use.
    device_ca: Option<String>,
    expires_before: Option<String>,
    key_algorithm: Option<String>,
    silent_since: Option<String>,
    group: Option<String>,
    #[serde(default)]
    pending: bool,
}

impl InventoryQuery {
    fn filter(&self, trust: &FactoryTrust) -> Result<InventoryFilter, ApiError> {
        let device_ca = self.device_ca.as_deref().map(|serial| {
            let found = trust.device_ca_by_written_serial(serial);
            found.map(|ca| ca.id).ok_or_else(|| {
                ApiError::not_found("this Factory has no Device CA with that serial number")
            })
        });
        Ok(InventoryFilter {
            device_ca: device_ca.transpose()?,
            expires_before: time("expires_before", self.expires_before.as_deref())?,
            key_algorithm: self.key_algorithm.clone(),
            silent_since: time("silent_since", self.silent_since.as_deref())?,
            group: self.group.clone(),
            pending: self.pending,
        })
    }
}

/// What goes with an allowance.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WantedAllowance {
    /// SHA-256 of the one certificate, in hex; absent: any.
    certificate: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Allowed {
    device: String,
    allowed_once: bool,
}

#[derive(Serialize)]
pub(super) struct Denied {
    device: String,
    denied: bool,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(wanted): Query<InventoryQuery>,
) -> Result<Json<DevicePage>, ApiError> {
    let trust = query.select(&principal, &api.active.load())?;
    let filter = wanted.filter(&trust)?;
    let after = wanted.after.unwrap_or_default();
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    Ok(Json(api.ledger.devices(trust.factory.id, &filter, &after, limit).await?))
}

pub(super) async fn show(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(name): Path<String>,
) -> Result<Json<DeviceStory>, ApiError> {
    let trust = query.select(&principal, &api.active.load())?;
    let story = api.ledger.device(trust.factory.id, &DeviceName::parse(&name)?).await?;
    story.map(Json).ok_or_else(unknown_device)
}

pub(super) async fn allow(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(name): Path<String>,
    Json(wanted): Json<WantedAllowance>,
) -> Result<Json<Allowed>, ApiError> {
    let allowance = match &wanted.certificate {
        None => Allowance::Any,
        Some(text) => Allowance::Certificate(Fingerprint::from_hex(text).ok_or_else(|| {
            let why = "certificate must be the SHA-256 of a certificate, 64 hex digits";
            ApiError::new(StatusCode::BAD_REQUEST, why)
        })?),
    };
    set_allowance(&api, &principal, &query, name, Some(allowance)).await
}

pub(super) async fn disallow(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(name): Path<String>,
) -> Result<Json<Allowed>, ApiError> {
    set_allowance(&api, &principal, &query, name, None).await
}

async fn set_allowance(
    api: &Api,
    principal: &Principal,
    query: &FactoryQuery,
    name: String,
    allowance: Option<Allowance>,
) -> Result<Json<Allowed>, ApiError> {
    let trust = query.select(principal, &api.active.load())?;
    let device = DeviceName::parse(&name)?;
    let factory = trust.factory.id;
    if !api.ledger.allow_device(factory, &device, allowance, &principal.name).await? {
        return Err(unknown_device());
    }
    Ok(Json(Allowed { device: name, allowed_once: allowance.is_some() }))
}

/// Denies a device with every credential that it has.
pub(super) async fn deny(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(name): Path<String>,
) -> Result<Json<Denied>, ApiError> {
    let trust = query.select(&principal, &api.active.load())?;
    let device = DeviceName::parse(&name)?;
    if !api.ledger.deny_device(trust.factory.id, &device, &principal.name).await? {
        return Err(unknown_device());
    }
    Ok(Json(Denied { device: name, denied: true }))
}

pub(super) fn unknown_device() -> ApiError {
    ApiError::not_found("there is no such device")
}
