//! Why the API says no to a token. The code stands in the log and the audit log; nothing of an
//! unknown token does.

use axum::extract::{MatchedPath, OriginalUri};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use tracing::info;

use super::Api;
use super::auth::Principal;
use super::error::ApiError;
use crate::clock::UnixTime;
use crate::model::Role;
use crate::model::audit::{Entry, Outcome};

/// Who the audit log names when nobody is known.
const UNKNOWN: &str = "unknown token";
/// What the audit log shows of a path that is none of the API's.
const NO_PATH: &str = "/v1/…";
/// How much of a path goes on record, in characters.
const PATH_LIMIT: usize = 256;

#[derive(Debug, thiserror::Error)]
pub(super) enum Denial {
    #[error("the token is not known")]
    TokenUnknown,
    /// Whoever bears it learns no more than that it does not work.
    #[error("the token is not known")]
    TokenRevoked,
    #[error("the token has expired")]
    TokenExpired,
    #[error("this needs the role {needed}; the token has the role {has}")]
    RoleTooSmall { needed: Role, has: Role },
    #[error("this is about every Factory; the token is good for one only")]
    ScopeTooSmall,
}

impl Denial {
    /// The stable code.
    fn code(&self) -> &'static str {
        match self {
            Self::TokenUnknown => "token-unknown",
            Self::TokenRevoked => "token-revoked",
            Self::TokenExpired => "token-expired",
            Self::RoleTooSmall { .. } => "role-too-small",
            Self::ScopeTooSmall => "scope-too-small",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::TokenUnknown | Self::TokenRevoked | Self::TokenExpired => {
                StatusCode::UNAUTHORIZED
            }
            Self::RoleTooSmall { .. } | Self::ScopeTooSmall => StatusCode::FORBIDDEN,
        }
    }
}

impl Api {
    /// Puts a denial on record, and gives the answer. Without a principal nobody is known, and
    /// nothing that a stranger sent goes on record.
    pub(super) async fn deny(
        &self,
        parts: &Parts,
        principal: Option<&Principal>,
        denial: &Denial,
    ) -> ApiError {
        let (code, action) = (denial.code(), action(parts));
        let actor = principal.map_or(UNKNOWN, |principal| &principal.name);
        info!(code, actor, action, "the API refused");
        let entry = Entry {
            at: UnixTime::now(),
            factory: principal.and_then(|principal| principal.factory),
            actor: actor.to_owned(),
            action,
            subject: principal.map(|_| path(parts)).unwrap_or_default(),
            outcome: Outcome::Refused,
            code: code.to_owned(),
            detail: denial.to_string(),
        };
        let recorded = match principal {
            Some(_) => self.ledger.note(entry).await,
            None => self.ledger.note_stranger(entry).await,
        };
        match recorded {
            Ok(()) => ApiError::new(denial.status(), denial),
            Err(why) => ApiError::unavailable(&why),
        }
    }
}

/// The method and the template of the path.
fn action(parts: &Parts) -> String {
    let known =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let method = known.iter().find(|method| **method == parts.method);
    let method = method.map_or("OTHER", Method::as_str);
    let template = parts.extensions.get::<MatchedPath>().map_or(NO_PATH, MatchedPath::as_str);
    format!("{method} {template}")
}

fn path(parts: &Parts) -> String {
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    uri.path().chars().take(PATH_LIMIT).collect()
}
