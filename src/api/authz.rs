//! `/v1/authz`: may the device with this certificate pass? For a gateway that asks at each request, by
//! nginx's `auth_request` or Envoy's `ext_authz` for instance. The answer is the ledger's own, so a revoke or a switch holds at
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
use super::auth::Principal;
use super::error::ApiError;
use super::role::Operator;
use super::selection::FactoryQuery;
use super::sightings::device_of;
use crate::fleet::{self, Report};
use crate::pki::Certificate;

/// The certificate of the session: PEM, percent-encoded, as nginx has it in `$ssl_client_escaped_cert`.
const CERTIFICATE: HeaderName = HeaderName::from_static("x-client-cert");
/// The same as Envoy has it, among what else it says of the client.
const FORWARDED_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
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
    judge(&api, &principal, &query, address, || shown(&headers)).await
}

/// The same, where the query is the device's own: the Factory is that of the token.
pub(super) async fn decide_for_envoy(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Extension(address): Extension<SocketAddr>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    judge(&api, &principal, &FactoryQuery::default(), address, || forwarded(&headers)).await
}

async fn judge(
    api: &Api,
    principal: &Principal,
    query: &FactoryQuery,
    address: SocketAddr,
    certificate: impl FnOnce() -> Result<Certificate, ApiError>,
) -> Result<Response, ApiError> {
    let active = api.active.load_full();
    let trust = query.select(principal, &active)?;
    let certificate = certificate()?;
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

/// What nginx says. Of two, one may be the device's own word.
fn shown(headers: &HeaderMap) -> Result<Certificate, ApiError> {
    let escaped = only(headers, &CERTIFICATE).ok_or_else(|| {
        ApiError::bad_request(
            "X-Client-Cert must be there once, a PEM certificate, percent-encoded: \
             proxy_set_header X-Client-Cert $ssl_client_escaped_cert",
        )
    })?;
    read(escaped)
}

/// What Envoy says.
fn forwarded(headers: &HeaderMap) -> Result<Certificate, ApiError> {
    let header = only(headers, &FORWARDED_CERTIFICATE);
    let escaped = header.and_then(forwarded_certificate).ok_or_else(|| {
        ApiError::bad_request(
            "X-Forwarded-Client-Cert must be there once, with one element that has a Cert, as Envoy's \
             SANITIZE_SET makes it",
        )
    })?;
    read(escaped)
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut all = headers.get_all(name).iter();
    let first = all.next();
    first.filter(|_| all.next().is_none()).map(HeaderValue::as_bytes)
}

fn read(escaped: &[u8]) -> Result<Certificate, ApiError> {
    let pem: Vec<u8> = percent_decode(escaped).collect();
    let mut chain = Certificate::from_pem(&pem)?.into_iter();
    chain.next().ok_or_else(|| ApiError::bad_request("there is no certificate in it"))
}

/// The value of `Cert` in `Hash=…;Cert="…";Subject="…"`. Who the client is must be one proxy's word: of
/// several elements, which commas divide, the first may be the client's own.
fn forwarded_certificate(header: &[u8]) -> Option<&[u8]> {
    let mut certificate = None;
    for pair in pairs(header)? {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at(at);
        if key.trim_ascii().eq_ignore_ascii_case(b"cert") {
            let value = value.get(1..)?.trim_ascii();
            let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            if certificate.replace(quoted.unwrap_or(value)).is_some() {
                return None;
            }
        }
    }
    certificate
}

/// What semicolons divide, but for those in quotes; `None` where a comma divides elements.
fn pairs(header: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut pairs, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in header.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return None,
            b';' if !quoted => {
                pairs.push(header.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    pairs.push(header.get(start..)?);
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_found_in_what_envoy_forwards() {
        let found = |header: &str| forwarded_certificate(header.as_bytes()).map(<[u8]>::to_vec);
        let hash = "Hash=468ed33b";
        let subject = r#"Subject="CN=a\";Cert=\"x,OU=b;c""#;
        let expected = Some(b"-----BEGIN%20X".to_vec());
        for header in [
            "Cert=\"-----BEGIN%20X\"".to_owned(),
            format!("{hash};Cert=\"-----BEGIN%20X\";{subject}"),
            format!("{subject};cert=-----BEGIN%20X;{hash}"),
        ] {
            assert_eq!(found(&header), expected, "{header}");
        }
        for header in
            ["Cert=x;Cert=y", "", "Cert", hash, subject, "Cert=\"x\",Cert=\"y\"", "By=a,Cert=\"x\""]
        {
            assert_eq!(found(header), None, "{header}");
        }
    }
}
