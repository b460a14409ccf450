//! Every answer of the gateway.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};

use crate::model::Refusal;

pub(super) fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Done, with nothing to say: the agent wants just this status in answer to its next key.
pub(super) fn ok() -> Response {
    json("{}".to_owned())
}

pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

pub(super) fn not_modified() -> Response {
    StatusCode::NOT_MODIFIED.into_response()
}

pub(super) fn refused(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.class().status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = format!("{refusal} ({})\n", refusal.code());
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    if let Refusal::MethodNotAllowed(takes) = refusal {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(takes));
    }
    if let Some(seconds) = refusal.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
