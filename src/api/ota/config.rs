//! `fioctl config rotate-certs` and `fioctl devices config rotate-certs`: a configuration change with a
//! `fio-rotate-certs` file starts a rotation.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use serde::Deserialize;

use super::super::Api;
use super::super::auth::Principal;
use super::super::devices::unknown_device;
use super::super::error::ApiError;
use super::super::role::Operator;
use super::super::rotations::RotationView;
use super::super::selection::FactoryQuery;
use super::devices::NameQuery;
use super::read;
use crate::fleet::rotations::{self, AskedRotation};
use crate::ledger::Started;
use crate::model::rotation::{FioconfigSettings, Plan, ROTATE_CERTS, RotationName, Selection};
use crate::model::{DeviceName, FactoryTrust, Label};

const EST_PATH: &str = "/.well-known/est";

/// A change of the configuration of devices.
#[derive(Deserialize)]
pub(super) struct Change {
    #[serde(default)]
    reason: String,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    name: String,
    value: String,
}

pub(super) async fn of_group(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Path((factory, group)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<RotationView>, ApiError> {
    let selection = Selection { group: Some(group), ..Selection::default() };
    start(&api, &principal, &FactoryQuery::named(factory), selection, None, &body).await
}

/// What fioctl asks for where no group is named.
pub(super) async fn of_no_group(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Path(factory): Path<String>,
) -> Result<Json<RotationView>, ApiError> {
    FactoryQuery::named(factory).select(&principal, &api.active.load())?;
    Err(ApiError::bad_request("name the group whose devices shall rotate (-g GROUP)"))
}

pub(super) async fn of_device(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(named): Query<NameQuery>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<RotationView>, ApiError> {
    let factory = query.select(&principal, &api.active.load())?.factory;
    let device = api.ledger.registered_device(factory.id, named.key(&name)).await?;
    let device = device.ok_or_else(unknown_device)?.name;
    let selection = Selection { named: Some(1), ..Selection::default() };
    start(&api, &principal, &query, selection, Some(vec![device]), &body).await
}

async fn start(
    api: &Api,
    principal: &Principal,
    query: &FactoryQuery,
    selection: Selection,
    named: Option<Vec<DeviceName>>,
    body: &[u8],
) -> Result<Json<RotationView>, ApiError> {
    let trust = api.fresh_factory(principal, query).await?;
    let change: Change = read(body)?;
    let file = match change.files.as_slice() {
        [file] if file.name == ROTATE_CERTS => file,
        _ => {
            let why = format!("files: only the one file {ROTATE_CERTS} is taken here");
            return Err(ApiError::bad_request(why));
        }
    };
    let (name, fioconfig) = meant(&file.value, api, &trust)?;
    let defaults = &api.rotation_defaults;
    let plan = Plan {
        selection,
        pace: defaults.pace,
        stop: Some(defaults.stop),
        patience: defaults.patience,
        fioconfig,
        reason: change.reason,
    };
    let asked = AskedRotation { name, plan, device_ca: None, target: None, named, request: None };
    let started = rotations::start(&api.ledger, &trust, asked, &principal.name).await?;
    let (Started::New(rotation) | Started::Before(rotation)) = started;
    Ok(Json(RotationView::new(&rotation, &trust)))
}

/// What the file tells a device: the rotation's name, and where it finds what it needs.
fn meant(
    value: &str,
    api: &Api,
    trust: &FactoryTrust,
) -> Result<(RotationName, FioconfigSettings), ApiError> {
    let lines = value.lines().filter_map(|line| line.trim().split_once('='));
    let said: BTreeMap<&str, &str> = lines.collect();
    let must = |key: &str| {
        let why = || ApiError::bad_request(format!("{ROTATE_CERTS}: there is no {key}="));
        said.get(key).copied().ok_or_else(why)
    };
    let default = &api.rotation_defaults.fioconfig;
    let ids = |key: &str, default: &str| {
        let ids = said.get(key).copied().unwrap_or(default);
        let why =
            || ApiError::bad_request(format!("{key} must be hex numbers separated by commas"));
        FioconfigSettings::are_ids(ids).then(|| ids.to_owned()).ok_or_else(why)
    };
    let settings = FioconfigSettings {
        label: label(must("ESTSERVER")?, api, trust)?,
        pkey_ids: ids("PKEYIDS", &default.pkey_ids)?,
        cert_ids: ids("CERTIDS", &default.cert_ids)?,
    };
    Ok((RotationName::parse(must("ROTATIONID")?)?, settings))
}

/// The label in `https://HOST[:PORT]/.well-known/est[/LABEL]`, which must be this Factory's EST.
fn label(server: &str, api: &Api, trust: &FactoryTrust) -> Result<Option<String>, ApiError> {
    let uri: Option<Uri> = server.parse().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("https"));
    let rest = uri.as_ref().and_then(|uri| uri.path().strip_prefix(EST_PATH));
    let (Some(uri), Some(rest)) = (&uri, rest) else {
        let why = "ESTSERVER must be https://HOST[:PORT]/.well-known/est[/LABEL]";
        return Err(ApiError::bad_request(why));
    };
    let host = &trust.factory.est_host;
    if uri.host() != Some(host.as_str()) {
        return Err(ApiError::bad_request(format!("ESTSERVER: this Factory's EST is at {host}")));
    }
    let label = rest.trim_matches('/');
    if label.is_empty() {
        return Ok(None);
    }
    let parsed = Label::parse(label)?;
    if api.active.load().snapshot().profiles.select(Some(&parsed)).is_none() {
        return Err(ApiError::bad_request(format!("ESTSERVER: no profile has the label {label}")));
    }
    Ok(Some(label.to_owned()))
}
