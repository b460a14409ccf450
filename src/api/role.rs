//! What a handler needs of whoever asks: it takes one of these extractors, first, so that its
//! signature says so and nothing else is looked at before.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Api;
use super::auth::{Principal, token_needed};
use super::denial::Denial;
use super::error::ApiError;
use crate::model::Role;

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub(super) struct $name(pub(super) Principal);

        impl FromRequestParts<Arc<Api>> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(
                parts: &mut Parts,
                api: &Arc<Api>,
            ) -> Result<Self, ApiError> {
                api.require(parts, Role::$name).await.map(Self)
            }
        }
    )*};
}

roles! {
    /// Whoever may read.
    Viewer
    /// Whoever may run the fleet.
    Operator
    /// Whoever may change the PKI and the tokens.
    Admin
}

/// Whoever may read what belongs to every Factory.
pub(super) struct ViewerOfAll;

impl FromRequestParts<Arc<Api>> for ViewerOfAll {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        api.require_of_all(parts, Role::Viewer).await.map(|_| Self)
    }
}

/// Whoever may change what belongs to no single Factory.
pub(super) struct AdminOfAll(pub(super) Principal);

impl FromRequestParts<Arc<Api>> for AdminOfAll {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        api.require_of_all(parts, Role::Admin).await.map(Self)
    }
}

impl Api {
    async fn require(&self, parts: &Parts, needed: Role) -> Result<Principal, ApiError> {
        let principal = parts.extensions.get::<Principal>().ok_or_else(token_needed)?;
        if principal.role < needed {
            let denial = Denial::RoleTooSmall { needed, has: principal.role };
            return Err(self.deny(parts, Some(principal), &denial).await);
        }
        Ok(principal.clone())
    }

    async fn require_of_all(&self, parts: &Parts, needed: Role) -> Result<Principal, ApiError> {
        let principal = self.require(parts, needed).await?;
        if principal.factory.is_some() {
            return Err(self.deny(parts, Some(&principal), &Denial::ScopeTooSmall).await);
        }
        Ok(principal)
    }
}
