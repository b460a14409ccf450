//! The configuration of devices, as `fioctl config` and `fioctl devices config` change it: of the
//! Factory, of a group, of a device. The file `fio-rotate-certs` is kept nowhere: it starts a rotation.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::Api;
use super::super::auth::Principal;
use super::super::devices::unknown_device;
use super::super::error::ApiError;
use super::super::role::{Operator, Viewer};
use super::super::rotation_request::{REASON_LIMIT, profile};
use super::super::rotation_view::RotationView;
use super::super::selection::FactoryQuery;
use super::devices::NameQuery;
use super::read;
use crate::fleet::rotations::{self, AskedRotation};
use crate::ledger::Started;
use crate::model::rotation::{FioconfigSettings, Plan, ROTATE_CERTS, RotationName, Selection};
use crate::model::{ConfigFile, ConfigScope, DeviceMetadata, FactoryTrust};

const EST_PATH: &str = "/.well-known/est";

/// A change of the configuration of devices.
#[derive(Deserialize)]
pub(super) struct Change {
    #[serde(default)]
    reason: String,
    files: Vec<ConfigFile>,
}

/// The configuration of a scope as fioctl lists it: here, what there is now.
#[derive(Serialize)]
pub(super) struct Configs {
    config: Vec<Config>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Config {
    reason: &'static str,
    files: Vec<ConfigFile>,
}

/// Whose configuration a request is about.
struct Target {
    trust: FactoryTrust,
    scope: ConfigScope,
}

pub(super) async fn set_of_factory(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Path(factory): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let target = of_factory(&api, &principal, factory)?;
    change(&api, &principal, &target, &body).await
}

pub(super) async fn set_of_group(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Path((factory, group)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let target = of_group(&api, &principal, factory, group)?;
    change(&api, &principal, &target, &body).await
}

pub(super) async fn set_of_device(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(named): Query<NameQuery>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let target = of_device(&api, &principal, &query, &named, &name).await?;
    change(&api, &principal, &target, &body).await
}

/// What fioctl asks for where no group is named.
pub(super) async fn set_of_no_group(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Path(factory): Path<String>,
) -> Result<Json<Value>, ApiError> {
    FactoryQuery::named(factory).select(&principal, &api.active.load())?;
    Err(ApiError::bad_request("name the group whose devices shall rotate (-g GROUP)"))
}

pub(super) async fn show_of_factory(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Path(factory): Path<String>,
) -> Result<Json<Configs>, ApiError> {
    let target = of_factory(&api, &principal, factory)?;
    show(&api, &target).await
}

pub(super) async fn show_of_group(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Path((factory, group)): Path<(String, String)>,
) -> Result<Json<Configs>, ApiError> {
    let target = of_group(&api, &principal, factory, group)?;
    show(&api, &target).await
}

pub(super) async fn show_of_device(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(named): Query<NameQuery>,
    Path(name): Path<String>,
) -> Result<Json<Configs>, ApiError> {
    let target = of_device(&api, &principal, &query, &named, &name).await?;
    show(&api, &target).await
}

pub(super) async fn remove_of_factory(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Path((factory, file)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let target = of_factory(&api, &principal, factory)?;
    remove(&api, &principal, &target, &file).await
}

pub(super) async fn remove_of_group(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Path((factory, group, file)): Path<(String, String, String)>,
) -> Result<Json<Value>, ApiError> {
    let target = of_group(&api, &principal, factory, group)?;
    remove(&api, &principal, &target, &file).await
}

pub(super) async fn remove_of_device(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(named): Query<NameQuery>,
    Path((name, file)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let target = of_device(&api, &principal, &query, &named, &name).await?;
    remove(&api, &principal, &target, &file).await
}

fn of_factory(api: &Api, principal: &Principal, factory: String) -> Result<Target, ApiError> {
    let trust = FactoryQuery::named(factory).select(principal, &api.active.load())?;
    Ok(Target { trust, scope: ConfigScope::Factory })
}

fn of_group(
    api: &Api,
    principal: &Principal,
    factory: String,
    group: String,
) -> Result<Target, ApiError> {
    let trust = FactoryQuery::named(factory).select(principal, &api.active.load())?;
    let group = DeviceMetadata::parse(None, Some(&group), None)?.group.unwrap_or_default();
    Ok(Target { trust, scope: ConfigScope::Group(group) })
}

async fn of_device(
    api: &Api,
    principal: &Principal,
    query: &FactoryQuery,
    named: &NameQuery,
    name: &str,
) -> Result<Target, ApiError> {
    let trust = query.select(principal, &api.active.load())?;
    let device = api.ledger.registered_device(trust.factory.id, named.key(name)).await?;
    let device = device.ok_or_else(unknown_device)?.name;
    Ok(Target { trust, scope: ConfigScope::Device(device) })
}

/// Sets files; the one that starts a rotation comes alone and starts one.
async fn change(
    api: &Api,
    principal: &Principal,
    target: &Target,
    body: &[u8],
) -> Result<Json<Value>, ApiError> {
    let change: Change = read(body)?;
    if change.files.is_empty() {
        return Err(ApiError::bad_request("files: there is none"));
    }
    if change.files.iter().any(|file| file.name == ROTATE_CERTS) {
        return start(api, principal, target, &change).await;
    }
    let shared = !matches!(target.scope, ConfigScope::Device(_));
    for file in &change.files {
        file.check()?;
        if shared && !file.unencrypted {
            let why = "files of several devices are not encrypted here: say \"unencrypted\": true, or set \
                       it for each device";
            return Err(ApiError::bad_request(format!("{}: {why}", file.name)));
        }
        if !file.unencrypted && !is_base64(&file.value) {
            let why = "a file that is encrypted for the device's key is base64: say \"unencrypted\": true \
                       where it is not";
            return Err(ApiError::bad_request(format!("{}: {why}", file.name)));
        }
    }
    let (factory, actor) = (target.trust.factory.id, &principal.name);
    let Change { files, reason } = &change;
    api.ledger.set_config(factory, &target.scope, files, actor, reason).await?;
    Ok(Json(json!({})))
}

/// An agent that cannot read one file takes none, also not the one that makes it rotate.
fn is_base64(value: &str) -> bool {
    let text: String = value.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    !text.is_empty() && BASE64.decode(text.as_bytes()).is_ok()
}

async fn show(api: &Api, target: &Target) -> Result<Json<Configs>, ApiError> {
    let files = api.ledger.config(target.trust.factory.id, &target.scope).await?;
    let config = (!files.is_empty()).then_some(Config { reason: "", files });
    Ok(Json(Configs { config: config.into_iter().collect(), next: None }))
}

async fn remove(
    api: &Api,
    principal: &Principal,
    target: &Target,
    file: &str,
) -> Result<Json<Value>, ApiError> {
    let (factory, actor) = (target.trust.factory.id, &principal.name);
    if api.ledger.remove_config(factory, &target.scope, file, actor).await? {
        return Ok(Json(json!({})));
    }
    Err(ApiError::not_found("there is no such file"))
}

async fn start(
    api: &Api,
    principal: &Principal,
    target: &Target,
    change: &Change,
) -> Result<Json<Value>, ApiError> {
    let [file] = change.files.as_slice() else {
        return Err(ApiError::bad_request(format!("files: {ROTATE_CERTS} must come alone")));
    };
    let named = FactoryQuery::named(target.trust.factory.name.to_string());
    let trust = api.fresh_factory(principal, &named).await?;
    let (selection, named) = match &target.scope {
        ConfigScope::Factory => {
            return Err(ApiError::bad_request("name the group whose devices shall rotate"));
        }
        ConfigScope::Group(group) => {
            (Selection { group: Some(group.clone()), ..Selection::default() }, None)
        }
        ConfigScope::Device(device) => {
            (Selection { named: Some(1), ..Selection::default() }, Some(vec![device.clone()]))
        }
    };
    let (name, fioconfig) = meant(&file.value, api, &trust)?;
    let defaults = &api.rotation_defaults;
    let plan = Plan {
        selection,
        pace: defaults.pace,
        stop: Some(defaults.stop),
        patience: defaults.patience,
        validity: profile(api, "ESTSERVER", fioconfig.label.as_deref())?.validity_seconds,
        fioconfig,
        reason: change.reason.chars().take(REASON_LIMIT).collect(),
    };
    let asked = AskedRotation { name, plan, device_ca: None, target: None, named, request: None };
    let started = rotations::start(&api.ledger, &trust, asked, &principal.name).await?;
    let (Started::New(rotation) | Started::Before(rotation)) = started;
    serde_json::to_value(RotationView::new(&rotation, &trust))
        .map(Json)
        .map_err(|why| ApiError::unavailable(&why))
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
        label: label(must("ESTSERVER")?, trust)?,
        pkey_ids: ids("PKEYIDS", &default.pkey_ids)?,
        cert_ids: ids("CERTIDS", &default.cert_ids)?,
    };
    Ok((RotationName::parse(must("ROTATIONID")?)?, settings))
}

/// The label in `https://HOST[:PORT]/.well-known/est[/LABEL]`, which must be this Factory's EST.
fn label(server: &str, trust: &FactoryTrust) -> Result<Option<String>, ApiError> {
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
    let label = Some(rest.trim_matches('/')).filter(|label| !label.is_empty());
    Ok(label.map(str::to_owned))
}
