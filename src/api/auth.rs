//! Who may use the API: whoever has the admin token of the data folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::Api;
use super::error::ApiError;
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
                let mut random = Zeroizing::new([0; 32]);
                rand::fill(&mut *random).map_err(|_| io::Error::other("no randomness"))?;
                let token = Zeroizing::new(HEXLOWER.encode(&*random));
                file.write_all(token.as_bytes())?;
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

/// Lets a request pass that bears the token, as `Authorization: Bearer` or as `OSF-TOKEN`.
pub(super) async fn require_admin(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match token(request.headers()) {
        Some(token) if api.admin.accepts(token) => Ok(next.run(request).await),
        Some(_) => Err(ApiError::new(StatusCode::UNAUTHORIZED, "the token is not known")),
        None => Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "a token is needed, as `Authorization: Bearer …` or `OSF-TOKEN: …`",
        )),
    }
}

fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    bearer.or_else(|| headers.get("osf-token").map(HeaderValue::as_bytes))
}
