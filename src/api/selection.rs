//! Which Factory a request is about: `?factory=NAME`, or the only one.

use serde::Deserialize;

use super::Api;
use super::error::ApiError;
use crate::keys::ActiveSnapshot;
use crate::model::FactoryTrust;

#[derive(Debug, Default, Deserialize)]
pub(super) struct FactoryQuery {
    factory: Option<String>,
}

impl FactoryQuery {
    pub(super) fn select(&self, active: &ActiveSnapshot) -> Result<FactoryTrust, ApiError> {
        let factories = &active.snapshot().factories;
        match (&self.factory, factories.as_slice()) {
            (None, [only]) => Ok(only.clone()),
            (None, []) => Err(ApiError::not_found("there is no Factory yet")),
            (None, _) => Err(ApiError::not_found("there are several Factories: name one")),
            (Some(name), all) => all
                .iter()
                .find(|trust| trust.factory.name.as_str() == name)
                .cloned()
                .ok_or_else(|| ApiError::not_found("there is no such Factory")),
        }
    }
}

impl Api {
    /// The Factory of a request as the ledger has it now, which the snapshot in use follows within a
    /// second.
    pub(super) async fn fresh_factory(
        &self,
        query: &FactoryQuery,
    ) -> Result<FactoryTrust, ApiError> {
        let known = query.select(&self.active.load())?;
        let fresh = self.ledger.factories().await?;
        fresh
            .into_iter()
            .find(|trust| trust.factory.id == known.factory.id)
            .ok_or_else(|| ApiError::not_found("there is no such Factory"))
    }
}
