//! `/ota/devices/`: the devices as fioctl lists, shows and deletes them. To delete one is to deny it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::Api;
use super::super::devices::unknown_device;
use super::super::error::ApiError;
use super::super::role::{Operator, Viewer};
use super::super::selection::FactoryQuery;
use crate::clock::UnixTime;
use crate::ledger::{DeviceFilter, DeviceKey, RegisteredDevice};
use crate::model::FactoryName;
use crate::pki::{self, Malformed};

const PAGE: i64 = 100;
const MAX_PAGE: i64 = 1000;

/// Filters of the hosted service that mean nothing here are passed over.
#[derive(Deserialize)]
pub(super) struct ListQuery {
    name_ilike: Option<String>,
    group: Option<String>,
    uuid: Option<String>,
    page: Option<i64>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct NameQuery {
    by_uuid: Option<String>,
}

#[derive(Serialize)]
pub(super) struct DeviceList {
    devices: Vec<DeviceView>,
    total: i64,
    next: Option<String>,
}

/// A device as fioctl reads it: an absent text is empty.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct DeviceView {
    uuid: String,
    name: String,
    factory: String,
    /// In lists.
    device_group: String,
    created_at: String,
    last_seen: String,
    hardware_id: String,
    public_key: String,
}

/// One device: its group is an object here.
#[derive(Serialize)]
pub(super) struct DeviceDetails {
    #[serde(flatten)]
    device: DeviceView,
    group: Option<Group>,
}

#[derive(Serialize)]
struct Group {
    name: String,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(wanted): Query<ListQuery>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Json<DeviceList>, ApiError> {
    let factory = query.select(&principal, &api.active.load())?.factory;
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let page = wanted.page.unwrap_or(1).max(1);
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let filter = DeviceFilter {
        name_like: said(wanted.name_ilike),
        group: said(wanted.group),
        uuid: said(wanted.uuid),
    };
    let skip = (page - 1).saturating_mul(limit);
    let found = api.ledger.registered_devices(factory.id, &filter, skip, limit).await?;
    let devices: Result<_, _> =
        found.devices.iter().map(|device| view(device, &factory.name)).collect();
    let is_last = skip.saturating_add(limit) >= found.total;
    let next = if is_last { None } else { Some(page_url(raw.as_deref(), &headers, page + 1)) };
    Ok(Json(DeviceList { devices: devices?, total: found.total, next }))
}

pub(super) async fn show(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(named): Query<NameQuery>,
    Path(name): Path<String>,
) -> Result<Json<DeviceDetails>, ApiError> {
    let factory = query.select(&principal, &api.active.load())?.factory;
    let device = api.ledger.registered_device(factory.id, named.key(&name)).await?;
    let device = device.ok_or_else(unknown_device)?;
    let group = device.metadata.group.clone().map(|name| Group { name });
    Ok(Json(DeviceDetails { device: view(&device, &factory.name)?, group }))
}

pub(super) async fn deny(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(named): Query<NameQuery>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let factory = query.select(&principal, &api.active.load())?.factory;
    let device = api.ledger.registered_device(factory.id, named.key(&name)).await?;
    let device = device.ok_or_else(unknown_device)?;
    api.ledger.deny_device(factory.id, &device.name, &principal.name).await?;
    Ok(Json(json!({})))
}

impl NameQuery {
    pub(super) fn key<'a>(&self, name: &'a str) -> DeviceKey<'a> {
        match self.by_uuid.as_deref() {
            None | Some("" | "0") => DeviceKey::Any(name),
            Some(_) => DeviceKey::Uuid(name),
        }
    }
}

fn view(device: &RegisteredDevice, factory: &FactoryName) -> Result<DeviceView, Malformed> {
    let metadata = device.metadata.clone();
    let uuid = device.name.to_string();
    let key = device
        .certificate
        .as_ref()
        .map(|certificate| pki::to_pem("PUBLIC KEY", certificate.public_key().der()));
    Ok(DeviceView {
        name: metadata.alias.unwrap_or_else(|| uuid.clone()),
        uuid,
        factory: factory.to_string(),
        device_group: metadata.group.unwrap_or_default(),
        created_at: time(device.registered_at),
        last_seen: device.last_seen_at.map(time).unwrap_or_default(),
        hardware_id: metadata.hardware_id.unwrap_or_default(),
        public_key: key.transpose()?.unwrap_or_default(),
    })
}

/// RFC 3339 with the offset written out: fioctl before 2022 reads no `Z`.
pub(super) fn time(time: UnixTime) -> String {
    time.to_string().replace('Z', "+00:00")
}

/// The URL of another page of the same list: fioctl fetches it as it stands.
fn page_url(query: Option<&str>, headers: &HeaderMap, page: i64) -> String {
    let header = |name: &str| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let scheme = header("x-forwarded-proto").filter(|scheme| *scheme == "https").unwrap_or("http");
    let host = header(HOST.as_str()).unwrap_or_default();
    let kept = query.unwrap_or_default().split('&');
    let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("page="));
    let query: Vec<String> = kept.map(str::to_owned).chain([format!("page={page}")]).collect();
    format!("{scheme}://{host}/ota/devices/?{}", query.join("&"))
}
