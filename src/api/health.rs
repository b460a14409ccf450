//! `/healthz`, `/readyz` and `/metrics`, for machines.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::Api;
use crate::keys::ActiveSnapshot;
use crate::model::{DeviceCaState, ServerPurpose};
use crate::pki::Certificate;
use crate::telemetry::Reading;

/// The process runs.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// The ledger answers, and some Factory can be served.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    if api.ledger.ping().await.is_err() || !api.ledger.records() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer or cannot record\n");
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
    let writer = api.ledger.writer_metrics();
    let reading = Reading {
        batches: writer.batches.load(Ordering::Relaxed),
        alarms: writer.alarms.load(Ordering::Relaxed),
        unrecorded: writer.failed.load(Ordering::Relaxed),
        expiries: expiries(&api.active.load()),
    };
    let text = api.metrics.to_text(&reading).unwrap_or_default();
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// When the first certificate of each kind ends, of all Factories: a root, the server certificates in
/// use, the Device CAs that are enabled.
fn expiries(active: &ActiveSnapshot) -> Vec<(&'static str, i64)> {
    let factories = &active.snapshot().factories;
    let roots = factories.iter().filter_map(|trust| trust.factory.root.as_ref());
    let cas = factories.iter().flat_map(|trust| &trust.device_cas);
    let enabled = cas.filter(|ca| ca.state == DeviceCaState::Enabled).map(|ca| &ca.certificate);
    let mut found = vec![("root", earliest(roots)), ("device-ca", earliest(enabled))];
    for purpose in ServerPurpose::ALL {
        let servers = factories.iter().filter_map(|trust| active.server(trust.factory.id, purpose));
        found.push((purpose.as_str(), earliest(servers.map(|server| &server.certificate))));
    }
    found.into_iter().filter_map(|(what, end)| end.map(|end| (what, end))).collect()
}

fn earliest<'a>(certificates: impl Iterator<Item = &'a Certificate>) -> Option<i64> {
    certificates.map(|certificate| certificate.validity().not_after.0).min()
}
