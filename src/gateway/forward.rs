//! What is not the gateway's own is passed on to the server behind it, with who the device is in
//! headers that nobody else can set.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout;
use tracing::warn;

use super::Caller;
use crate::client::{ClientError, Upstream};
use crate::listener::Session;
use crate::model::Refusal;
use crate::pki::to_pem;

const DEVICE: HeaderName = HeaderName::from_static("estd-device");
const FACTORY: HeaderName = HeaderName::from_static("estd-factory");
/// SHA-256 of the certificate.
const CERTIFICATE_SHA256: HeaderName = HeaderName::from_static("estd-certificate-sha256");
/// The certificate: PEM, percent-encoded, as nginx has it.
const CERTIFICATE: HeaderName = HeaderName::from_static("x-client-cert");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How long an answer may stand still.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// What is about one connection and not about the request (RFC 9110 §7.6.1).
const OF_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];
/// What begins so says who asks, which is this gateway's to say.
const WHO_ASKS: [&str; 4] = ["estd-", "x-client-cert", "x-forwarded-", "x-real-ip"];

pub(super) async fn pass(
    upstream: &Upstream<Body>,
    caller: &Caller,
    session: &Session,
    mut request: Request,
) -> Result<Response, Refusal> {
    let path = request.uri().path_and_query().cloned().ok_or(Refusal::PathUnknown)?;
    let host = request.headers().get(HOST).cloned();
    leave_out_connection(request.headers_mut());
    leave_out_who_asks(request.headers_mut());
    say_who_asks(request.headers_mut(), caller, session, host)?;
    let mut response = upstream.pass(path, request).await.map_err(|why| {
        let refusal = match why {
            ClientError::Timeout => Refusal::UpstreamSlow,
            _ => Refusal::UpstreamUnreachable,
        };
        let code = refusal.code();
        warn!(code, error = %why, device = %caller.device, "nothing can be passed on");
        refusal
    })?;
    leave_out_connection(response.headers_mut());
    Ok(response.map(while_it_comes))
}

/// The body, as long as it does not stand still: a device's place is not held for ever.
fn while_it_comes(body: Incoming) -> Body {
    Body::from_stream(unfold(body.into_data_stream(), async |mut body| {
        let stalled = io::Error::other("the server behind this gateway stopped within its answer");
        match timeout(STALL_TIMEOUT, body.next()).await {
            Ok(data) => data.map(|data| (data.map_err(io::Error::other), body)),
            Err(_elapsed) => Some((Err(stalled), body)),
        }
    }))
}

fn leave_out_connection(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(','));
    let named: Vec<HeaderName> = named.filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.iter().chain(&OF_CONNECTION) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// A server may take `Estd_Device` for `Estd-Device`.
fn leave_out_who_asks(headers: &mut HeaderMap) {
    let says = |name: &HeaderName| {
        let name = name.as_str().replace('_', "-");
        WHO_ASKS.iter().any(|prefix| name.starts_with(prefix))
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| says(name)).cloned().collect();
    for name in names.iter().chain([&FORWARDED]) {
        headers.remove(name);
    }
}

fn say_who_asks(
    headers: &mut HeaderMap,
    caller: &Caller,
    session: &Session,
    host: Option<HeaderValue>,
) -> Result<(), Refusal> {
    let peer = session.peer();
    let certificate = peer.certificate.as_ref().ok_or(Refusal::ClientCertificateRequired)?;
    let certificate = &certificate.certificate;
    let pem = to_pem("CERTIFICATE", certificate.der());
    let pem = pem.map_err(|why| Refusal::CertificateUnusable(why.to_string()))?;
    let fingerprint = certificate.fingerprint().to_string();
    let escaped = utf8_percent_encode(&pem, NON_ALPHANUMERIC).to_string();
    let address = peer.address.ip().to_string();
    for (name, value) in [
        (DEVICE, caller.device.as_str()),
        (FACTORY, caller.factory.name.as_str()),
        (CERTIFICATE_SHA256, &fingerprint),
        (CERTIFICATE, &escaped),
        (FORWARDED_FOR, &address),
        (FORWARDED_PROTO, "https"),
    ] {
        let value = HeaderValue::from_bytes(value.as_bytes());
        headers.insert(name, value.map_err(|_| Refusal::IdentityMalformed)?);
    }
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host);
    }
    Ok(())
}
