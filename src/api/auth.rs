//! Who asks: the bearer of the admin token of the data folder, or of a token in the ledger.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::Api;
use super::denial::Denial;
use super::error::ApiError;
use crate::clock::UnixTime;
use crate::keys::ActiveSnapshot;
use crate::model::{FactoryId, FactoryTrust, Role, Token, TokenName, TokenState};
use crate::pki::Fingerprint;

/// The hash of the admin token.
pub struct AdminToken(Fingerprint);

impl AdminToken {
    /// Reads the token from `path`; makes the file (mode 0600) if it is not there.
    ///
    /// # Errors
    /// When the file cannot be read or made.
    pub fn open_or_create(path: &Path) -> io::Result<Self> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                file.write_all(random_hex()?.as_bytes())?;
                file.write_all(b"\n")?;
                file.sync_all()?;
            }
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            Err(why) => return Err(why),
        }
        let text = Zeroizing::new(fs::read_to_string(path)?);
        let token = text.trim();
        if token.is_empty() {
            return Err(io::Error::other("it is empty: remove it, and a new one is made"));
        }
        Ok(Self(Fingerprint::of(token.as_bytes())))
    }

    fn accepts(&self, token: &[u8]) -> bool {
        let hash = Fingerprint::of(token);
        verify_slices_are_equal(hash.as_bytes(), self.0.as_bytes()).is_ok()
    }
}

/// Whose token a request bears.
#[derive(Clone, Debug)]
pub(super) struct Principal {
    /// Who the audit log names.
    pub(super) name: String,
    pub(super) role: Role,
    /// The only Factory that it may see and change; `None`: every Factory.
    pub(super) factory: Option<FactoryId>,
}

impl Principal {
    /// Who bears the admin token of the data folder.
    fn admin() -> Self {
        Self { name: TokenName::ADMIN.to_owned(), role: Role::Admin, factory: None }
    }

    /// The Factories that it may see.
    pub(super) fn visible<'a>(
        &self,
        active: &'a ActiveSnapshot,
    ) -> impl Iterator<Item = &'a FactoryTrust> + use<'a> {
        let only = self.factory;
        let all = active.snapshot().factories.iter();
        all.filter(move |trust| only.is_none_or(|only| only == trust.factory.id))
    }
}

impl From<&Token> for Principal {
    fn from(token: &Token) -> Self {
        Self { name: token.name.to_string(), role: token.role, factory: token.factory }
    }
}

/// Lets a request pass that bears a token, as `Authorization: Bearer` or as `OSF-TOKEN`, and tells
/// the handler whose it is.
pub(super) async fn authenticate(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let principal = api.principal(&parts).await?;
    parts.extensions.insert(principal);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

impl Api {
    /// Whose token it is. The ledger is asked each time, so that a revoked one ends at once, on
    /// every replica.
    async fn principal(&self, parts: &Parts) -> Result<Principal, ApiError> {
        let presented = token(&parts.headers).ok_or_else(token_needed)?;
        if self.admin.accepts(presented) {
            return Ok(Principal::admin());
        }
        let Some(token) = self.ledger.token_of_hash(Fingerprint::of(presented)).await? else {
            return Err(self.deny(parts, None, &Denial::TokenUnknown).await);
        };
        let principal = Principal::from(&token);
        let denial = match token.state(UnixTime::now()) {
            TokenState::Active => return Ok(principal),
            TokenState::Expired => Denial::TokenExpired,
            TokenState::Revoked => Denial::TokenRevoked,
        };
        Err(self.deny(parts, Some(&principal), &denial).await)
    }
}

pub(super) fn token_needed() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "a token is needed, as `Authorization: Bearer …` or `OSF-TOKEN: …`",
    )
}

/// 32 random bytes in hexadecimal digits: nobody guesses them, so that one hash keeps them safe.
pub(super) fn random_hex() -> io::Result<Zeroizing<String>> {
    let mut random = Zeroizing::new([0; 32]);
    rand::fill(&mut *random).map_err(|_| io::Error::other("no randomness"))?;
    Ok(Zeroizing::new(HEXLOWER.encode(&*random)))
}

fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    bearer.or_else(|| headers.get("osf-token").map(HeaderValue::as_bytes))
}
