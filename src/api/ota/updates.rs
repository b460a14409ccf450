//! `fioctl devices updates`: how a device fares in its rotations, in the shape of updates: what it says
//! of its steps, and then what the ledger has seen, which alone counts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Serialize;

use super::super::Api;
use super::super::auth::Principal;
use super::super::devices::unknown_device;
use super::super::error::ApiError;
use super::super::role::Viewer;
use super::super::selection::FactoryQuery;
use super::devices::{NameQuery, time};
use crate::ledger::{DeviceStory, RotationOfDevice};
use crate::model::DeviceEvent;
use crate::model::rotation::{MemberState, RotationName};

/// What fioctl shows where other updates have the name of their target.
const TARGET: &str = "certificates";

#[derive(Serialize)]
pub(super) struct UpdateList {
    updates: Vec<Update>,
    total: usize,
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Update {
    correlation_id: String,
    target: &'static str,
    version: &'static str,
    time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateEvent {
    device_time: String,
    event_type: EventType,
    event: Event,
}

#[derive(Serialize)]
struct EventType {
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    correlation_id: String,
    target_name: String,
    version: String,
    success: Option<bool>,
    details: String,
}

pub(super) async fn list(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(named): Query<NameQuery>,
    Path(name): Path<String>,
) -> Result<Json<UpdateList>, ApiError> {
    let rotations = story(&api, &principal, &query, &named, &name).await?.rotations;
    let update = |one: &RotationOfDevice| Update {
        correlation_id: one.rotation.clone(),
        target: TARGET,
        version: "",
        time: time(one.since),
    };
    let updates: Vec<_> = rotations.iter().map(update).collect();
    Ok(Json(UpdateList { total: updates.len(), updates, next: None }))
}

pub(super) async fn show(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Query(named): Query<NameQuery>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<Vec<UpdateEvent>>, ApiError> {
    let story = story(&api, &principal, &query, &named, &name).await?;
    let rotation = story.rotations.iter().find(|one| one.rotation == id);
    let rotation =
        rotation.ok_or_else(|| ApiError::not_found("the device is in no such rotation"))?;
    let rotation_name = RotationName::parse(&id)?;
    let of_it = |one: &&DeviceEvent| rotation_name.is_meant_by(&one.rotation);
    let said = story.events.iter().filter(of_it).filter(|one| !one.is_of_the_end());
    Ok(Json(said.map(said_by_device).chain(seen(rotation)).collect()))
}

async fn story(
    api: &Api,
    principal: &Principal,
    query: &FactoryQuery,
    named: &NameQuery,
    name: &str,
) -> Result<DeviceStory, ApiError> {
    let factory = query.select(principal, &api.active.load())?.factory;
    let device = api.ledger.registered_device(factory.id, named.key(name)).await?;
    let device = device.ok_or_else(unknown_device)?;
    let story = api.ledger.device(factory.id, &device.name).await?;
    story.ok_or_else(unknown_device)
}

fn said_by_device(event: &DeviceEvent) -> UpdateEvent {
    UpdateEvent {
        device_time: event.device_time.clone(),
        event_type: EventType { id: event.step.clone() },
        event: Event {
            correlation_id: event.rotation.clone(),
            target_name: event.target.clone(),
            version: event.version.clone(),
            success: event.success,
            details: event.details.clone(),
        },
    }
}

/// Where the device stands, by the name of the agent's step that it has come to.
fn seen(rotation: &RotationOfDevice) -> Option<UpdateEvent> {
    let (id, success) = match (rotation.state, rotation.reason.as_deref()) {
        (MemberState::Waiting | MemberState::Skipped, _) => return None,
        (MemberState::Offered, _) => ("CertRotationStarted", None),
        (MemberState::Issued, _) => ("Generate new certificate", Some(true)),
        (MemberState::Confirmed, _) => ("CertRotationCompleted", Some(true)),
        (MemberState::Failed, Some("unconfirmed")) => ("CertRotationCompleted", Some(false)),
        (MemberState::Failed, _) => ("Generate new certificate", Some(false)),
    };
    let why = rotation.reason.iter().chain(&rotation.detail).cloned().collect::<Vec<_>>();
    Some(UpdateEvent {
        device_time: time(rotation.since),
        event_type: EventType { id: id.to_owned() },
        event: Event {
            correlation_id: rotation.rotation.clone(),
            target_name: TARGET.to_owned(),
            version: String::new(),
            success,
            details: why.join(": "),
        },
    })
}
