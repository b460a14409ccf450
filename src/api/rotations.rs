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
use super::selection::FactoryQuery;
use crate::clock::UnixTime;
use crate::fleet::rotations::{self, AskedRotation};
use crate::ledger::{DryRun, RotationDevice, RotationDevicePage, Started};
use crate::model::rotation::{
    Counts, DailyWindow, FioconfigSettings, MemberState, Pace, Plan, ROTATE_CERTS,
    ROTATE_CERTS_HANDLER, Rotation, RotationAct, RotationName, Selection, StopRule,
};
use crate::model::{DeviceCa, DeviceCaId, DeviceName, FactoryTrust, Label};
use crate::pki::Fingerprint;

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// How many devices may be named.
const NAMES_LIMIT: usize = 10_000;
/// The largest body that starts a rotation: that many names.
pub(super) const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// How many of the slowest and the failed devices a rotation's status names.
const NAMED: u32 = 10;
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const HOUR: i64 = 3600;
/// How long a reason may be, in characters: it is shown wherever the rotation is.
pub(super) const REASON_LIMIT: usize = 1000;

/// A rotation to be started, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    id: Option<String>,
    #[serde(default)]
    reason: String,
    select: WrittenSelection,
    /// The serial number of the Device CA that shall issue.
    target: Option<String>,
    #[serde(default)]
    pace: WrittenPace,
    stop: Option<WrittenStop>,
    patience_hours: Option<u32>,
    #[serde(default)]
    fioconfig: WrittenFioconfig,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenSelection {
    all: bool,
    device_ca: Option<String>,
    group: Option<String>,
    expires_before: Option<String>,
    key_algorithm: Option<String>,
    devices: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenPace {
    per_minute: Option<u32>,
    canary: Option<u32>,
    window: Option<String>,
    begin: Option<String>,
    until: Option<String>,
}

/// `{"never":true}`, or how many failures of how many devices are too many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStop {
    #[serde(default)]
    never: bool,
    last: Option<u32>,
    percent: Option<u8>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenFioconfig {
    label: Option<String>,
    pkey_ids: Option<String>,
    cert_ids: Option<String>,
}

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

/// A rotation, for people.
#[derive(Serialize)]
pub(super) struct RotationView {
    pub(super) id: String,
    pub(super) state: &'static str,
    state_reason: String,
    state_since: UnixTime,
    reason: String,
    created_by: String,
    created_at: UnixTime,
    selection: SelectionView,
    /// The serial number of the Device CA that its devices shall have a certificate of.
    target: Option<String>,
    pace: PaceView,
    stop: Option<StopRule>,
    patience_hours: i64,
    fioconfig: FioconfigSettings,
    counts: Counts,
    devices: i64,
    /// How many of the canaries are not confirmed yet.
    canaries_left: i64,
    /// How many of the last devices that the stop rule looks back on failed.
    recent_failures: usize,
    /// When the last slot is given out at the present pace.
    projected_end: Option<UnixTime>,
}

#[derive(Serialize)]
struct SelectionView {
    device_ca: Option<String>,
    group: Option<String>,
    expires_before: Option<UnixTime>,
    key_algorithm: Option<String>,
    /// How many devices were named.
    named: Option<usize>,
}

#[derive(Serialize)]
struct PaceView {
    per_minute: u32,
    canary: u32,
    window: Option<DailyWindow>,
    begin: Option<UnixTime>,
    until: Option<UnixTime>,
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

impl Written {
    /// What is meant, in a Factory.
    fn asked<'a>(self, api: &Api, trust: &'a FactoryTrust) -> Result<AskedRotation<'a>, ApiError> {
        let now = UnixTime::now();
        let defaults = &api.rotation_defaults;
        let device_ca = self.select.device_ca.as_deref().map(|serial| find_ca(trust, serial));
        let target = self.target.as_deref().map(|serial| find_ca(trust, serial));
        let (device_ca, target) = (device_ca.transpose()?, target.transpose()?);
        let named = self.select.named()?;
        let name = self.id.as_deref().map(RotationName::parse).transpose()?;
        let patience = match self.patience_hours {
            None => defaults.patience,
            Some(0) => return Err(ApiError::bad_request("patience_hours must be at least 1")),
            Some(hours) => i64::from(hours) * HOUR,
        };
        if self.reason.chars().count() > REASON_LIMIT {
            let why = format!("reason: {REASON_LIMIT} characters at most");
            return Err(ApiError::bad_request(why));
        }
        let plan = Plan {
            selection: self.select.selection(device_ca, named.as_deref())?,
            pace: self.pace.meant(&defaults.pace, now)?,
            stop: stop_rule(self.stop, defaults.stop)?,
            patience,
            fioconfig: self.fioconfig.meant(api, &defaults.fioconfig)?,
            reason: self.reason,
        };
        let name = name.unwrap_or_else(|| RotationName::at(now));
        Ok(AskedRotation { name, plan, device_ca, target, named, request: None })
    }
}

impl WrittenSelection {
    fn named(&self) -> Result<Option<Vec<DeviceName>>, ApiError> {
        let Some(written) = &self.devices else {
            return Ok(None);
        };
        if written.is_empty() || written.len() > NAMES_LIMIT {
            let why = format!("select.devices must name 1 to {NAMES_LIMIT} devices");
            return Err(ApiError::bad_request(why));
        }
        let mut names = written.clone();
        names.sort_unstable();
        names.dedup();
        let names = names.iter().map(|name| DeviceName::parse(name)).collect::<Result<_, _>>()?;
        Ok(Some(names))
    }

    fn selection(
        self,
        device_ca: Option<&DeviceCa>,
        named: Option<&[DeviceName]>,
    ) -> Result<Selection, ApiError> {
        let expires_before =
            self.expires_before.as_deref().map(|text| time("expires_before", text));
        let selection = Selection {
            device_ca: device_ca.map(|ca| ca.certificate.serial().to_string()),
            group: self.group,
            expires_before: expires_before.transpose()?.map(|time| time.0),
            key_algorithm: self.key_algorithm,
            named: named.map(<[_]>::len),
        };
        if selection.group.as_deref() == Some("") {
            return Err(ApiError::bad_request("select.group is empty: name a group"));
        }
        if self.all == (selection != Selection::default()) {
            let why = "select must say which devices: device_ca, group, expires_before, \
                       key_algorithm, devices, or all and nothing else";
            return Err(ApiError::bad_request(why));
        }
        Ok(selection)
    }
}

impl WrittenPace {
    fn meant(self, default: &Pace, now: UnixTime) -> Result<Pace, ApiError> {
        let window = self.window.as_deref().map(DailyWindow::parse).transpose();
        let begin = self.begin.as_deref().map(|text| time("pace.begin", text)).transpose()?;
        let until = self.until.as_deref().map(|text| time("pace.until", text)).transpose()?;
        let pace = Pace {
            per_minute: self.per_minute.unwrap_or(default.per_minute),
            canary: self.canary.unwrap_or(default.canary),
            window: window.map_err(ApiError::bad_request)?,
            begin: begin.map(|time| time.0),
            until: until.map(|time| time.0),
        };
        pace.check(now).map_err(ApiError::bad_request)?;
        Ok(pace)
    }
}

impl WrittenFioconfig {
    fn meant(self, api: &Api, default: &FioconfigSettings) -> Result<FioconfigSettings, ApiError> {
        let label = self.label.as_deref().map(Label::parse).transpose()?;
        let profiles = &api.active.load_full().snapshot().profiles.clone();
        if label.is_some() && profiles.select(label.as_ref()).is_none() {
            return Err(ApiError::bad_request("fioconfig.label: no profile has this label"));
        }
        let settings = FioconfigSettings {
            label: self.label,
            pkey_ids: self.pkey_ids.unwrap_or_else(|| default.pkey_ids.clone()),
            cert_ids: self.cert_ids.unwrap_or_else(|| default.cert_ids.clone()),
        };
        for (key, ids) in [("pkey_ids", &settings.pkey_ids), ("cert_ids", &settings.cert_ids)] {
            if !FioconfigSettings::are_ids(ids) {
                let why = format!("fioconfig.{key} must be hex numbers separated by commas");
                return Err(ApiError::bad_request(why));
            }
        }
        Ok(settings)
    }
}

fn stop_rule(
    written: Option<WrittenStop>,
    default: StopRule,
) -> Result<Option<StopRule>, ApiError> {
    match written {
        None => Ok(Some(default)),
        Some(WrittenStop { never: true, last: None, percent: None }) => Ok(None),
        Some(WrittenStop { never: true, .. }) => {
            Err(ApiError::bad_request("stop: never, or a rule, not both"))
        }
        Some(WrittenStop { never: false, last, percent }) => {
            let last = last.unwrap_or(default.last);
            let rule = StopRule::new(last, percent.unwrap_or(default.percent));
            let why = "stop: last must be 1 to 1000 devices, percent 0 to 99";
            rule.map(Some).ok_or_else(|| ApiError::bad_request(why))
        }
    }
}

fn time(key: &str, text: &str) -> Result<UnixTime, ApiError> {
    let why = || ApiError::bad_request(format!("{key} must be a time in RFC 3339, or a date"));
    UnixTime::parse(text).ok_or_else(why)
}

fn find_ca<'a>(trust: &'a FactoryTrust, serial: &str) -> Result<&'a DeviceCa, ApiError> {
    let why = || ApiError::not_found("this Factory has no Device CA with that serial number");
    trust.device_ca_by_written_serial(serial).ok_or_else(why)
}

impl RotationView {
    pub(super) fn new(rotation: &Rotation, trust: &FactoryTrust) -> Self {
        let Plan { selection, pace, stop, patience, fioconfig, reason } = &rotation.plan;
        let serial = |id: DeviceCaId| Some(trust.device_ca(id)?.certificate.serial().to_string());
        Self {
            id: rotation.name.to_string(),
            state: rotation.state.as_str(),
            state_reason: rotation.state_reason.clone(),
            state_since: rotation.state_since,
            reason: reason.clone(),
            created_by: rotation.created_by.clone(),
            created_at: rotation.created_at,
            selection: SelectionView {
                device_ca: selection.device_ca.clone(),
                group: selection.group.clone(),
                expires_before: selection.expires_before.map(UnixTime),
                key_algorithm: selection.key_algorithm.clone(),
                named: selection.named,
            },
            target: rotation.target.and_then(serial),
            pace: PaceView {
                per_minute: pace.per_minute,
                canary: pace.canary,
                window: pace.window,
                begin: pace.begin.map(UnixTime),
                until: pace.until.map(UnixTime),
            },
            stop: *stop,
            patience_hours: patience / HOUR,
            fioconfig: fioconfig.clone(),
            counts: rotation.counts,
            devices: rotation.counts.total(),
            canaries_left: rotation.canaries_left,
            recent_failures: rotation.outcomes.failures(),
            projected_end: rotation.projected_end(UnixTime::now()),
        }
    }
}
