//! `/v1/factories`: every Factory with its certificates; register another.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Api;
use super::device_cas::DeviceCaView;
use super::error::ApiError;
use super::role::{AdminOfAll, Viewer};
use crate::clock::UnixTime;
use crate::keys::ActiveSnapshot;
use crate::ledger::NewFactory;
use crate::model::{FactoryName, FactoryTrust, HostName, ServerPurpose};
use crate::pki::Certificate;

#[derive(Serialize)]
pub(super) struct Factories {
    factories: Vec<FactoryView>,
}

#[derive(Serialize)]
struct FactoryView {
    name: String,
    est_host: String,
    gateway_host: String,
    root: Option<CertificateView>,
    est_tls: Option<CertificateView>,
    tls: Option<CertificateView>,
    device_cas: Vec<DeviceCaView>,
}

/// A certificate, for people.
#[derive(Serialize)]
pub(super) struct CertificateView {
    pub(super) subject: String,
    pub(super) serial: String,
    pub(super) key_algorithm: String,
    pub(super) public_key_sha256: String,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
}

impl From<&Certificate> for CertificateView {
    fn from(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject().to_string(),
            serial: certificate.serial().to_string(),
            key_algorithm: certificate.public_key().algorithm().to_string(),
            public_key_sha256: certificate.public_key().fingerprint().to_string(),
            not_before: certificate.validity().not_before,
            not_after: certificate.validity().not_after,
        }
    }
}

/// A Factory to be registered without a PKI.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Addition {
    name: String,
    est_host: String,
    gateway_host: String,
    #[serde(default)]
    any_organizational_unit: bool,
}

pub(super) async fn add(
    AdminOfAll(principal): AdminOfAll,
    State(api): State<Arc<Api>>,
    Json(addition): Json<Addition>,
) -> Result<(StatusCode, Json<Factories>), ApiError> {
    let new = NewFactory {
        name: FactoryName::parse(&addition.name)?,
        est_host: HostName::parse(&addition.est_host)?,
        gateway_host: HostName::parse(&addition.gateway_host)?,
        any_organizational_unit: addition.any_organizational_unit,
    };
    api.ledger.add_factory(new, &principal.name).await?;
    (api.apply)().await;
    let Json(all) = list(Viewer(principal), State(api)).await?;
    Ok((StatusCode::CREATED, Json(all)))
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
) -> Result<Json<Factories>, ApiError> {
    let active = api.active.load();
    let factories = principal.visible(&active).map(|trust| view(trust, &active)).collect();
    Ok(Json(Factories { factories }))
}

fn view(trust: &FactoryTrust, active: &ActiveSnapshot) -> FactoryView {
    let factory = &trust.factory;
    let server = |purpose: ServerPurpose| {
        active.server(factory.id, purpose).map(|identity| (&identity.certificate).into())
    };
    FactoryView {
        name: factory.name.to_string(),
        est_host: factory.est_host.to_string(),
        gateway_host: factory.gateway_host.to_string(),
        root: factory.root.as_ref().map(Into::into),
        est_tls: server(ServerPurpose::Est),
        tls: server(ServerPurpose::Gateway),
        device_cas: trust.device_cas.iter().map(Into::into).collect(),
    }
}
