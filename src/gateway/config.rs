//! `GET /config`: the configuration files of a device. The one that starts a rotation is there from
//! when the device's slot has come until the device has switched, or the rotation has ended.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{IF_MODIFIED_SINCE, USER_AGENT};
use axum::response::Response;
use serde_json::{Value, json};

use super::{Caller, Gateway, answer, read, unreadable};
use crate::clock::UnixTime;
use crate::model::Refusal;
use crate::model::rotation::{FioconfigSettings, ROTATE_CERTS, ROTATE_CERTS_HANDLER, Rotation};

/// What agents of before 2026-02 call themselves; they take an answer of the label `fioconfig` only.
const OLD_AGENTS: [&str; 2] = ["fioconfig-client/1", "fioconfig-client/2"];
const OLD_AGENTS_LABEL: &str = "fioconfig";

pub(super) async fn get(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let Caller { factory, device } = caller;
    let delivered = gateway.ledger.rotation_to_deliver(factory.id, device).await;
    let Some((rotation, since)) = delivered.map_err(unreadable)? else {
        return Ok(answer::no_content());
    };
    if modified_since(headers).is_some_and(|known| known >= since) {
        return Ok(answer::not_modified());
    }
    let est = format!("{}:{}", factory.est_host, gateway.est_public_port);
    let value = settings(&rotation, headers).file(&est, &rotation.name);
    let file = json!({ "Value": value, "OnChanged": [ROTATE_CERTS_HANDLER], "Unencrypted": true });
    Ok(answer::json(json!({ ROTATE_CERTS: file }).to_string()))
}

/// The device's own configuration, encrypted for its next key, which it sends back to be kept: none
/// is given out by this gateway, so there is none to keep.
pub(super) async fn update(body: Body) -> Result<Response, Refusal> {
    let _well_formed: Value = read(body).await?;
    Ok(answer::no_content())
}

/// What the rotation says, with the label that the agent's version understands.
fn settings(rotation: &Rotation, headers: &HeaderMap) -> FioconfigSettings {
    let settings = rotation.plan.fioconfig.clone();
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let name = agent.split_whitespace().next().unwrap_or_default();
    if settings.label.is_none() && OLD_AGENTS.contains(&name) {
        return FioconfigSettings { label: Some(OLD_AGENTS_LABEL.to_owned()), ..settings };
    }
    settings
}

/// The date of If-Modified-Since: the agent writes `UTC` where HTTP has `GMT`.
fn modified_since(headers: &HeaderMap) -> Option<UnixTime> {
    let text = headers.get(IF_MODIFIED_SINCE)?.to_str().ok()?;
    let text = text.trim().replace("UTC", "GMT");
    let date = jiff::fmt::rfc2822::parse(&text).ok()?;
    Some(UnixTime(date.timestamp().as_second()))
}
