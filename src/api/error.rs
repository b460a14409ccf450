//! Errors as JSON: `{"message","errors"}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;

use crate::factory::{InstallError, RequestError};
use crate::ledger::{ChangeError, LedgerError};
use crate::model::NotA;
use crate::pki::Malformed;

/// What went wrong, for the operator.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    errors: [&'a str; 1],
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl ToString) -> Self {
        Self { status, message: message.to_string() }
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    fn unavailable(why: &dyn std::fmt::Display) -> Self {
        error!(error = %why, "the API cannot answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer; see the log")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body { message: &self.message, errors: [&self.message] };
        (self.status, Json(body)).into_response()
    }
}

pub(super) async fn not_found() -> ApiError {
    ApiError::not_found("there is nothing at this path")
}

impl From<LedgerError> for ApiError {
    fn from(why: LedgerError) -> Self {
        Self::unavailable(&why)
    }
}

impl From<ChangeError> for ApiError {
    fn from(why: ChangeError) -> Self {
        match why {
            ChangeError::Refused(refused) => Self::new(StatusCode::CONFLICT, refused),
            ChangeError::Ledger(why) => why.into(),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(why: RequestError) -> Self {
        Self::unavailable(&why)
    }
}

impl From<InstallError> for ApiError {
    fn from(why: InstallError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
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
