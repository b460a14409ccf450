//! What the query of a request selects: the Factory, by `?factory=NAME` or because it is the only one;
//! a time.

use serde::Deserialize;

use super::Api;
use super::auth::Principal;
use super::error::ApiError;
use crate::clock::UnixTime;
use crate::keys::ActiveSnapshot;
use crate::model::FactoryTrust;

#[derive(Debug, Default, Deserialize)]
pub(super) struct FactoryQuery {
    factory: Option<String>,
}

impl FactoryQuery {
    /// The Factory that a path names.
    pub(super) fn named(factory: String) -> Self {
        Self { factory: Some(factory) }
    }

    /// Whether it names a Factory.
    pub(super) fn is_named(&self) -> bool {
        self.factory.is_some()
    }

    /// The Factory of a request. One that the principal may not see is answered like one that is
    /// not there.
    pub(super) fn select(
        &self,
        principal: &Principal,
        active: &ActiveSnapshot,
    ) -> Result<FactoryTrust, ApiError> {
        let visible: Vec<_> = principal.visible(active).collect();
        match (&self.factory, visible.as_slice()) {
            (None, [only]) => Ok((*only).clone()),
            (None, []) => Err(ApiError::not_found("there is no Factory yet")),
            (None, _) => Err(ApiError::not_found("there are several Factories: name one")),
            (Some(name), all) => all
                .iter()
                .find(|trust| trust.factory.name.as_str() == name)
                .map(|trust| (*trust).clone())
                .ok_or_else(|| ApiError::not_found("there is no such Factory")),
        }
    }

    /// The Factory that a request names, or that its token is good for; `None`: every Factory.
    pub(super) fn scope(
        &self,
        principal: &Principal,
        active: &ActiveSnapshot,
    ) -> Result<Option<FactoryTrust>, ApiError> {
        if self.factory.is_none() && principal.factory.is_none() {
            return Ok(None);
        }
        self.select(principal, active).map(Some)
    }
}

/// The time that the parameter `key` says: RFC 3339, or a date, which begins at 0 h UTC.
pub(super) fn time(key: &str, text: Option<&str>) -> Result<Option<UnixTime>, ApiError> {
    let read = |text| {
        UnixTime::parse(text).ok_or_else(|| {
            ApiError::bad_request(format!("{key} must be a time in RFC 3339, or a date"))
        })
    };
    text.map(read).transpose()
}

impl Api {
    /// The Factory of a request as the ledger has it now, which the snapshot in use follows within a
    /// second.
    pub(super) async fn fresh_factory(
        &self,
        principal: &Principal,
        query: &FactoryQuery,
    ) -> Result<FactoryTrust, ApiError> {
        let known = query.select(principal, &self.active.load())?;
        let fresh = self.ledger.factories().await?;
        fresh
            .into_iter()
            .find(|trust| trust.factory.id == known.factory.id)
            .ok_or_else(|| ApiError::not_found("there is no such Factory"))
    }
}
