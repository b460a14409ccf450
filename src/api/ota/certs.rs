//! `/ota/factories/{factory}/certs/`: a Factory's certificates, the requests that its root signs, and
//! what the root has signed.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::Api;
use super::super::error::ApiError;
use super::super::role::{Admin, Viewer};
use super::super::selection::FactoryQuery;
use super::read;
use super::scripts::scripts;
use crate::clock::UnixTime;
use crate::factory::{Field, RequestedKey, Upload, pending_requests, request_keys};
use crate::ledger::{PkiChange, PkiHistory};
use crate::model::{DeviceCaState, ServerPurpose};
use crate::pki::{self, Certificate, Malformed};

/// What clients send beside certificates, and what is said to them, not by them: passed over.
const PASSED_OVER: [&str; 9] = [
    "change-meta",
    "disabled-ca-serials",
    "ca-csr",
    "tls-csr",
    "est-tls-csr",
    "create_ca",
    "create_device_ca",
    "sign_ca_csr",
    "sign_tls_csr",
];

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Certificates {
    root_crt: String,
    ca_crt: Option<String>,
    tls_crt: Option<String>,
    est_tls_crt: Option<String>,
    disabled_ca_serials: Vec<String>,
    change_meta: ChangeMeta,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ChangeMeta {
    created_by: Option<String>,
    created_at: Option<UnixTime>,
    updated_by: Option<String>,
    updated_at: Option<UnixTime>,
}

impl From<PkiHistory> for ChangeMeta {
    fn from(history: PkiHistory) -> Self {
        let parts = |change: Option<PkiChange>| change.map(|it| (it.by, it.at)).unzip();
        let (created_by, created_at) = parts(history.created);
        let (updated_by, updated_at) = parts(history.updated);
        Self { created_by, created_at, updated_by, updated_at }
    }
}

/// The requests that are asked for.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[expect(clippy::struct_excessive_bools, reason = "that is what clients send")]
struct Wanted {
    first_time_init: bool,
    ca_csr: bool,
    est_tls_csr: bool,
    tls_csr: bool,
}

/// The Factory's certificates; 206 before it has a root.
pub(super) async fn show(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Path(factory): Path<String>,
) -> Result<Response, ApiError> {
    let trust = api.fresh_factory(&principal, &FactoryQuery::named(factory)).await?;
    let Some(root) = &trust.factory.root else {
        return Ok((StatusCode::PARTIAL_CONTENT, Json(json!({}))).into_response());
    };
    let servers = api.ledger.server_certificates().await?;
    let server = |purpose: ServerPurpose| {
        let mut servers = servers.iter();
        let own = servers.find(|it| it.factory == trust.factory.id && it.purpose == purpose);
        own.map(|server| pem(&server.certificate)).transpose()
    };
    let cas: Result<String, _> = trust.trusted_cas().map(|ca| pem(&ca.certificate)).collect();
    let disabled = trust.device_cas.iter().filter(|ca| ca.state == DeviceCaState::Disabled);
    let certificates = Certificates {
        root_crt: pem(root)?,
        ca_crt: Some(cas?).filter(|cas| !cas.is_empty()),
        tls_crt: server(ServerPurpose::Gateway)?,
        est_tls_crt: server(ServerPurpose::Est)?,
        disabled_ca_serials: disabled.map(|ca| ca.certificate.serial().to_decimal()).collect(),
        change_meta: api.ledger.pki_history(trust.factory.id).await?.into(),
    };
    Ok(Json(certificates).into_response())
}

fn pem(certificate: &Certificate) -> Result<String, Malformed> {
    pki::to_pem("CERTIFICATE", certificate.der())
}

/// Makes the keys that are wanted and do not wait already, and gives their requests.
pub(super) async fn request(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Path(factory): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<BTreeMap<&'static str, String>>), ApiError> {
    let factory = api.fresh_factory(&principal, &FactoryQuery::named(factory)).await?.factory;
    // Nobody but an old fioctl, which wants everything, asks for nothing in particular.
    let asked = if body.trim_ascii().is_empty() { &b"{}"[..] } else { &body };
    let is_old = read::<Map<String, Value>>(asked)?.is_empty();
    let wanted: Wanted = read(asked)?;
    if wanted.first_time_init && factory.root.is_some() {
        let why = "the Factory has its Root of Trust already, and it is set once";
        return Err(ApiError::new(StatusCode::CONFLICT, why));
    }
    let keys = [
        ("ca-csr", RequestedKey::DeviceCa, wanted.ca_csr),
        ("est-tls-csr", RequestedKey::Server(ServerPurpose::Est), wanted.est_tls_csr),
        ("tls-csr", RequestedKey::Server(ServerPurpose::Gateway), wanted.tls_csr),
    ];
    let keys = keys.into_iter().filter(|(_, _, wanted)| is_old || *wanted);
    let keys: Vec<(&str, RequestedKey)> = keys.map(|(field, key, _)| (field, key)).collect();
    let wanted: Vec<RequestedKey> = keys.iter().map(|(_, key)| *key).collect();
    let (random, actor) = (SystemRandom::new(), &principal.name);
    request_keys(&api.ledger, &api.key_store, &factory, &wanted, &random, actor).await?;
    let pending = pending_requests(&api.ledger, &factory).await?;
    let mut answer: BTreeMap<&str, String> = BTreeMap::new();
    for (field, key) in keys {
        let request = pending.iter().find(|request| request.key == key);
        let request = request.ok_or_else(|| ApiError::not_found("the request is gone"))?;
        answer.insert(field, request.pem.clone());
    }
    if is_old {
        answer.extend(scripts(&factory.name));
    }
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Takes in what the root has signed, all of it or nothing.
pub(super) async fn upload(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Path(factory): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let trust = api.fresh_factory(&principal, &FactoryQuery::named(factory)).await?;
    let written: Map<String, Value> = read(&body)?;
    let upload = read_upload(&written)?;
    crate::factory::upload(&api.ledger, &trust, &upload, &principal.name).await?;
    (api.apply)().await;
    Ok(Json(json!({})))
}

/// What is null or empty was not sent: old clients send every field that they know.
fn read_upload(written: &Map<String, Value>) -> Result<Upload<'_>, ApiError> {
    let mut upload = Upload::default();
    let mut refused = BTreeMap::new();
    for (name, value) in written {
        let mut refuse = |reason: &str| refused.insert(name.clone(), reason.to_owned());
        let Some(field) = Field::from_name(name) else {
            if !PASSED_OVER.contains(&name.as_str()) {
                refuse("this server knows no such field");
            }
            continue;
        };
        match value {
            Value::Null => {}
            Value::String(text) if text.trim().is_empty() => {}
            Value::String(text) => upload.set(field, text),
            _ => {
                refuse("it must be PEM in a string");
            }
        }
    }
    if refused.is_empty() {
        return Ok(upload);
    }
    let message = "the upload cannot be read";
    Err(ApiError::fields(StatusCode::BAD_REQUEST, message, refused))
}
