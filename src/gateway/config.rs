//! The configuration files of a device: those of the fleet, of its group over them, its own over those.
//! The one that starts a rotation is there from when the device's slot has come until the device has
//! switched, or the rotation has ended.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{IF_MODIFIED_SINCE, USER_AGENT};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Caller, Gateway, answer, read, unreadable};
use crate::clock::UnixTime;
use crate::model::rotation::{FioconfigSettings, ROTATE_CERTS, ROTATE_CERTS_HANDLER, Rotation};
use crate::model::{AnswerStyle, ConfigFile, ConfigScope, Label, Refusal};

/// What a device sends back; why, and for which key, is on record already.
#[derive(Deserialize)]
struct Returned {
    files: Vec<ConfigFile>,
}

/// What agents call themselves, before a number.
const AGENT: &str = "fioconfig-client/";
/// The first, of 2026-02, that takes the answer of RFC 7030.
const FIRST_OF_RFC7030: u32 = 3;
/// Its answer is taken by all agents, and the only one that those of before take.
const LABEL_OF_ALL: &str = "fioconfig";

/// A change may be seen only this long after its time: its transaction goes on, and servers' clocks
/// differ. What a device knows of that time may be from before the change.
const SLACK_SECONDS: i64 = 60;

pub(super) async fn get(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let Caller { factory, device } = caller;
    let told = gateway.ledger.rotation_to_deliver(factory.id, device).await.map_err(unreadable)?;
    let changed_at = gateway.ledger.config_changed_at(factory.id, device).await;
    let Some(changed_at) = changed_at.map_err(unreadable)?.max(told.changed_at) else {
        return Ok(answer::no_content());
    };
    let settled_at = changed_at.plus(SLACK_SECONDS);
    // A date that is still to come is not ours (RFC 9110 §13.1.3): the agent may say when, by its own
    // clock, it last wrote the file.
    let next = UnixTime::now().plus(SLACK_SECONDS);
    if modified_since(headers).is_some_and(|known| known > settled_at && known < next) {
        return Ok(answer::not_modified());
    }
    let files = gateway.ledger.config_of_device(factory.id, device).await;
    let mut files = files.map_err(unreadable)?;
    if let Some((rotation, name)) = &told.rotation {
        let est = format!("{}:{}", factory.est_host, gateway.est_public_port);
        let value = settings(gateway, rotation, headers).file(&est, name);
        let (name, handler) = (ROTATE_CERTS.to_owned(), ROTATE_CERTS_HANDLER.to_owned());
        let file = ConfigFile { name, value, unencrypted: true, on_changed: vec![handler] };
        files.insert(ROTATE_CERTS.to_owned(), file);
    }
    Ok(answer::json(as_agents_read_it(files.values()).to_string()))
}

/// The device's own files that are encrypted for its key: it encrypts them anew for its next one.
pub(super) async fn of_device(gateway: &Gateway, caller: &Caller) -> Result<Response, Refusal> {
    let scope = ConfigScope::Device(caller.device.clone());
    let files = gateway.ledger.config(caller.factory.id, &scope).await.map_err(unreadable)?;
    let mut encrypted = files.iter().filter(|file| !file.unencrypted).peekable();
    if encrypted.peek().is_none() {
        return Ok(answer::no_content());
    }
    Ok(answer::json(as_agents_read_it(encrypted).to_string()))
}

/// The device gives its own files back, encrypted for the key that it has announced.
pub(super) async fn update(
    gateway: &Gateway,
    caller: &Caller,
    body: Body,
) -> Result<Response, Refusal> {
    let Returned { files } = read(body).await?;
    for file in &files {
        file.check().map_err(|why| Refusal::GatewayBody(why.to_string()))?;
    }
    let (factory, device) = (caller.factory.id, &caller.device);
    let returned = gateway.ledger.return_config(factory, device, &files).await;
    if returned.map_err(unreadable)? {
        return Ok(answer::no_content());
    }
    Err(Refusal::NoNextKey)
}

fn as_agents_read_it<'a>(files: impl Iterator<Item = &'a ConfigFile>) -> Value {
    let entry = |file: &ConfigFile| {
        let ConfigFile { value, on_changed, unencrypted, .. } = file;
        let read = json!({ "Value": value, "OnChanged": on_changed, "Unencrypted": unencrypted });
        (file.name.clone(), read)
    };
    Value::Object(files.map(entry).collect())
}

/// What the rotation says, with a label whose answer the agent's version takes.
fn settings(gateway: &Gateway, rotation: &Rotation, headers: &HeaderMap) -> FioconfigSettings {
    let settings = rotation.plan.fioconfig.clone();
    if takes_rfc7030(headers) {
        return settings;
    }
    let label = settings.label.filter(|label| is_for_all(gateway, label));
    let label = label.unwrap_or_else(|| LABEL_OF_ALL.to_owned());
    FioconfigSettings { label: Some(label), ..settings }
}

fn takes_rfc7030(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let name = agent.split_whitespace().next().unwrap_or_default();
    let version = name.strip_prefix(AGENT).and_then(|version| version.parse::<u32>().ok());
    version.is_some_and(|version| version >= FIRST_OF_RFC7030)
}

fn is_for_all(gateway: &Gateway, label: &str) -> bool {
    let (active, label) = (gateway.active.load(), Label::parse(label).ok());
    let profile = label.and_then(|label| active.snapshot().profiles.select(Some(&label)));
    profile.is_some_and(|profile| profile.answer == AnswerStyle::Fioconfig)
}

/// The date of If-Modified-Since: the agent writes `UTC` where HTTP has `GMT`.
fn modified_since(headers: &HeaderMap) -> Option<UnixTime> {
    let text = headers.get(IF_MODIFIED_SINCE)?.to_str().ok()?;
    let text = text.trim().replace("UTC", "GMT");
    let date = jiff::fmt::rfc2822::parse(&text).ok()?;
    Some(UnixTime(date.timestamp().as_second()))
}
