//! What goes back: certificates, and refusals with their status.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::enrol::Refused;
use crate::ledger::Recorded;
use crate::model::{AnswerStyle, Class, Refusal, RenewalWindow};
use crate::pki::{Malformed, certs_only, crls_only, to_est_text, to_wrapped_est_text};

const PKCS7: HeaderValue = HeaderValue::from_static("application/pkcs7-mime");
const PKCS7_CERTS_ONLY: HeaderValue =
    HeaderValue::from_static("application/pkcs7-mime; smime-type=certs-only");
const PKCS7_CRLS_ONLY: HeaderValue =
    HeaderValue::from_static("application/pkcs7-mime; smime-type=crls-only");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// When a client may ask again, in seconds, where a person must decide first (E-40).
const APPROVAL_SECONDS: HeaderValue = HeaderValue::from_static("60");
/// When a client may look again whether its window has changed: six hours.
const RENEWAL_SECONDS: HeaderValue = HeaderValue::from_static("21600");
/// The same for a device in a rotation, which may be paused meanwhile: five minutes.
const ROTATION_SECONDS: HeaderValue = HeaderValue::from_static("300");
/// There is no registered scheme for TLS client certificates; one that no client knows makes none
/// of them ask its user for a password (RFC 9110 §11.6.1 wants some scheme).
const CLIENT_CERTIFICATE: HeaderValue =
    HeaderValue::from_static("ClientCertificate realm=\"estd\"");
/// What libest reads of a line at most, with room to spare.
const LIBEST_LINE: usize = 1000;

/// CA certificates (RFC 7030 §4.1.3).
pub(super) fn ca_certificates(
    certificates: &[&[u8]],
    request: &HeaderMap,
) -> Result<Response<Body>, Malformed> {
    Ok(respond(StatusCode::OK, PKCS7, text(&certs_only(certificates)?, request)))
}

/// CRLs (RFC 8295): on one line, for a list can be long and no libest asks for it.
pub(super) fn revocation_lists(lists: &[&[u8]]) -> Result<Response<Body>, Malformed> {
    Ok(respond(StatusCode::OK, PKCS7_CRLS_ONLY, to_est_text(&crls_only(lists)?)))
}

/// When to renew (draft-ietf-lamps-est-renewal-info). Within a rotation that may change soon.
pub(super) fn renewal_window(window: RenewalWindow, within_rotation: bool) -> Response<Body> {
    let RenewalWindow { start, end } = window;
    let body = format!("{{\"suggestedWindow\":{{\"start\":\"{start}\",\"end\":\"{end}\"}}}}\n");
    let mut response = respond(StatusCode::OK, JSON, body);
    let retry = if within_rotation { ROTATION_SECONDS } else { RENEWAL_SECONDS };
    response.headers_mut().insert(RETRY_AFTER, retry);
    response
}

/// An issued certificate, and only that (RFC 7030 §4.2.3). It takes a recorded one (I1).
pub(super) fn issued(
    recorded: &Recorded,
    style: AnswerStyle,
    request: &HeaderMap,
) -> Result<Response<Body>, Malformed> {
    let (status, content_type) = match style {
        AnswerStyle::Rfc7030 => (StatusCode::OK, PKCS7_CERTS_ONLY),
        AnswerStyle::Fioconfig => (StatusCode::CREATED, PKCS7),
    };
    let der = certs_only(&[recorded.certificate().der()])?;
    Ok(respond(status, content_type, text(&der, request)))
}

/// A request that waits for an operator (RFC 7030 §4.2.3).
pub(super) fn waiting() -> Response<Body> {
    let body = "the request waits for an operator's approval: ask again with the same request\n";
    let mut response = respond(StatusCode::ACCEPTED, TEXT, body.to_owned());
    response.headers_mut().insert(RETRY_AFTER, APPROVAL_SECONDS);
    response
}

/// What was said is on record.
pub(super) fn received() -> Response<Body> {
    respond(StatusCode::OK, TEXT, "on record\n".to_owned())
}

/// Nothing, on purpose.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A refused enrolment. It takes one that is on record.
pub(super) fn refused(refused: &Refused) -> Response<Body> {
    refusal(refused.refusal())
}

/// A refusal as plain text (RFC 7030 §4.2.3).
pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    let body = format!("{refusal} ({})\n", refusal.code());
    let mut response = respond(status(refusal.class()), TEXT, body);
    match refusal {
        Refusal::MethodNotAllowed(method) => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
        }
        _ if refusal.class() == Class::Unauthenticated => {
            response.headers_mut().insert(WWW_AUTHENTICATE, CLIENT_CERTIFICATE);
        }
        _ => {}
    }
    if let Some(seconds) = refusal.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn status(class: Class) -> StatusCode {
    StatusCode::from_u16(class.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn respond(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Base64 on one line, but in short lines where libest would find its line too long (H-11).
fn text(der: &[u8], request: &HeaderMap) -> String {
    let agent = request.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    let one_line = to_est_text(der);
    if one_line.len() > LIBEST_LINE && agent.starts_with(b"libest") {
        return to_wrapped_est_text(der);
    }
    one_line
}
