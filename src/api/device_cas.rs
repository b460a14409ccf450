//! `/v1/device-cas`: list them, request one made here, add one that the root has signed, change the
//! state of one, tell who depends on it.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Principal;
use super::error::ApiError;
use super::factories::CertificateView;
use super::role::{Admin, Operator, Viewer};
use super::rotation_view::RotationView;
use super::selection::FactoryQuery;
use crate::clock::UnixTime;
use crate::factory::{
    self, Asked, Installing, RequestedKey, install, pending_requests, readmit, request_keys,
};
use crate::ledger::Dependents;
use crate::model::{DeviceCa, DeviceCaAct, FactoryTrust};
use crate::pki::Certificate;

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

#[derive(Serialize)]
pub(super) struct DeviceCas {
    device_cas: Vec<DeviceCaView>,
}

/// A Device CA, for people.
#[derive(Serialize)]
pub(super) struct DeviceCaView {
    kind: &'static str,
    state: &'static str,
    #[serde(flatten)]
    certificate: CertificateView,
}

impl From<&DeviceCa> for DeviceCaView {
    fn from(ca: &DeviceCa) -> Self {
        Self {
            kind: ca.kind.as_str(),
            state: ca.state.as_str(),
            certificate: (&ca.certificate).into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Addition {
    /// PEM; what stands around the block is passed over.
    certificate: String,
    /// Whether it is one that was revoked and comes back.
    #[serde(default)]
    again: bool,
}

/// What goes with a change of state.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Change {
    /// Why, for the audit log.
    reason: String,
    /// How many devices revoking may strand.
    strand: u64,
}

#[derive(Deserialize)]
pub(super) struct DependentsQuery {
    after: Option<i64>,
    limit: Option<u32>,
}

/// What stands between a Device CA and its revocation.
#[derive(Serialize)]
pub(super) struct PhaseOut {
    device_ca: DeviceCaView,
    /// The Device CA that issues to its devices when they re-enrol.
    issuing_ca: Option<DeviceCaView>,
    /// The rotation that takes its devices off it, with its projected end.
    rotation: Option<RotationView>,
    #[serde(flatten)]
    dependents: Dependents,
}

#[derive(Serialize)]
pub(super) struct RequestView {
    /// One PEM block.
    csr: String,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<DeviceCas>, ApiError> {
    let trust = api.fresh_factory(&principal, &query).await?;
    Ok(Json(DeviceCas { device_cas: trust.device_cas.iter().map(Into::into).collect() }))
}

/// Makes a key for an online Device CA, unless one waits already, and gives its request.
pub(super) async fn request(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<RequestView>, ApiError> {
    let factory = api.fresh_factory(&principal, &query).await?.factory;
    let wanted = [RequestedKey::DeviceCa];
    let (random, actor) = (SystemRandom::new(), &principal.name);
    request_keys(&api.ledger, &api.key_store, &factory, &wanted, &random, actor).await?;
    let pending = pending_requests(&api.ledger, &factory).await?;
    let request = pending.into_iter().find(|request| request.key == RequestedKey::DeviceCa);
    let request = request.ok_or_else(|| ApiError::not_found("the request is gone"))?;
    Ok(Json(RequestView { csr: request.pem }))
}

/// Adds a Device CA: online if its key waits here, else local.
pub(super) async fn add(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Json(addition): Json<Addition>,
) -> Result<(StatusCode, Json<DeviceCas>), ApiError> {
    let trust = api.fresh_factory(&principal, &query).await?;
    let certificates = Certificate::from_pem(addition.certificate.as_bytes())?;
    if addition.again {
        for certificate in &certificates {
            readmit(&api.ledger, &trust, certificate, &principal.name).await?;
        }
        (api.apply)().await;
        let Json(all) = list(Viewer(principal), State(api), Query(query)).await?;
        return Ok((StatusCode::CREATED, Json(all)));
    }
    let factory = &trust.factory;
    let (installing, actor) = (Installing::DeviceCas, &principal.name);
    let installed = install(&api.ledger, factory, &certificates, installing, actor).await?;
    if installed.new == 0 {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "this Factory has that certificate already",
        ));
    }
    (api.apply)().await;
    let Json(all) = list(Viewer(principal), State(api), Query(query)).await?;
    Ok((StatusCode::CREATED, Json(all)))
}

pub(super) async fn show(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(serial): Path<String>,
) -> Result<Json<DeviceCaView>, ApiError> {
    let trust = api.fresh_factory(&principal, &query).await?;
    Ok(Json(find(&trust, &serial)?.into()))
}

pub(super) async fn disable(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(serial): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<DeviceCaView>, ApiError> {
    change_state(principal, api, query, serial, change, DeviceCaAct::Disable).await
}

pub(super) async fn enable(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(serial): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<DeviceCaView>, ApiError> {
    change_state(principal, api, query, serial, change, DeviceCaAct::Enable).await
}

pub(super) async fn revoke(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(serial): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<DeviceCaView>, ApiError> {
    change_state(principal, api, query, serial, change, DeviceCaAct::Revoke).await
}

pub(super) async fn phase_out(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(page): Query<DependentsQuery>,
    Path(serial): Path<String>,
) -> Result<Json<PhaseOut>, ApiError> {
    let trust = api.fresh_factory(&principal, &query).await?;
    let device_ca = find(&trust, &serial)?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let rotation = api.ledger.rotation_off(device_ca.id).await?;
    Ok(Json(PhaseOut {
        rotation: rotation.map(|rotation| RotationView::new(&rotation, &trust)),
        dependents: api.ledger.dependents(device_ca.id, page.after, limit).await?,
        issuing_ca: trust
            .issuing_ca(UnixTime::now(), 0)
            .filter(|ca| ca.id != device_ca.id)
            .map(Into::into),
        device_ca: device_ca.into(),
    }))
}

/// The Device CAs that are enabled or disabled, as one PEM file for gateways that read no more than
/// that.
pub(super) async fn bundle(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<impl IntoResponse, ApiError> {
    let trust = api.fresh_factory(&principal, &query).await?;
    Ok(([(CONTENT_TYPE, "application/x-pem-file")], factory::bundle(&trust)?))
}

async fn change_state(
    principal: Principal,
    api: Arc<Api>,
    query: FactoryQuery,
    serial: String,
    change: Change,
    act: DeviceCaAct,
) -> Result<Json<DeviceCaView>, ApiError> {
    let trust = api.fresh_factory(&principal, &query).await?;
    let device_ca = find(&trust, &serial)?;
    let Change { reason, strand } = &change;
    let asked = Asked { device_ca, act, strand: *strand, reason };
    factory::act(&api.ledger, &trust.factory, asked, &principal.name).await?;
    (api.apply)().await;
    show(Viewer(principal), State(api), Query(query), Path(serial)).await
}

fn find<'a>(trust: &'a FactoryTrust, serial: &str) -> Result<&'a DeviceCa, ApiError> {
    let found = trust.device_ca_by_written_serial(serial);
    found
        .ok_or_else(|| ApiError::not_found("this Factory has no Device CA with that serial number"))
}
