//! The API on the operator's side: `/v1/…`, `/ota/…` for fioctl, health and metrics.

mod audit;
mod auth;
mod authz;
mod bootstrap_cas;
mod crl;
mod denial;
mod device_cas;
mod device_keys;
mod devices;
mod error;
mod factories;
mod health;
mod held_requests;
mod openapi;
mod ota;
mod role;
mod rotation_events;
mod rotation_request;
mod rotation_view;
mod rotations;
mod selection;
mod sightings;
mod tokens;
mod webhooks;

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{any, delete, get, post};

pub use auth::AdminToken;
use tokio::sync::watch;

use crate::enrol::Enrolments;
use crate::factory::RevocationLists;
use crate::keys::{ActiveSnapshot, KeyStore};
use crate::ledger::Ledger;
use crate::model::rotation::RotationDefaults;
use crate::telemetry::Metrics;

/// The largest body that is read: a bundle of certificates.
const BODY_LIMIT: usize = 256 * 1024;

/// Makes the server act by what the ledger says now; whoever starts the server knows how.
pub type Apply = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What the handlers share.
pub struct Api {
    /// The ledger.
    pub ledger: Ledger,
    /// The snapshot in use.
    pub active: Arc<ArcSwap<ActiveSnapshot>>,
    /// What registers devices.
    pub enrolments: Enrolments,
    /// What makes CRLs.
    pub revocation_lists: Arc<RevocationLists>,
    /// Where new keys are made.
    pub key_store: Arc<KeyStore>,
    /// Who may do everything, also when the ledger has no token yet.
    pub admin: AdminToken,
    /// What is called after a change, so that it holds here when its answer arrives.
    pub apply: Apply,
    /// What holds for a rotation that says nothing else.
    pub rotation_defaults: RotationDefaults,
    /// The port at which devices reach EST.
    pub est_public_port: u16,
    /// Turns true when the server ends.
    pub draining: watch::Receiver<bool>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
}

/// The API service.
pub fn router(api: Api) -> Router {
    let api = Arc::new(api);
    let v1 = Router::new()
        .route("/authz", get(authz::decide).post(authz::decide))
        // Envoy asks by the method and path of the request that it is asked.
        .route("/authz/", any(authz::decide_for_envoy))
        .route("/authz/{*request}", any(authz::decide_for_envoy))
        .route("/factories", get(factories::list).post(factories::add))
        .route("/bootstrap-cas", get(bootstrap_cas::list).post(bootstrap_cas::add))
        .route("/bootstrap-cas/{key}", delete(bootstrap_cas::remove))
        .route("/device-cas", get(device_cas::list).post(device_cas::add))
        .route("/device-cas/requests", post(device_cas::request))
        .route("/device-cas/bundle", get(device_cas::bundle))
        .route("/device-cas/{serial}", get(device_cas::show))
        .route("/device-cas/{serial}/disable", post(device_cas::disable))
        .route("/device-cas/{serial}/enable", post(device_cas::enable))
        .route("/device-cas/{serial}/revoke", post(device_cas::revoke))
        .route("/device-cas/{serial}/dependents", get(device_cas::phase_out))
        .route("/device-keys", get(device_keys::list))
        .route("/devices", get(devices::list))
        .route("/devices/{name}", get(devices::show))
        .route("/devices/{name}/allow", post(devices::allow).delete(devices::disallow))
        .route("/devices/{name}/deny", post(devices::deny))
        .route("/held-requests", get(held_requests::list))
        .route("/held-requests/{id}/approve", post(held_requests::approve))
        .route("/held-requests/{id}/reject", post(held_requests::reject))
        .route("/sightings", post(sightings::report))
        .route("/audit", get(audit::list))
        .route("/audit/verification", get(audit::verify))
        .route(
            "/rotations",
            get(rotations::list)
                .post(rotations::start)
                .layer(DefaultBodyLimit::max(rotations::BODY_LIMIT)),
        )
        .route("/rotations/{id}", get(rotations::show))
        .route("/rotations/{id}/events", get(rotation_events::follow))
        .route("/rotations/{id}/devices", get(rotations::devices))
        .route("/rotations/{id}/fioconfig", get(rotations::fioconfig))
        .route("/rotations/{id}/pause", post(rotations::pause))
        .route("/rotations/{id}/resume", post(rotations::resume))
        .route("/rotations/{id}/abort", post(rotations::abort))
        .route("/rotations/{id}/retry", post(rotations::retry))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{name}", delete(tokens::revoke))
        .route("/webhooks", get(webhooks::list).post(webhooks::create))
        .route("/webhooks/{name}", delete(webhooks::remove))
        .route("/webhooks/{name}/dead-letters", get(webhooks::dead_letters))
        .route("/webhooks/{name}/redeliver", post(webhooks::redeliver))
        .fallback(error::not_found)
        .layer(from_fn_with_state(Arc::clone(&api), auth::authenticate))
        // What is added below the layer takes no token: the document tells nothing of this server.
        .route("/openapi.json", get(openapi::document))
        .layer(map_response(error::as_json));
    let ota = ota::router()
        .fallback(error::not_found)
        .layer(map_response(error::as_json))
        .layer(from_fn_with_state(Arc::clone(&api), auth::authenticate));
    Router::new()
        .nest("/v1", v1)
        .nest("/ota", ota)
        .route("/crl/{file}", get(crl::get))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(error::not_found)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(api)
}
