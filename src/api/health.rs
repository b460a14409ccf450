//! `/healthz`, `/readyz` and `/metrics`, for machines.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::Api;
use crate::model::ServerPurpose;

/// The process runs.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// The ledger answers, and some Factory can be served.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    if api.ledger.ping().await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer\n");
    }
    let active = api.active.load();
    let mut factories = active.snapshot().factories.iter();
    if factories.any(|trust| active.server(trust.factory.id, ServerPurpose::Est).is_some()) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no Factory has its EST server certificate yet\n")
    }
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let batches = api.ledger.writer_metrics().batches.load(Ordering::Relaxed);
    let text = api.metrics.to_text(batches).unwrap_or_default();
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
