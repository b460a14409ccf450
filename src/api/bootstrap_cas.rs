//! `/v1/bootstrap-cas`: list, add and remove the CAs by whose certificates new devices come.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Api;
use super::error::ApiError;
use super::factories::CertificateView;
use super::role::{Admin, Viewer};
use super::selection::FactoryQuery;
use crate::clock::UnixTime;
use crate::pki::{Certificate, Fingerprint};

#[derive(Serialize)]
pub(super) struct BootstrapCas {
    bootstrap_cas: Vec<CertificateView>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Addition {
    /// One PEM certificate; what stands around the block is passed over.
    certificate: String,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<BootstrapCas>, ApiError> {
    let trust = api.fresh_factory(&principal, &query).await?;
    let bootstrap_cas = trust.bootstrap_cas.iter().map(|ca| (&ca.certificate).into()).collect();
    Ok(Json(BootstrapCas { bootstrap_cas }))
}

pub(super) async fn add(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Json(addition): Json<Addition>,
) -> Result<(StatusCode, Json<BootstrapCas>), ApiError> {
    let factory = api.fresh_factory(&principal, &query).await?.factory;
    let certificates = Certificate::from_pem(addition.certificate.as_bytes())?;
    let [certificate] = certificates.as_slice() else {
        return Err(refuse("one certificate is added at a time"));
    };
    if !certificate.extensions().ca {
        return Err(refuse("it is not a CA certificate (basicConstraints CA:TRUE)"));
    }
    if !certificate.validity().contains(UnixTime::now()) {
        return Err(refuse("it is not valid now"));
    }
    api.ledger.add_bootstrap_ca(factory.id, certificate, &principal.name).await?;
    (api.apply)().await;
    let Json(all) = list(Viewer(principal), State(api), Query(query)).await?;
    Ok((StatusCode::CREATED, Json(all)))
}

pub(super) async fn remove(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(key): Path<String>,
) -> Result<Json<BootstrapCas>, ApiError> {
    let factory = api.fresh_factory(&principal, &query).await?.factory;
    let key = Fingerprint::from_hex(&key).ok_or_else(|| {
        refuse("a bootstrap CA is named by the SHA-256 of its key, 64 hex digits")
    })?;
    if !api.ledger.remove_bootstrap_ca(factory.id, key, &principal.name).await? {
        return Err(ApiError::not_found("this Factory has no bootstrap CA with that key"));
    }
    (api.apply)().await;
    list(Viewer(principal), State(api), Query(query)).await
}

fn refuse(reason: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, reason)
}
