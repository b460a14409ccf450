//! `POST /events`: what devices say of the steps of their rotation. It is kept as it is said.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::{Caller, Gateway, answer, forward, parse, read_bytes, unreadable};
use crate::listener::Session;
use crate::model::{DeviceEvent, Refusal};

/// How many events one request may tell. Whoever has more sends fewer at once, if the answer is 413.
const EVENTS_LIMIT: usize = 100;
/// How much of each text is kept, in characters.
const TEXT_LIMIT: usize = 1000;
/// The same of an event's own id, which the ledger looks it up by.
const ID_LIMIT: usize = 128;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    id: String,
    #[serde(default)]
    device_time: String,
    event_type: EventType,
    #[serde(default)]
    event: Said,
}

#[derive(Deserialize)]
struct EventType {
    id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Said {
    correlation_id: String,
    success: Option<bool>,
    target_name: Value,
    version: Value,
    details: Value,
}

pub(super) async fn post(
    gateway: &Gateway,
    caller: &Caller,
    session: &Session,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let body = read_bytes(body).await?;
    let written: Vec<Written> = parse(&body)?;
    if written.len() > EVENTS_LIMIT {
        return Err(Refusal::TooManyEvents(EVENTS_LIMIT));
    }
    let events: Vec<_> = written.into_iter().map(kept).collect();
    // Of updates, devices tell at the same place.
    let upstream = match &gateway.upstream {
        Some(upstream) if !are_of_rotations(gateway, caller, &events).await? => Some(upstream),
        _ => None,
    };
    gateway.ledger.keep_events(caller.key(), events).await?;
    match upstream {
        Some(upstream) => {
            let request = Request::from_parts(head, Body::from(body));
            forward::pass(upstream, caller, session, request).await
        }
        None => Ok(answer::ok()),
    }
}

async fn are_of_rotations(
    gateway: &Gateway,
    caller: &Caller,
    events: &[DeviceEvent],
) -> Result<bool, Refusal> {
    let Caller { factory, device } = caller;
    let rotations = gateway.ledger.names_of_rotations(factory.id, device).await;
    let rotations = rotations.map_err(unreadable)?;
    let is_of_one =
        |event: &DeviceEvent| rotations.iter().any(|one| one.is_meant_by(&event.rotation));
    Ok(events.iter().all(is_of_one))
}

fn kept(written: Written) -> DeviceEvent {
    // Text without what a ledger cannot keep.
    let up_to =
        |limit, text: &str| -> String { text.chars().filter(|c| *c != '\0').take(limit).collect() };
    let text = |text: &str| up_to(TEXT_LIMIT, text);
    let said = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(said) => text(said),
        other => text(&other.to_string()),
    };
    DeviceEvent {
        id: up_to(ID_LIMIT, &written.id),
        device_time: text(&written.device_time),
        rotation: text(&written.event.correlation_id),
        step: text(&written.event_type.id),
        target: said(&written.event.target_name),
        version: said(&written.event.version),
        success: written.event.success,
        details: said(&written.event.details),
    }
}
