//! A rotation, for people.

use serde::Serialize;

use crate::clock::UnixTime;
use crate::model::rotation::{Counts, DailyWindow, FioconfigSettings, Plan, Rotation, StopRule};
use crate::model::{DeviceCaId, FactoryTrust};

const HOUR: i64 = 3600;

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

impl RotationView {
    pub(super) fn new(rotation: &Rotation, trust: &FactoryTrust) -> Self {
        let Plan { selection, pace, stop, patience, fioconfig, reason, .. } = &rotation.plan;
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
