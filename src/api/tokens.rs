//! `/v1/tokens`: make one, list them, revoke one.
//!
//! No token makes, shows or revokes one that may do more than itself: that takes an admin, whose
//! role is the largest, and one good for one Factory has to do with the tokens of that Factory only.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::random_hex;
use super::error::ApiError;
use super::role::Admin;
use super::selection::FactoryQuery;
use crate::clock::UnixTime;
use crate::ledger::{NewToken, TokenSummary};
use crate::model::{Role, TokenName};
use crate::pki::Fingerprint;

/// What the text of a token begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "estd_";
const DAY: i64 = 24 * 60 * 60;

#[derive(Serialize)]
pub(super) struct Tokens {
    tokens: Vec<TokenSummary>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    name: String,
    role: String,
    /// How long it is good for; without it, until it is revoked.
    days: Option<NonZeroU32>,
}

#[derive(Serialize)]
pub(super) struct Created {
    /// The text of the token, which is kept nowhere.
    token: String,
    name: String,
    role: &'static str,
    /// The only Factory that it is good for; `None`: every Factory.
    factory: Option<String>,
    expires_at: Option<UnixTime>,
}

#[derive(Serialize)]
pub(super) struct Revoked {
    token: String,
    revoked: bool,
}

pub(super) async fn list(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<Tokens>, ApiError> {
    let scope = query.scope(&principal, &api.active.load())?;
    let tokens = api.ledger.tokens(scope.map(|trust| trust.factory.id)).await?;
    Ok(Json(Tokens { tokens }))
}

/// Makes a token for the Factory that is named, or that the asking token is good for; else for
/// every Factory.
pub(super) async fn create(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Json(wanted): Json<Wanted>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    let (name, role) = wanted.parse()?;
    let scope = query.scope(&principal, &api.active.load())?;
    let factory = scope.as_ref().map(|trust| &trust.factory);
    let seconds = wanted.days.map(|days| i64::from(days.get()) * DAY);
    let expires_at = seconds.map(|seconds| UnixTime::now().plus(seconds));
    let random =
        random_hex().map_err(|why| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why))?;
    let created = Created {
        name: name.to_string(),
        role: role.as_str(),
        factory: factory.map(|factory| factory.name.to_string()),
        expires_at,
        token: format!("{PREFIX}{}", *random),
    };
    let sha256 = Fingerprint::of(created.token.as_bytes());
    let new = NewToken { name, role, factory, expires_at };
    api.ledger.create_token(new, sha256, &principal.name).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

pub(super) async fn revoke(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(name): Path<String>,
) -> Result<Json<Revoked>, ApiError> {
    let scope = query.scope(&principal, &api.active.load())?;
    let factory = scope.as_ref().map(|trust| trust.factory.id);
    if api.ledger.revoke_token(&TokenName::parse(&name)?, factory, &principal.name).await? {
        return Ok(Json(Revoked { token: name, revoked: true }));
    }
    Err(ApiError::not_found(&match scope {
        Some(trust) => format!("the Factory {} has no such token to revoke", trust.factory.name),
        None => "there is no such token to revoke".to_owned(),
    }))
}

impl Wanted {
    fn parse(&self) -> Result<(TokenName, Role), ApiError> {
        let role = Role::from_word(&self.role)
            .ok_or_else(|| "a role is viewer, operator or admin".to_owned());
        match (TokenName::parse(&self.name).map_err(|why| why.to_string()), role) {
            (Ok(name), Ok(role)) => Ok((name, role)),
            (name, role) => {
                let reasons = name.err().into_iter().chain(role.err()).collect();
                Err(ApiError::listing(StatusCode::BAD_REQUEST, "such a token cannot be", reasons))
            }
        }
    }
}
