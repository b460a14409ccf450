//! `/v1/rotations`: start one, list them, tell how one stands, act on one.

use std::sync::Arc;

use aws_lc_rs::digest;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Principal;
use super::error::ApiError;
use super::role::{Operator, Viewer};
use super::rotation_request::{Written, check_reason};
use super::rotation_view::RotationView;
use super::selection::FactoryQuery;
use crate::fleet::rotations;
use crate::ledger::{DryRun, RotationDevice, RotationDevicePage, Started};
use crate::model::FactoryTrust;
use crate::model::rotation::{
    MemberState, ROTATE_CERTS, ROTATE_CERTS_HANDLER, Rotation, RotationAct, RotationName,
};
use crate::pki::Fingerprint;

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// The largest body that starts a rotation: as many names as may be in it.
pub(super) const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// How many of the slowest and the failed devices a rotation's status names.
const NAMED: u32 = 10;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Why something is done.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Why {
    reason: String,
}

/// How a rotation goes on.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Resume {
    reason: String,
    /// Whether canaries that are still under way are waited for no more.
    past_canaries: bool,
}

#[derive(Deserialize)]
pub(super) struct RotationsQuery {
    before: Option<i64>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct DevicesQuery {
    state: Option<String>,
    after: Option<i64>,
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Rotations {
    rotations: Vec<RotationView>,
    /// What to ask for with `before` after this page; absent on the last.
    next: Option<i64>,
}

/// How a rotation stands, with the devices to look at.
#[derive(Serialize)]
pub(super) struct RotationStatus {
    #[serde(flatten)]
    rotation: RotationView,
    /// Those that have had their slot for longest and have not asked.
    slowest_to_ask: Vec<RotationDevice>,
    /// Those that were issued a certificate longest ago and were not seen with it.
    slowest_to_confirm: Vec<RotationDevice>,
    /// Some that failed.
    failed: Vec<RotationDevice>,
}

/// The configuration that tells fioconfig devices to rotate, as fioctl would send it.
#[derive(Serialize)]
pub(super) struct FioconfigFile {
    reason: String,
    files: [ConfigFile; 1],
}

#[derive(Serialize)]
struct ConfigFile {
    name: &'static str,
    value: String,
    unencrypted: bool,
    #[serde(rename = "on-changed")]
    on_changed: [&'static str; 1],
}

pub(super) async fn start(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let (headers, body, written) = read(request).await?;
    let trust = api.fresh_factory(&principal, &query).await?;
    let dry_run = written.dry_run;
    let mut asked = written.asked(&api, &trust)?;
    if dry_run {
        let run: DryRun = rotations::dry_run(&api.ledger, &trust, &asked).await?;
        return Ok(Json(run).into_response());
    }
    asked.request = idempotency_key(&headers, &body)?;
    let started = rotations::start(&api.ledger, &trust, asked, &principal.name).await?;
    (api.apply)().await;
    let (status, rotation) = match started {
        Started::New(rotation) => (StatusCode::CREATED, rotation),
        Started::Before(rotation) => (StatusCode::OK, rotation),
    };
    Ok((status, Json(RotationView::new(&rotation, &trust))).into_response())
}

/// The body as it is meant and as it came, by which the same request is known again.
async fn read(request: Request) -> Result<(HeaderMap, Bytes, Written), ApiError> {
    let (head, body) = request.into_parts();
    let headers = head.headers.clone();
    let body = Bytes::from_request(Request::from_parts(head.clone(), body), &()).await;
    let body = body.map_err(|why| ApiError::new(why.status(), why.body_text()))?;
    let request = Request::from_parts(head, Body::from(body.clone()));
    let written = Json::<Written>::from_request(request, &()).await;
    let Json(written) = written.map_err(|why| ApiError::new(why.status(), why.body_text()))?;
    Ok((headers, body, written))
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(page): Query<RotationsQuery>,
) -> Result<Json<Rotations>, ApiError> {
    let trust = query.select(&principal, &api.active.load())?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let rotations = api.ledger.rotations(trust.factory.id, page.before, limit).await?;
    let full = rotations.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = rotations.last().filter(|_| full).map(|last| last.id.0);
    let rotations = rotations.iter().map(|one| RotationView::new(one, &trust)).collect();
    Ok(Json(Rotations { rotations, next }))
}

pub(super) async fn show(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<String>,
) -> Result<Json<RotationStatus>, ApiError> {
    let (trust, rotation) = find(&api, &principal, &query, &id).await?;
    let slowest =
        async |state| api.ledger.slowest_rotation_devices(rotation.id, state, NAMED).await;
    Ok(Json(RotationStatus {
        slowest_to_ask: slowest(MemberState::Offered).await?,
        slowest_to_confirm: slowest(MemberState::Issued).await?,
        failed: slowest(MemberState::Failed).await?,
        rotation: RotationView::new(&rotation, &trust),
    }))
}

pub(super) async fn devices(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(page): Query<DevicesQuery>,
    Path(id): Path<String>,
) -> Result<Json<RotationDevicePage>, ApiError> {
    let state = page.state.map(|word| {
        let all = MemberState::ALL.map(MemberState::as_str).join(", ");
        let why = format!("state must be one of {all}");
        MemberState::from_word(&word).ok_or_else(|| ApiError::bad_request(why))
    });
    let (state, after) = (state.transpose()?, page.after.unwrap_or(0));
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let (_, rotation) = find(&api, &principal, &query, &id).await?;
    Ok(Json(api.ledger.rotation_devices(rotation.id, state, after, limit).await?))
}

/// The file that starts the rotation on fioconfig devices, for another channel than the gateway.
pub(super) async fn fioconfig(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<String>,
) -> Result<Json<FioconfigFile>, ApiError> {
    let (trust, rotation) = find(&api, &principal, &query, &id).await?;
    let est = format!("{}:{}", trust.factory.est_host, api.est_public_port);
    let file = ConfigFile {
        name: ROTATE_CERTS,
        value: rotation.plan.fioconfig.file(&est, &rotation.name),
        unencrypted: true,
        on_changed: [ROTATE_CERTS_HANDLER],
    };
    Ok(Json(FioconfigFile { reason: rotation.plan.reason, files: [file] }))
}

pub(super) async fn pause(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<String>,
    Json(why): Json<Why>,
) -> Result<Json<RotationView>, ApiError> {
    act(&api, &principal, &query, &id, RotationAct::Pause, why).await
}

pub(super) async fn resume(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<String>,
    Json(Resume { reason, past_canaries }): Json<Resume>,
) -> Result<Json<RotationView>, ApiError> {
    let resume = if past_canaries { RotationAct::ResumePastCanaries } else { RotationAct::Resume };
    act(&api, &principal, &query, &id, resume, Why { reason }).await
}

pub(super) async fn abort(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<String>,
    Json(why): Json<Why>,
) -> Result<Json<RotationView>, ApiError> {
    act(&api, &principal, &query, &id, RotationAct::Abort, why).await
}

pub(super) async fn retry(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<String>,
    Json(why): Json<Why>,
) -> Result<Json<RotationView>, ApiError> {
    act(&api, &principal, &query, &id, RotationAct::Retry, why).await
}

async fn act(
    api: &Api,
    principal: &Principal,
    query: &FactoryQuery,
    id: &str,
    act: RotationAct,
    why: Why,
) -> Result<Json<RotationView>, ApiError> {
    check_reason(&why.reason)?;
    let (trust, rotation) = find(api, principal, query, id).await?;
    let (factory, name, actor) = (trust.factory.id, &rotation.name, &principal.name);
    let rotation = api.ledger.act_on_rotation(factory, name, act, actor, &why.reason).await?;
    (api.apply)().await;
    Ok(Json(RotationView::new(&rotation, &trust)))
}

pub(super) async fn find(
    api: &Api,
    principal: &Principal,
    query: &FactoryQuery,
    id: &str,
) -> Result<(FactoryTrust, Rotation), ApiError> {
    let trust = query.select(principal, &api.active.load())?;
    let rotation = match RotationName::parse(id) {
        Ok(name) => api.ledger.rotation(trust.factory.id, &name).await?,
        Err(_) => None,
    };
    let rotation = rotation.ok_or_else(|| ApiError::not_found("there is no such rotation"))?;
    Ok((trust, rotation))
}

fn idempotency_key(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<(String, Fingerprint)>, ApiError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()));
    let key = key.ok_or_else(|| {
        ApiError::bad_request("Idempotency-Key must be 1 to 255 visible ASCII characters")
    })?;
    let sha256 = digest::digest(&digest::SHA256, body);
    Ok(Fingerprint::from_bytes(sha256.as_ref()).map(|sha256| (key.to_owned(), sha256)))
}
