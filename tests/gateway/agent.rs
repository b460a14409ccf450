//! The fioconfig agent on the wire: its paths, headers and bodies, to the letter.

use estd::keys::SigningKey;
use estd::pki::to_pem;
use serde_json::{Value, json};

use crate::support::wire::{Answer, Wire};
use crate::support::{Device, HOST, TestServer, Tls};

/// An agent before 2026-02, and a newer one.
pub const OLD: &str = "fioconfig-client/2";
pub const NEW: &str = "fioconfig-client/3";

/// One request of the agent to the gateway, on a connection of its own.
pub async fn send(
    server: &TestServer,
    device: &Device,
    (method, path): (&str, &str),
    headers: &str,
    body: &str,
) -> Answer {
    let mut wire = connect(server, Some(device)).await.unwrap();
    wire.send(&request((method, path), headers, body)).await.unwrap()
}

pub fn request((method, path): (&str, &str), headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{headers}");
    format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

pub async fn connect(server: &TestServer, device: Option<&Device>) -> std::io::Result<Wire> {
    let address = server.server.gateway_address();
    Wire::connect(address, server.root.certificate(), device, &Tls::default()).await
}

/// What the agent polls every five minutes.
pub async fn config(server: &TestServer, device: &Device, agent: &str) -> Answer {
    let headers = format!("User-Agent: {agent}\r\n");
    send(server, device, ("GET", "/config"), &headers, "").await
}

/// Whether the agent is told to have no file: by 204 as long as it never had one.
pub fn is_told_nothing(answer: &Answer) -> bool {
    (answer.status, answer.text()) == (200, "{}") || answer.status == 204
}

/// The file that starts a rotation, by its lines.
pub fn rotate_certs(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    let files: Value = serde_json::from_str(answer.text()).unwrap();
    let file = &files["fio-rotate-certs"];
    assert_eq!(file["OnChanged"], json!(["/usr/share/fioconfig/handlers/renew-client-cert"]));
    assert_eq!(file["Unencrypted"], true);
    // As the handler does it: split on `=`, take the second field.
    let lines = file["Value"].as_str().unwrap().lines();
    lines
        .map(|line| {
            let mut fields = line.split('=');
            (fields.next().unwrap().to_owned(), json!(fields.next().unwrap()))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Step 1: tells the gateway the next key.
pub async fn announce(server: &TestServer, device: &Device, key: &SigningKey) -> Answer {
    send(server, device, ("PATCH", "/device"), "", &announcement(key)).await
}

pub fn announcement(key: &SigningKey) -> String {
    json!({ "next_pubkey": public_key(key) }).to_string()
}

pub fn public_key(key: &SigningKey) -> String {
    to_pem("PUBLIC KEY", key.public_key().der()).unwrap()
}

/// An event after a step.
pub fn event(id: &str, rotation: &str, step: &str, success: Option<bool>) -> Value {
    json!({
        "id": id, "deviceTime": "2026-11-21T05:00:00Z",
        "event": {
            "correlationId": rotation, "success": success, "targetName": "lmp", "version": "290",
            "details": if success == Some(false) { "disk full" } else { "" },
        },
        "eventType": { "id": step, "version": 0 },
    })
}

pub async fn say(server: &TestServer, device: &Device, events: &Value) -> Answer {
    send(server, device, ("POST", "/events"), "", &events.to_string()).await
}
