//! `GET /crl/{key}.crl`: the CRL of an online Device CA, for whoever checks its certificates.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use tracing::error;

use super::Api;
use super::error::ApiError;
use crate::factory::RevocationListError;
use crate::model::FactoryTrust;
use crate::pki::Fingerprint;

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path(file): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let key = file.strip_suffix(".crl").and_then(Fingerprint::from_hex);
    let key = key.ok_or_else(|| {
        ApiError::not_found("a CRL is named by the SHA-256 of its Device CA's key: /crl/HEX.crl")
    })?;
    let active = api.active.load_full();
    let ca = active
        .snapshot()
        .factories
        .iter()
        .flat_map(FactoryTrust::online_cas)
        .find(|ca| ca.certificate.public_key().fingerprint() == key)
        .ok_or_else(|| ApiError::not_found("no online Device CA has this key"))?;
    let list = api.revocation_lists.of(ca).await.map_err(|why| match why {
        RevocationListError::NotOnline => ApiError::not_found(&why.to_string()),
        _ => {
            error!(error = %why, "no CRL can be made");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no CRL can be made now; see the log")
        }
    })?;
    Ok(([(CONTENT_TYPE, "application/pkix-crl")], list.to_vec()))
}
