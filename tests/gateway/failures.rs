//! A device that fails at each point of its rotation, and begins anew with the key that it has: it
//! always ends with one accepted credential and a confirmed rotation.

use serde_json::json;

use crate::agent::{NEW, OLD, announce, config, event, is_told_nothing, rotate_certs, say, send};
use crate::on_both_ledgers;
use crate::rotation::{becomes, rotating};
use crate::support::device::new_key;
use crate::support::wire::post;
use crate::support::{Device, TestServer, Tls};

/// Where the power fails.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The request is sent, and the answer never read.
    BeforeTheAnswer,
    /// The certificate is there, and not yet told to the gateway.
    AfterTheAnswer,
    /// The gateway has taken the next key.
    AfterTheLock,
    /// The device's files are given back for the next key.
    AfterTheFiles,
    /// The new pair is in place, and no session was opened with it.
    BeforeTheSwitch,
    /// A session with the new pair was opened.
    AfterTheSwitch,
}

const CUTS: [Cut; 6] = [
    Cut::BeforeTheAnswer,
    Cut::AfterTheAnswer,
    Cut::AfterTheLock,
    Cut::AfterTheFiles,
    Cut::BeforeTheSwitch,
    Cut::AfterTheSwitch,
];

/// Runs the agent from its poll until the cut, or to its end; gives what the device then holds.
async fn rotate_until(server: &TestServer, held: Device, agent: &str, cut: Option<Cut>) -> Device {
    let told = config(server, &held, agent).await;
    if told.status == 204 || !told.text().contains("fio-rotate-certs") {
        return held;
    }
    let id = rotate_certs(&told)["ROTATIONID"].as_str().unwrap().to_owned();
    let label = if agent == OLD { "/fioconfig" } else { "" };
    let request = |body: &str| post(&format!("/.well-known/est{label}/simplereenroll"), body);
    if matches!(cut, Some(Cut::BeforeTheAnswer)) {
        let mut wire = server.connect(Some(&held), &Tls::default()).await.unwrap();
        wire.write(&request(&held.request().1)).await.unwrap();
        return held;
    }
    let key = new_key();
    let body = held.request_for(&key);
    let answer = server.send(Some(&held), &request(&body)).await.unwrap();
    let certificate = answer.certificate();
    if matches!(cut, Some(Cut::AfterTheAnswer)) {
        return held;
    }
    assert_eq!(announce(server, &held, &key).await.status, 200);
    if matches!(cut, Some(Cut::AfterTheLock)) {
        return held;
    }
    let own = send(server, &held, ("GET", "/config-device"), "", "").await;
    assert_eq!(own.status, 200, "the device has a file of its own");
    let back =
        json!({ "reason": "x", "public-key": "x", "files": [{ "name": "wifi", "value": "new" }] });
    let back = send(server, &held, ("PATCH", "/config"), "", &back.to_string()).await;
    assert_eq!(back.status, 204);
    if matches!(cut, Some(Cut::AfterTheFiles)) {
        let failed = json!([event("f", &id, "Finalize aktualizr configuration", Some(false))]);
        assert_eq!(say(server, &held, &failed).await.status, 200);
        return held;
    }
    let new = Device::switched(certificate, key);
    if matches!(cut, Some(Cut::BeforeTheSwitch)) {
        return new;
    }
    assert!([200, 204].contains(&config(server, &new, agent).await.status));
    new
}

on_both_ledgers! {
    async fn i3_wherever_the_power_fails_the_device_comes_through(backend: Backend) {
        let (server, api, devices) = rotating(backend, 2 * CUTS.len()).await;
        let mut cuts = [OLD, NEW].into_iter().flat_map(|agent| CUTS.map(|cut| (agent, cut)));
        for device in devices {
            let (agent, cut) = cuts.next().unwrap();
            let name = device.certificate.subject().common_name().unwrap();
            let own = format!("/ota/devices/{name}/config/?factory=factory&by-uuid=1");
            let file = json!({ "files": [{ "name": "wifi", "value": "b2xk" }] });
            api.patch(&own, &file).await.json(200);
            let held = rotate_until(&server, device, agent, Some(cut)).await;
            // It is accepted with what it holds, whatever that is, and goes on.
            let held = rotate_until(&server, held, agent, None).await;
            let last = config(&server, &held, agent).await;
            assert!([200, 204].contains(&last.status), "{agent} {cut:?}: {last:?}");
            let states = server.states(&name).await;
            let current = states.iter().filter(|state| *state == "current").count();
            assert_eq!(current, 1, "{agent} {cut:?}: {states:?}");
            let story = server.story(&name).await;
            let held = held.certificate.fingerprint().to_string();
            let in_use = story.credentials.iter().find(|one| one.state == "current").unwrap();
            assert_eq!(in_use.sha256, held, "{agent} {cut:?}");
            assert_eq!(story.next_key, None, "{agent} {cut:?}");
        }
        becomes(&api, "confirmed", 2 * CUTS.len()).await;
        server.stop().await;
    }
}

/// The whole of it, as a fleet manager does it with fioctl: a group of 200, to the revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_rotates_off_its_device_ca() {
    let backend = crate::support::Backend::Sqlite;
    let server = TestServer::start_with(backend, "[rotation]\nper_minute = 3000").await;
    let api = crate::support::fioctl::Fioctl::new(&server);
    let devices: Vec<_> = (0..200).map(|n| server.device(&format!("device-{n}"))).collect();
    for device in &devices {
        assert_eq!(config(&server, device, NEW).await.status, 204);
    }
    server.sql("UPDATE device SET device_group = 'beta'").await;
    let serial = server.factory_line.certificate().serial().to_string();
    api.post(&format!("/v1/device-cas/{serial}/disable"), &json!({})).await.json(200);
    let value = "ESTSERVER=https://localhost:8443/.well-known/est\nPKEYIDS=01,07\nCERTIDS=03,09\n\
                 ROTATIONID=certs-1669058841\n";
    let body = json!({ "reason": "key stolen", "files": [{
        "name": "fio-rotate-certs", "value": value, "unencrypted": true,
        "on-changed": ["/usr/share/fioconfig/handlers/renew-client-cert"],
    }] });
    let group = "/ota/factories/factory/device-groups/beta/config/";
    api.patch(group, &body).await.json(200);
    let revoke = format!("/v1/device-cas/{serial}/revoke");
    assert_eq!(api.post(&revoke, &json!({})).await.status, 409);

    // Paced: not everybody is told at once, and in the end everybody is.
    let counts = api.get("/v1/rotations/certs-1669058841").await.json(200)["counts"].clone();
    assert!(counts["offered"].as_u64().unwrap() < 200, "{counts}");
    let mut waiting: Vec<_> = devices.into_iter().collect();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for device in waiting {
            if config(&server, &device, NEW).await.status == 204 {
                still.push(device);
                continue;
            }
            let (key, body) = device.request();
            let certificate = server.reenroll(&device, &body).await.certificate();
            assert_eq!(announce(&server, &device, &key).await.status, 200);
            let new = Device::switched(certificate, key);
            assert!(is_told_nothing(&config(&server, &new, NEW).await));
        }
        waiting = still;
    }
    becomes(&api, "confirmed", 200).await;
    crate::support::eventually("the rotation to finish", async || {
        api.get("/v1/rotations/certs-1669058841").await.json(200)["state"] == "finished"
    })
    .await;
    api.post(&revoke, &json!({})).await.json(200);
    server.stop().await;
}
