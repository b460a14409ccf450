//! Errors as JSON: `{"message","errors"}`.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;

use crate::enrol::Refused;
use crate::factory::{InstallFailure, RequestError, UploadFailure};
use crate::ledger::{ChangeError, ChangeRefused, LedgerError};
use crate::model::{Class, NotA};
use crate::pki::Malformed;

/// How much of a reason is passed on.
const REASON_LIMIT: usize = 4096;

/// What went wrong, for the operator.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    errors: Errors,
}

/// Every reason; never empty.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Errors {
    List(Vec<String>),
    /// By the field of the request that is wrong.
    Fields(BTreeMap<String, String>),
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    errors: &'a Errors,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl ToString) -> Self {
        let message = message.to_string();
        Self { status, errors: Errors::List(vec![message.clone()]), message }
    }

    /// An error with several reasons.
    pub(super) fn listing(status: StatusCode, message: impl ToString, errors: Vec<String>) -> Self {
        Self { status, message: message.to_string(), errors: Errors::List(errors) }
    }

    /// An error that says what is wrong with each field.
    pub(super) fn fields(
        status: StatusCode,
        message: impl ToString,
        errors: BTreeMap<String, String>,
    ) -> Self {
        Self { status, message: message.to_string(), errors: Errors::Fields(errors) }
    }

    pub(super) fn bad_request(why: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    pub(super) fn unavailable(why: &dyn std::fmt::Display) -> Self {
        error!(error = %why, "the API cannot answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer; see the log")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body { message: &self.message, errors: &self.errors };
        (self.status, Json(body)).into_response()
    }
}

/// Gives the errors that the framework itself answers the shape of all others.
pub(super) async fn as_json(response: Response) -> Response {
    let status = response.status();
    let plain = response.headers().get(CONTENT_TYPE).is_none_or(|of| of != "application/json");
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    let (head, body) = response.into_parts();
    let text = to_bytes(body, REASON_LIMIT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let reason = status.canonical_reason().unwrap_or("refused");
    let mut answer =
        ApiError::new(status, if text.is_empty() { reason } else { &*text }).into_response();
    if let Some(allowed) = head.headers.get(ALLOW) {
        answer.headers_mut().insert(ALLOW, allowed.clone());
    }
    answer
}

pub(super) async fn not_found() -> ApiError {
    ApiError::not_found("there is nothing at this path")
}

impl From<LedgerError> for ApiError {
    fn from(why: LedgerError) -> Self {
        match why {
            LedgerError::Nul => Self::bad_request(why),
            LedgerError::Database(_) | LedgerError::Corrupt(_) => Self::unavailable(&why),
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(why: ChangeError) -> Self {
        match why {
            ChangeError::Refused(ref refused @ ChangeRefused::StillNeeded { ref devices, .. }) => {
                Self::listing(StatusCode::CONFLICT, refused, devices.clone())
            }
            ChangeError::Refused(
                ref refused @ ChangeRefused::NoSuchDevices { ref devices, .. },
            ) => Self::listing(StatusCode::NOT_FOUND, refused, devices.clone()),
            ChangeError::Refused(
                refused @ (ChangeRefused::NoSuchGroup(_) | ChangeRefused::NoSuchRotation),
            ) => Self::new(StatusCode::NOT_FOUND, refused),
            ChangeError::Refused(refused) => Self::new(StatusCode::CONFLICT, refused),
            ChangeError::Ledger(why) => why.into(),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(why: RequestError) -> Self {
        match why {
            RequestError::Change(why) => why.into(),
            RequestError::Key(why) => {
                error!(error = %why, "a key cannot be made");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
            }
            RequestError::Ledger(_) | RequestError::Encoding(_) => Self::unavailable(&why),
        }
    }
}

impl From<InstallFailure> for ApiError {
    fn from(why: InstallFailure) -> Self {
        match why {
            InstallFailure::Refused(why) => Self::new(StatusCode::BAD_REQUEST, why),
            InstallFailure::Change(why) => why.into(),
            InstallFailure::Request(why) => why.into(),
        }
    }
}

impl From<UploadFailure> for ApiError {
    fn from(why: UploadFailure) -> Self {
        let message = why.to_string();
        match why {
            UploadFailure::Refused(fields) => {
                let fields = fields.into_iter();
                let fields = fields.map(|it| (it.field.as_str().to_owned(), it.reason)).collect();
                Self::fields(StatusCode::BAD_REQUEST, message, fields)
            }
            // fioctl shows the errors: first among them what the operator can do.
            UploadFailure::Change(ChangeError::Refused(ChangeRefused::StillNeeded {
                devices,
                ..
            })) => {
                let errors = std::iter::once(message.clone()).chain(devices).collect();
                Self::listing(StatusCode::CONFLICT, message, errors)
            }
            UploadFailure::Change(why) => why.into(),
            UploadFailure::Request(why) => why.into(),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(why: Refused) -> Self {
        let refusal = why.refusal();
        let status = match refusal.class() {
            Class::Malformed => StatusCode::BAD_REQUEST,
            Class::Conflict => StatusCode::CONFLICT,
            Class::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::NotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::FORBIDDEN,
        };
        Self::new(status, format!("{refusal} ({})", refusal.code()))
    }
}

impl From<Malformed> for ApiError {
    fn from(why: Malformed) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}

impl From<NotA> for ApiError {
    fn from(why: NotA) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}
