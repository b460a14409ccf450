//! `/v1/device-cas`: list them, request one made here, add one that the root has signed.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Api;
use super::error::ApiError;
use super::factories::CertificateView;
use super::selection::FactoryQuery;
use crate::factory::{Installing, RequestedKey, install, pending_requests, request_keys};
use crate::model::DeviceCa;
use crate::pki::Certificate;

/// Who the audit log names for what the API does.
pub(super) const ACTOR: &str = "admin";

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
}

#[derive(Serialize)]
pub(super) struct RequestView {
    /// One PEM block.
    csr: String,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<DeviceCas>, ApiError> {
    let trust = api.fresh_factory(&query).await?;
    Ok(Json(DeviceCas { device_cas: trust.device_cas.iter().map(Into::into).collect() }))
}

/// Makes a key for an online Device CA, unless one waits already, and gives its request.
pub(super) async fn request(
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<RequestView>, ApiError> {
    let factory = api.fresh_factory(&query).await?.factory;
    let wanted = [RequestedKey::DeviceCa];
    let random = SystemRandom::new();
    request_keys(&api.ledger, &api.key_store, &factory, &wanted, &random, ACTOR).await?;
    let pending = pending_requests(&api.ledger, &factory).await?;
    let request = pending.into_iter().find(|request| request.key == RequestedKey::DeviceCa);
    let request = request.ok_or_else(|| ApiError::not_found("the request is gone"))?;
    Ok(Json(RequestView { csr: request.pem }))
}

/// Adds a Device CA: online if its key waits here, else local.
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Json(addition): Json<Addition>,
) -> Result<(StatusCode, Json<DeviceCas>), ApiError> {
    let factory = api.fresh_factory(&query).await?.factory;
    let certificates = Certificate::from_pem(addition.certificate.as_bytes())?;
    let installed =
        install(&api.ledger, &factory, &certificates, Installing::DeviceCas, ACTOR).await?;
    if installed.new == 0 {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "this Factory has that certificate already",
        ));
    }
    (api.apply)().await;
    let Json(all) = list(State(api), Query(query)).await?;
    Ok((StatusCode::CREATED, Json(all)))
}
