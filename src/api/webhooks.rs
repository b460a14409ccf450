//! `/v1/webhooks`: make one, list them, remove one, and have its dead letters delivered again.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Principal;
use super::error::ApiError;
use super::role::{Admin, Viewer};
use super::selection::FactoryQuery;
use crate::client::Endpoint;
use crate::keys::{KeyError, WebhookSecret};
use crate::ledger::{DeadLetter, NewWebhook, WebhookSummary};
use crate::model::{EventKinds, FactoryTrust, NotA, WebhookName, WebhookUrl};

#[derive(Serialize)]
pub(super) struct Webhooks {
    webhooks: Vec<WebhookSummary>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    name: String,
    url: String,
    /// None: all.
    #[serde(default)]
    events: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Created {
    /// What its deliveries are signed with; shown this once.
    secret: String,
    name: String,
    url: String,
    events: Vec<&'static str>,
    /// The only Factory whose events it gets; `None`: all events.
    factory: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Removed {
    webhook: String,
    removed: bool,
}

#[derive(Serialize)]
pub(super) struct DeadLetters {
    dead_letters: Vec<DeadLetter>,
}

#[derive(Serialize)]
pub(super) struct Redelivering {
    webhook: String,
    redelivering: u64,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
) -> Result<Json<Webhooks>, ApiError> {
    let scope = query.scope(&principal, &api.active.load())?;
    let webhooks = api.ledger.webhooks(scope.map(|trust| trust.factory.id)).await?;
    Ok(Json(Webhooks { webhooks }))
}

/// Makes a webhook for the Factory that is named, or that the token is good for; else for all.
pub(super) async fn create(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Json(wanted): Json<Wanted>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    let (name, url, events) = wanted.parse()?;
    let scope = query.scope(&principal, &api.active.load())?;
    let factory = scope.as_ref().map(|trust| &trust.factory);
    let (secret, wrapped) = api
        .new_webhook_secret(&name)
        .map_err(|why| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why))?;
    let created = Created {
        secret: secret.to_hex().to_string(),
        name: name.to_string(),
        url: url.to_string(),
        events: events.words(),
        factory: factory.map(|factory| factory.name.to_string()),
    };
    let new = NewWebhook { name, url, events, factory, secret: wrapped };
    api.ledger.create_webhook(new, api.key_store.key_check(), &principal.name).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

pub(super) async fn remove(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(name): Path<String>,
) -> Result<Json<Removed>, ApiError> {
    let (webhook, scope) = api.find_webhook(&principal, &query, &name)?;
    let factory = scope.as_ref().map(|trust| trust.factory.id);
    if api.ledger.remove_webhook(&webhook, factory, &principal.name).await? {
        return Ok(Json(Removed { webhook: name, removed: true }));
    }
    Err(no_such_webhook(scope.as_ref()))
}

pub(super) async fn dead_letters(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(name): Path<String>,
) -> Result<Json<DeadLetters>, ApiError> {
    let (webhook, scope) = api.find_webhook(&principal, &query, &name)?;
    let factory = scope.as_ref().map(|trust| trust.factory.id);
    let dead_letters = api.ledger.dead_letters(&webhook, factory).await?;
    let dead_letters = dead_letters.ok_or_else(|| no_such_webhook(scope.as_ref()))?;
    Ok(Json(DeadLetters { dead_letters }))
}

pub(super) async fn redeliver(
    Admin(principal): Admin,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(name): Path<String>,
) -> Result<Json<Redelivering>, ApiError> {
    let (webhook, scope) = api.find_webhook(&principal, &query, &name)?;
    let factory = scope.as_ref().map(|trust| trust.factory.id);
    let count = api.ledger.redeliver(&webhook, factory, &principal.name).await?;
    let redelivering = count.ok_or_else(|| no_such_webhook(scope.as_ref()))?;
    Ok(Json(Redelivering { webhook: name, redelivering }))
}

impl Api {
    /// A secret, and how the ledger keeps it.
    fn new_webhook_secret(&self, name: &WebhookName) -> Result<(WebhookSecret, Vec<u8>), KeyError> {
        let secret = WebhookSecret::generate(&SystemRandom::new())?;
        let wrapped = self.key_store.wrap_secret(&secret, name)?;
        Ok((secret, wrapped))
    }

    fn find_webhook(
        &self,
        principal: &Principal,
        query: &FactoryQuery,
        name: &str,
    ) -> Result<(WebhookName, Option<FactoryTrust>), ApiError> {
        let scope = query.scope(principal, &self.active.load())?;
        Ok((WebhookName::parse(name)?, scope))
    }
}

fn no_such_webhook(scope: Option<&FactoryTrust>) -> ApiError {
    ApiError::not_found(&match scope {
        Some(trust) => format!("the Factory {} has no such webhook", trust.factory.name),
        None => "there is no such webhook".to_owned(),
    })
}

impl Wanted {
    fn parse(&self) -> Result<(WebhookName, WebhookUrl, EventKinds), ApiError> {
        let events = EventKinds::parse(self.events.iter().map(String::as_str));
        match (WebhookName::parse(&self.name), self.url(), events) {
            (Ok(name), Ok(url), Ok(events)) => Ok((name, url, events)),
            (name, url, events) => {
                let told = |why: NotA| why.to_string();
                let reasons = [name.err().map(told), url.err(), events.err().map(told)];
                let reasons = reasons.into_iter().flatten().collect();
                Err(ApiError::listing(StatusCode::BAD_REQUEST, "such a webhook cannot be", reasons))
            }
        }
    }

    /// What was made before may have another port, and is not corrupt: deliveries say what is wrong.
    fn url(&self) -> Result<WebhookUrl, String> {
        let url = WebhookUrl::parse(&self.url).map_err(|why| why.to_string())?;
        Endpoint::of(url.uri(), 0).map_err(|why| why.to_string())?;
        Ok(url)
    }
}
