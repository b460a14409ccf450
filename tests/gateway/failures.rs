//! A device that fails at each point of its rotation, and goes on from what it has saved: it always
//! ends with one accepted credential, a confirmed rotation, and files that it can read.

use std::collections::BTreeMap;
use std::rc::Rc;

use data_encoding::BASE64;
use estd::keys::SigningKey;
use serde_json::{Value, json};

use crate::agent::{
    NEW, OLD, announce, announcement, config, connect, event, is_told_nothing, public_key, request,
    rotate_certs, say, send,
};
use crate::on_both_ledgers;
use crate::rotation::{becomes, rotating};
use crate::support::device::new_key;
use crate::support::wire::{Answer, Wire, post};
use crate::support::{Device, TestServer, Tls, eventually};

/// The steps of the agent, by what its events call them.
const STEPS: [&str; 5] = [
    "Generate new certificate",
    "Lock device configuration on server",
    "Update local configuration with new key",
    "Update device specific configuration on server with new key",
    "Finalize aktualizr configuration",
];

/// When in a step something fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// The server has done what it is asked for, and its answer is lost on the way.
    Unanswered,
    /// The power fails when the step is done and told, and not yet saved.
    Unsaved,
    /// The power fails when it is saved.
    Saved,
}
use When::{Saved, Unanswered, Unsaved};

type Cut = (usize, When);

/// Steps 2 and 4 ask the server for nothing.
const CUTS: [Cut; 13] = [
    (0, Unanswered),
    (0, Unsaved),
    (0, Saved),
    (1, Unanswered),
    (1, Unsaved),
    (1, Saved),
    (2, Unsaved),
    (2, Saved),
    (3, Unanswered),
    (3, Unsaved),
    (3, Saved),
    (4, Unsaved),
    (4, Saved),
];

/// A device's agent: what is on its disk.
struct Agent<'a> {
    server: &'a TestServer,
    version: &'static str,
    name: String,
    /// What its next start opens sessions with.
    in_use: Rc<Device>,
    /// The rotation that it goes on with at its next start.
    begun: Option<Begun>,
    /// What is still to fail.
    cuts: Vec<Cut>,
    events: usize,
}

/// What the agent saves when it begins, and after each step.
#[derive(Clone)]
struct Begun {
    rotation: String,
    step: usize,
    next: Option<Rc<Device>>,
}

impl Agent<'_> {
    /// From its start to the end of the rotation; `None` if it failed before.
    async fn run(&mut self) -> Option<()> {
        // In one run everything is asked with one pair, also after the new one is in place.
        let held = self.in_use.clone();
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let told = rotate_certs(&config(self.server, &held, self.version).await);
                let rotation = told["ROTATIONID"].as_str().unwrap().to_owned();
                Begun { rotation, step: 0, next: None }
            }
        };
        self.tell(&held, &begun, "CertRotationStarted", true).await;
        self.begun = Some(begun.clone());
        while let Some(name) = STEPS.get(begun.step) {
            let step = begun.step;
            match (step, begun.next.clone()) {
                (0, _) => begun.next = Some(Rc::new(self.certified(&held, &begun).await?)),
                (1, Some(next)) => self.lock(&held, &next.key).await,
                (3, Some(next)) => self.give_files_back(&held, &next.key).await,
                (4, Some(next)) => self.in_use = next,
                _ => {}
            }
            begun.step += 1;
            self.tell(&held, &begun, name, true).await;
            if self.fails((step, Unsaved)) {
                return None;
            }
            self.begun = Some(begun.clone());
            if self.fails((step, Saved)) {
                return None;
            }
        }
        Some(())
    }

    /// Step 0, which has a new key each time. Without an answer it fails, and so does the run.
    async fn certified(&mut self, held: &Device, begun: &Begun) -> Option<Device> {
        let label = if self.version == OLD { "/fioconfig" } else { "" };
        let path = format!("/.well-known/est{label}/simplereenroll");
        let key = new_key();
        let asked = post(&path, &held.request_for(&key));
        if self.fails((0, Unanswered)) {
            let wire = self.server.connect(Some(held), &Tls::default()).await.unwrap();
            lose_answer(wire, &asked, async || {
                let credentials = self.server.story(&self.name).await.credentials;
                let mut pending = credentials.iter().filter(|one| one.state == "pending");
                pending.any(|one| one.public_key_sha256 == id(&key))
            })
            .await;
            self.tell(held, begun, STEPS[0], false).await;
            self.tell(held, begun, "CertRotationCompleted", true).await;
            return None;
        }
        let answer = self.server.send(Some(held), &asked).await.unwrap();
        Some(Device::switched(answer.certificate(), key))
    }

    /// Step 1. The gateway is asked again for what it does not answer.
    async fn lock(&mut self, held: &Device, next: &SigningKey) {
        if self.fails((1, Unanswered)) {
            let wire = connect(self.server, Some(held)).await.unwrap();
            let asked = request(("PATCH", "/device"), "", &announcement(next));
            lose_answer(wire, &asked, async || {
                self.server.story(&self.name).await.next_key == Some(id(next))
            })
            .await;
        }
        assert_eq!(announce(self.server, held, next).await.status, 200);
    }

    /// Step 3. Files that are for the next key already were given back before a cut.
    async fn give_files_back(&mut self, held: &Device, next: &SigningKey) {
        let own = send(self.server, held, ("GET", "/config-device"), "", "").await;
        let Some(files) = decrypted(&own, &held.key) else {
            assert_eq!(decrypted(&own, next), Some(own_files()));
            return;
        };
        let files = encrypted(&files, next);
        let pem = public_key(next);
        let back = json!({ "reason": "Rotating", "files": files, "public-key": pem }).to_string();
        if self.fails((3, Unanswered)) {
            let wire = connect(self.server, Some(held)).await.unwrap();
            lose_answer(wire, &request(("PATCH", "/config"), "", &back), async || {
                let own = send(self.server, held, ("GET", "/config-device"), "", "").await;
                decrypted(&own, next).is_some()
            })
            .await;
        }
        assert_eq!(send(self.server, held, ("PATCH", "/config"), "", &back).await.status, 204);
    }

    async fn tell(&mut self, held: &Device, begun: &Begun, step: &str, success: bool) {
        self.events += 1;
        let id = format!("{}-{}", self.name, self.events);
        let event = json!([event(&id, &begun.rotation, step, Some(success))]);
        assert_eq!(say(self.server, held, &event).await.status, 200);
    }

    /// Whether this is to fail; each does so once.
    fn fails(&mut self, cut: Cut) -> bool {
        let before = self.cuts.len();
        self.cuts.retain(|one| *one != cut);
        self.cuts.len() < before
    }
}

/// Sends a request, and breaks the connection once it is `done`.
async fn lose_answer(mut wire: Wire, request: &[u8], done: impl AsyncFnMut() -> bool) {
    wire.write(request).await.unwrap();
    eventually("what is asked for to be done", done).await;
}

/// Files in plain, by name.
type Files = BTreeMap<String, String>;

fn own_files() -> Files {
    [("vpn", "a secret"), ("wifi", "another")].map(|(a, b)| (a.to_owned(), b.to_owned())).into()
}

fn id(key: &SigningKey) -> String {
    key.public_key().fingerprint().to_string()
}

/// As if encrypted: it says for which key it is.
fn encrypted(files: &Files, key: &SigningKey) -> Value {
    let file = |(name, plain): (&String, &String)| {
        let value = BASE64.encode(format!("{}:{plain}", id(key)).as_bytes());
        json!({ "name": name, "value": value, "unencrypted": false, "on-changed": [] })
    };
    files.iter().map(file).collect()
}

/// What the holder of the key makes of the files in an answer; `None` unless it can read all of them.
fn decrypted(answer: &Answer, key: &SigningKey) -> Option<Files> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let files: BTreeMap<String, Value> = serde_json::from_str(answer.text()).unwrap();
    let plain = |(name, file): (String, Value)| {
        let value = BASE64.decode(file["Value"].as_str()?.as_bytes()).ok()?;
        let (of, plain) = std::str::from_utf8(&value).ok()?.split_once(':')?;
        (of == id(key)).then(|| (name, plain.to_owned()))
    };
    files.into_iter().map(plain).collect()
}

on_both_ledgers! {
    async fn i3_wherever_it_fails_the_device_comes_through(backend: Backend) {
        // One failure each, and all of them one after the other.
        let each = CUTS.map(|cut| vec![cut]).into_iter().chain([CUTS.to_vec()]);
        let runs: Vec<_> = each.flat_map(|cuts| [(OLD, cuts.clone()), (NEW, cuts)]).collect();
        let count = runs.len();
        let (server, api, devices) = rotating(backend, count).await;
        for (device, (version, cuts)) in devices.into_iter().zip(runs) {
            let what = format!("{version} {cuts:?}");
            let lost = cuts.iter().filter(|cut| [(0, Unanswered), (0, Unsaved)].contains(cut));
            let superseded = 1 + lost.count();
            let (old, server) = (Rc::new(device), &server);
            let name = old.certificate.subject().common_name().unwrap();
            let own = format!("/ota/devices/{name}/config/?factory=factory&by-uuid=1");
            let files = json!({ "files": encrypted(&own_files(), &old.key) });
            api.patch(&own, &files).await.json(200);

            let (begun, in_use) = (None, old.clone());
            let mut agent = Agent { server, version, name, in_use, begun, cuts, events: 0 };
            while agent.run().await.is_none() {}
            assert_eq!(agent.cuts, [], "{what}: what did not fail was not tried");

            // It is told of its own files only, and can read them.
            let new = &agent.in_use;
            let told = config(server, new, version).await;
            assert_eq!(decrypted(&told, &new.key), Some(own_files()), "{what}: {}", told.text());
            let story = server.story(&agent.name).await;
            let states: Vec<_> = story.credentials.iter().map(|one| one.state.as_str()).collect();
            assert_eq!(states, [vec!["superseded"; superseded], vec!["current"]].concat(), "{what}");
            let in_use = new.certificate.fingerprint().to_string();
            assert_eq!(story.credentials.last().unwrap().sha256, in_use, "{what}");
            assert_eq!(story.next_key, None, "{what}");
            assert_eq!(config(server, &old, version).await.status, 403, "{what}");
        }
        becomes(&api, "confirmed", count).await;
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
    eventually("the rotation to finish", async || {
        api.get("/v1/rotations/certs-1669058841").await.json(200)["state"] == "finished"
    })
    .await;
    api.post(&revoke, &json!({})).await.json(200);
    server.stop().await;
}
