//! `/v1/authz`: may the device with this certificate pass? For a gateway that asks at each request, by
//! nginx's `auth_request` for instance. The answer is the ledger's own, so a revoke or a switch holds at
//! once; and it counts as a sighting (I3).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use percent_encoding::percent_decode;
use serde::Serialize;

use super::Api;
use super::error::ApiError;
use super::role::Operator;
use super::selection::FactoryQuery;
use super::sightings::device_of;
use crate::fleet::{self, Report};
use crate::pki::Certificate;

/// The certificate of the session: PEM, percent-encoded, as nginx has it in `$ssl_client_escaped_cert`.
const CERTIFICATE: HeaderName = HeaderName::from_static("x-client-cert");
/// Which device it is, for what stands behind the gateway.
const DEVICE: HeaderName = HeaderName::from_static("estd-device");
/// Why not: the refusal's code.
const REASON: HeaderName = HeaderName::from_static("estd-reason");

#[derive(Serialize)]
struct Passes {
    device: String,
    verdict: &'static str,
}

pub(super) async fn decide(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Extension(address): Extension<SocketAddr>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let active = api.active.load_full();
    let trust = query.select(&principal, &active)?;
    let certificate = shown(&headers)?;
    let device = device_of(&certificate);
    let report = Report { token: &principal.name, trust: &trust, certificate, address };
    match fleet::report(&api.ledger, &active, report).await {
        Ok(sighting) => {
            let named = HeaderValue::from_bytes(device.as_bytes());
            let named = named.unwrap_or(HeaderValue::from_static(""));
            let passes = Passes { device, verdict: sighting.as_str() };
            Ok(([(DEVICE, named)], Json(passes)).into_response())
        }
        Err(refusal) if refusal.is_unrecorded() => Err(ApiError::unavailable(&refusal)),
        Err(refusal) => {
            let why = format!("{refusal} ({})", refusal.code());
            let reason = HeaderValue::from_static(refusal.code());
            let answer = ApiError::new(StatusCode::FORBIDDEN, why);
            Ok(([(REASON, reason)], answer).into_response())
        }
    }
}

fn shown(headers: &HeaderMap) -> Result<Certificate, ApiError> {
    let why = "X-Client-Cert must be a PEM certificate, percent-encoded: \
               proxy_set_header X-Client-Cert $ssl_client_escaped_cert";
    let escaped = headers.get(CERTIFICATE).ok_or_else(|| ApiError::bad_request(why))?;
    let pem: Vec<u8> = percent_decode(escaped.as_bytes()).collect();
    let mut chain = Certificate::from_pem(&pem)?.into_iter();
    chain.next().ok_or_else(|| ApiError::bad_request(why))
}
