//! `POST /events`: what devices say of the steps of their rotation. It is kept as it is said.

use axum::body::Body;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::{Caller, Gateway, answer, read};
use crate::model::{DeviceEvent, Refusal};

/// How many events one request may tell.
const EVENTS_LIMIT: usize = 100;
/// How much of each text is kept, in characters.
const TEXT_LIMIT: usize = 1000;

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
    details: Value,
}

pub(super) async fn post(
    gateway: &Gateway,
    caller: &Caller,
    body: Body,
) -> Result<Response, Refusal> {
    let written: Vec<Written> = read(body).await?;
    if written.len() > EVENTS_LIMIT {
        let why = format!("more than {EVENTS_LIMIT} events in one request");
        return Err(Refusal::GatewayBody(why));
    }
    let events = written.into_iter().map(kept).collect();
    gateway.ledger.keep_events(caller.key(), events).await?;
    Ok(answer::ok())
}

fn kept(written: Written) -> DeviceEvent {
    // Text without what a ledger cannot keep.
    let text =
        |text: &str| -> String { text.chars().filter(|c| *c != '\0').take(TEXT_LIMIT).collect() };
    let details = match &written.event.details {
        Value::Null => String::new(),
        Value::String(said) => text(said),
        other => text(&other.to_string()),
    };
    DeviceEvent {
        id: text(&written.id),
        device_time: text(&written.device_time),
        rotation: text(&written.event.correlation_id),
        step: text(&written.event_type.id),
        success: written.event.success,
        details,
    }
}
