//! `GET /device`, and `PATCH /device`: the device says which key it will use next.

use axum::body::Body;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::{Caller, Gateway, answer, read, unreadable};
use crate::ledger::DeviceKey;
use crate::model::Refusal;
use crate::pki::PublicKey;

#[derive(Deserialize)]
struct Update {
    /// PEM SubjectPublicKeyInfo.
    next_pubkey: String,
}

pub(super) async fn get(gateway: &Gateway, caller: &Caller) -> Result<Response, Refusal> {
    let key = DeviceKey::Uuid(caller.device.as_str());
    let device = gateway.ledger.registered_device(caller.factory.id, key).await;
    let device = device.map_err(unreadable)?.ok_or(Refusal::CredentialUnknown)?;
    Ok(answer::json(
        json!({
            "uuid": device.name.as_str(),
            "name": device.metadata.alias,
            "factory": caller.factory.name.as_str(),
            "group": device.metadata.group,
            "hardware-id": device.metadata.hardware_id,
            "created-at": device.registered_at,
            "last-seen": device.last_seen_at,
        })
        .to_string(),
    ))
}

pub(super) async fn update(
    gateway: &Gateway,
    caller: &Caller,
    body: Body,
) -> Result<Response, Refusal> {
    let Update { next_pubkey } = read(body).await?;
    let key = PublicKey::from_pem(next_pubkey.as_bytes());
    let key = key.map_err(|why| Refusal::GatewayBody(why.to_string()))?;
    gateway.ledger.announce_key(caller.key(), key.fingerprint()).await?;
    Ok(answer::ok())
}
