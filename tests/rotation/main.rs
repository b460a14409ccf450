//! Rotations against a whole server: paced, proven, held, finished (DESIGN §6).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../support/mod.rs"]
mod support;

mod campaign;
mod failures;
mod fioctl_config;
mod refused;
mod selection;
mod windows;

use serde_json::{Value, json};
use support::fioctl::Fioctl;
use support::{Device, TestServer, eventually};

const ROTATIONS: &str = "/v1/rotations";

/// A server with devices of the factory line that it has seen, and who asks it.
async fn fleet(backend: support::Backend, count: usize) -> (TestServer, Fioctl, Vec<Device>) {
    let server = TestServer::start(backend).await;
    let api = Fioctl::new(&server);
    let devices: Vec<_> = (0..count).map(|n| server.device(&format!("device-{n}"))).collect();
    for device in &devices {
        server.session(device).await;
    }
    (server, api, devices)
}

fn line(server: &TestServer) -> String {
    server.factory_line.certificate().serial().to_string()
}

/// Every device of the factory line, as fast as can be.
fn off_the_line(server: &TestServer, id: &str) -> Value {
    json!({
        "id": id,
        "select": { "device_ca": line(server) },
        "pace": { "per_minute": 600_000 },
        "stop": { "never": true },
    })
}

async fn start(api: &Fioctl, asked: &Value) -> Value {
    api.post(ROTATIONS, asked).await.json(201)
}

async fn status(api: &Fioctl, id: &str) -> Value {
    api.get(&format!("{ROTATIONS}/{id}")).await.json(200)
}

async fn act(api: &Fioctl, id: &str, act: &str) -> support::fioctl::Answer {
    api.post(&format!("{ROTATIONS}/{id}/{act}"), &json!({ "reason": "because" })).await
}

/// The counts of waiting, offered, issued, confirmed, failed and skipped devices.
fn counts(rotation: &Value) -> [i64; 6] {
    ["waiting", "offered", "issued", "confirmed", "failed", "skipped"]
        .map(|state| rotation["counts"][state].as_i64().unwrap())
}

async fn counts_become(api: &Fioctl, id: &str, expected: [i64; 6]) {
    eventually(&format!("{id} to be {expected:?}"), async || {
        counts(&status(api, id).await) == expected
    })
    .await;
}

async fn state_becomes(api: &Fioctl, id: &str, expected: &str) {
    eventually(&format!("{id} to be {expected}"), async || {
        status(api, id).await["state"] == expected
    })
    .await;
}

/// What the rotation's devices are, by name: state and reason.
async fn devices(api: &Fioctl, id: &str) -> Vec<(String, String, String)> {
    let page = api.get(&format!("{ROTATIONS}/{id}/devices?limit=1000")).await.json(200);
    let mut all: Vec<_> = page["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            (text("name"), text("state"), text("reason"))
        })
        .collect();
    all.sort();
    all
}

/// Makes every device's time in its state as long ago as no patience lasts.
async fn lose_patience(server: &TestServer) {
    server.sql("UPDATE rotation_device SET since = 1").await;
}
