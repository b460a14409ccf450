//! The API on the operator's side: `/v1/…`, health and metrics.

mod audit;
mod auth;
mod device_cas;
mod devices;
mod error;
mod factories;
mod health;
mod held_requests;
mod selection;

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{get, post};

pub use auth::AdminToken;

use crate::keys::{ActiveSnapshot, KeyStore};
use crate::ledger::Ledger;
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
    /// Where new keys are made.
    pub key_store: Arc<KeyStore>,
    /// Who may do anything at all.
    pub admin: AdminToken,
    /// What is called after a change, so that it holds here when its answer arrives.
    pub apply: Apply,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
}

/// The API service.
pub fn router(api: Api) -> Router {
    let api = Arc::new(api);
    let v1 = Router::new()
        .route("/factories", get(factories::list))
        .route("/device-cas", get(device_cas::list).post(device_cas::add))
        .route("/device-cas/requests", post(device_cas::request))
        .route("/devices", get(devices::list))
        .route("/devices/{name}", get(devices::show))
        .route("/devices/{name}/allow", post(devices::allow))
        .route("/held-requests", get(held_requests::list))
        .route("/held-requests/{id}/approve", post(held_requests::approve))
        .route("/held-requests/{id}/reject", post(held_requests::reject))
        .route("/audit", get(audit::list))
        .route("/audit/verification", get(audit::verify))
        .fallback(error::not_found)
        .layer(map_response(error::as_json))
        .layer(from_fn_with_state(Arc::clone(&api), auth::require_admin));
    Router::new()
        .nest("/v1", v1)
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(error::not_found)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(api)
}
