//! A rotation over the gateway: told, rotated, announced, proven.

use estd::clock::UnixTime;
use serde_json::{Value, json};

use crate::agent::{
    NEW, OLD, announce, config, connect, event, is_told_nothing, rotate_certs, say, send,
};
use crate::on_both_ledgers;
use crate::support::device::new_key;
use crate::support::fioctl::Fioctl;
use crate::support::{Device, TestServer, eventually};

/// Devices that the gateway has seen, and a rotation off their Device CA that is told to each.
pub async fn rotating(
    backend: crate::support::Backend,
    count: usize,
) -> (TestServer, Fioctl, Vec<Device>) {
    let server = TestServer::start(backend).await;
    let api = Fioctl::new(&server);
    let devices: Vec<_> = (0..count).map(|n| server.device(&format!("device-{n}"))).collect();
    for device in &devices {
        assert_eq!(config(&server, device, NEW).await.status, 204, "registered at first contact");
    }
    let serial = server.factory_line.certificate().serial().to_string();
    let asked = json!({
        "id": "certs-1669058841", "select": { "device_ca": serial },
        "pace": { "per_minute": 600_000 }, "stop": { "never": true },
    });
    api.post("/v1/rotations", &asked).await.json(201);
    becomes(&api, "offered", count).await;
    (server, api, devices)
}

pub async fn becomes(api: &Fioctl, state: &str, count: usize) {
    eventually(&format!("{count} devices to be {state}"), async || {
        let status = api.get("/v1/rotations/certs-1669058841").await.json(200);
        status["counts"][state] == count
    })
    .await;
}

/// The old agent and the new one, to the letter: fetch, EST, lock, switch.
async fn rotates(server: &TestServer, old: &Device, agent: &str) -> Device {
    let told = rotate_certs(&config(server, old, agent).await);
    let label = if agent == OLD { "/fioconfig" } else { "" };
    let port = server.server.est_address().port();
    let url = format!("https://localhost:{port}/.well-known/est{label}");
    assert_eq!(told["ESTSERVER"], json!(url));
    assert_eq!((&told["PKEYIDS"], &told["CERTIDS"]), (&json!("01,07"), &json!("03,09")));
    assert_eq!(told["ROTATIONID"], "certs-1669058841");

    let started = json!([event("e0", "certs-1669058841", "CertRotationStarted", None)]);
    assert_eq!(say(server, old, &started).await.status, 200);
    let (key, body) = old.request();
    let path = format!("/.well-known/est{label}/simplereenroll");
    let request = crate::support::wire::post(&path, &body);
    let answer = server.send(Some(old), &request).await.unwrap();
    assert_eq!(answer.status, if agent == OLD { 201 } else { 200 });
    let certificate = answer.certificate();
    let locked = announce(server, old, &key).await;
    assert_eq!(locked.status, 200, "exactly 200: {locked:?}");
    let own = send(server, old, ("GET", "//config-device"), "", "").await;
    assert_eq!(own.status, 204, "nothing to encrypt anew");
    Device::switched(certificate, key)
}

on_both_ledgers! {
    async fn a_device_is_told_rotates_and_is_proven_to_have_switched(backend: Backend) {
        let (server, api, devices) = rotating(backend, 2).await;
        for (device, agent) in devices.iter().zip([OLD, NEW]) {
            let new = rotates(&server, device, agent).await;
            let name = device.certificate.subject().common_name().unwrap();
            let key = new.key.public_key().fingerprint().to_string();
            assert_eq!(server.story(&name).await.next_key, Some(key));
            // Told until it has switched.
            assert_eq!(config(&server, device, agent).await.status, 200);
            assert!(is_told_nothing(&config(&server, &new, agent).await), "it has switched");
            assert_eq!(server.story(&name).await.next_key, None);
            // As an agent does whose power was cut before it knew: nothing is locked again.
            assert_eq!(announce(&server, &new, &new.key).await.status, 200);
            assert_eq!(server.story(&name).await.next_key, None);
            let back = config(&server, device, agent).await;
            assert_eq!(back.status, 403);
            assert!(back.text().ends_with("(credential-superseded)\n"), "{}", back.text());
        }
        becomes(&api, "confirmed", 2).await;
        // What keeps keys learns which are new, and asks for what comes next.
        let keys = api.get("/v1/device-keys").await.json(200);
        let told = keys["keys"].as_array().unwrap();
        assert_eq!(told.len(), 2);
        let old = devices[0].certificate.public_key();
        let pem = estd::pki::to_pem("PUBLIC KEY", old.der()).unwrap();
        assert_eq!((&told[0]["device"], &told[0]["old"]["public_key"]), (&json!("device-0"), &json!(pem)));
        assert_ne!(told[0]["old"], told[0]["new"]);
        let more = api.get(&format!("/v1/device-keys?since={}", keys["next"])).await.json(200);
        assert_eq!((&more["keys"], &more["next"]), (&json!([]), &keys["next"]));
        let audit = server.audit().await;
        let announced = audit.iter().filter(|row| row.action == "announce-key");
        assert_eq!(announced.filter(|row| row.outcome == "done").count(), 2);
        server.stop().await;
    }

    async fn unchanged_is_304_and_aborted_is_gone(backend: Backend) {
        let (server, api, devices) = rotating(backend, 1).await;
        let device = &devices[0];
        let since = async |date: &str| {
            let headers = format!("If-Modified-Since: {date}\r\nUser-Agent: {NEW}\r\n");
            send(&server, device, ("GET", "/config"), &headers, "").await.status
        };
        // Within a minute nobody can tell what came first.
        let date = UnixTime::now().plus(30);
        let soon = jiff::Timestamp::from_second(date.0).unwrap();
        let soon = soon.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
        assert_eq!(since(&soon).await, 200);
        server.sql("UPDATE rotation_device SET offered_at = offered_at - 61").await;
        let first = config(&server, device, NEW).await;
        let date = first.header("Date").unwrap();
        assert_eq!(since(date).await, 304);
        assert_eq!(since(&date.replace("GMT", "UTC")).await, 304, "as the agent writes it");
        assert_eq!(since("Sat, 21 Nov 2020 05:00:00 UTC").await, 200);
        assert_eq!(since("yesterday").await, 200);
        // By the clock of a device that is ahead, it would be told nothing more for as long.
        assert_eq!(since("Wed, 21 Nov 2125 05:00:00 UTC").await, 200);
        api.post("/v1/rotations/certs-1669058841/abort", &json!({})).await.json(200);
        assert!(is_told_nothing(&config(&server, device, NEW).await));
        server.stop().await;
    }

    /// Its agent goes on with the key that it has, and does nothing else before.
    async fn a_device_denied_within_its_switch_and_let_back_goes_on(backend: Backend) {
        let (server, api, devices) = rotating(backend, 1).await;
        let (old, name) = (&devices[0], "device-0");
        let new = rotates(&server, old, NEW).await;
        api.post("/v1/devices/device-0/deny", &json!({})).await.json(200);
        assert_eq!(announce(&server, old, &new.key).await.status, 403);
        api.post("/v1/devices/device-0/allow", &json!({})).await.json(200);
        assert_eq!(config(&server, old, NEW).await.status, 200);
        assert_eq!(server.states(name).await, ["current", "pending"]);
        assert_eq!(announce(&server, old, &new.key).await.status, 200);
        assert!(is_told_nothing(&config(&server, &new, NEW).await));
        assert_eq!(server.states(name).await, ["superseded", "current"]);

        // With one from before that, it is given back nothing.
        let unused = server.rotate(&new).await;
        api.post("/v1/devices/device-0/deny", &json!({})).await.json(200);
        api.post("/v1/devices/device-0/allow", &json!({})).await.json(200);
        assert_eq!(config(&server, old, NEW).await.status, 200);
        assert_eq!(server.states(name).await, ["current", "denied", "denied"]);
        assert_eq!(config(&server, &unused, NEW).await.status, 403);
        server.stop().await;
    }

    /// What takes only the answer of fioconfig is sent to where that is given.
    async fn each_agent_is_sent_to_an_answer_that_it_takes(backend: Backend) {
        for (answer, old) in [("rfc7030", "/fioconfig"), ("fioconfig", "/mine")] {
            let labels = format!("[est.labels.fioconfig]\nanswer = 'fioconfig'\n[est.labels.mine]\nanswer = '{answer}'");
            let server = TestServer::start_with(backend, &labels).await;
            let api = Fioctl::new(&server);
            let device = server.device("device-0");
            assert_eq!(config(&server, &device, NEW).await.status, 204);
            let asked = json!({
                "id": "certs-1669058841", "select": { "all": true }, "fioconfig": { "label": "mine" },
            });
            api.post("/v1/rotations", &asked).await.json(201);
            becomes(&api, "offered", 1).await;
            let agents = [(NEW, "/mine"), ("fioconfig-client/12", "/mine"), (OLD, old)];
            for (agent, label) in agents.into_iter().chain([("curl/8", old), ("", old)]) {
                let told = rotate_certs(&config(&server, &device, agent).await);
                let est = told["ESTSERVER"].as_str().unwrap();
                assert!(est.ends_with(&format!("/est{label}")), "{agent} {answer}: {est}");
            }
            server.stop().await;
        }
    }

    /// A later rotation that has ended, or is done with the device, does not stand before a retry.
    async fn a_retry_reaches_devices_that_a_later_rotation_had(backend: Backend) {
        let (server, api, devices) = rotating(backend, 1).await;
        let device = &devices[0];
        server.sql("UPDATE rotation_device SET since = 1").await;
        becomes(&api, "failed", 1).await;
        let later = json!({ "id": "later", "select": { "all": true }, "pace": { "per_minute": 1 } });
        api.post("/v1/rotations", &later).await.json(201);
        api.post("/v1/rotations/later/abort", &json!({})).await.json(200);
        assert!(is_told_nothing(&config(&server, device, NEW).await), "the later one counts");
        api.post("/v1/rotations/certs-1669058841/retry", &json!({})).await.json(200);
        becomes(&api, "offered", 1).await;
        // An agent begins nothing that it believes to have completed: another try has another id.
        let told = rotate_certs(&config(&server, device, NEW).await);
        assert_eq!(told["ROTATIONID"], "certs-1669058841.1");
        let failed = json!([event("e1", "certs-1669058841.1", "Lock device", Some(false))]);
        assert_eq!(say(&server, device, &failed).await.status, 200);
        becomes(&api, "failed", 1).await;
        // What it sends again, because the answer was lost, is no failure of the next try.
        api.post("/v1/rotations/certs-1669058841/retry", &json!({})).await.json(200);
        becomes(&api, "offered", 1).await;
        assert_eq!(say(&server, device, &failed).await.status, 200);
        becomes(&api, "offered", 1).await;
        server.sql("UPDATE rotation SET state = 'running' WHERE name = 'later'").await;
        server
            .sql(
                "UPDATE rotation_device SET state = 'confirmed' WHERE rotation_id = \
                 (SELECT id FROM rotation WHERE name = 'later')",
            )
            .await;
        assert_eq!(config(&server, device, NEW).await.status, 200);
        server.stop().await;
    }

    /// One that fails is not given up because the others are done.
    async fn a_device_that_failed_is_told_until_it_has_switched(backend: Backend) {
        let (server, api, devices) = rotating(backend, 2).await;
        let failed = json!([event("e1", "certs-1669058841", "Generate new certificate", Some(false))]);
        for device in &devices {
            assert_eq!(say(&server, device, &failed).await.status, 200);
        }
        let is = async |state: &str| {
            eventually(state, async || {
                api.get("/v1/rotations/certs-1669058841").await.json(200)["state"] == state
            })
            .await;
        };
        is("finished").await;
        let new = rotates(&server, &devices[0], NEW).await;
        assert!(is_told_nothing(&config(&server, &new, NEW).await));
        becomes(&api, "confirmed", 1).await;
        becomes(&api, "failed", 1).await;
        assert_eq!(config(&server, &devices[1], NEW).await.status, 200);
        api.post("/v1/rotations/certs-1669058841/abort", &json!({})).await.json(200);
        assert!(is_told_nothing(&config(&server, &devices[1], NEW).await));
        server.stop().await;
    }

    /// What is announced must have been issued to this very device.
    async fn a_key_that_was_not_issued_is_an_alarm(backend: Backend) {
        let (server, _api, devices) = rotating(backend, 2).await;
        let (own, body) = devices[0].request();
        server.reenroll(&devices[0], &body).await.certificate();
        for (device, key) in [(&devices[0], &new_key()), (&devices[1], &own)] {
            let answer = announce(&server, device, key).await;
            assert_eq!(answer.status, 409, "{answer:?}");
            assert!(answer.text().ends_with("(next-key-unknown)\n"), "{}", answer.text());
        }
        assert_eq!(announce(&server, &devices[0], &own).await.status, 200);
        let audit = server.audit().await;
        let alarms = audit.iter().filter(|row| row.code == "next-key-unknown");
        assert_eq!(alarms.filter(|row| row.outcome == "alarm").count(), 2);
        server.stop().await;
    }

    /// A failed rotation says that it has completed: what is seen counts, not what is said.
    async fn what_devices_say_is_kept_and_proves_nothing(backend: Backend) {
        let (server, api, devices) = rotating(backend, 1).await;
        let events = json!([
            event("e1", "certs-1669058841", "Generate new certificate", Some(false)),
            event("e2", "certs-1669058841", "CertRotationCompleted", Some(true)),
        ]);
        for _ in 0..2 {
            assert_eq!(say(&server, &devices[0], &events).await.status, 200);
        }
        let story = api.get("/v1/devices/device-0").await.json(200);
        let kept = story["events"].as_array().unwrap();
        assert_eq!(kept.len(), 2, "the same id is the same event");
        assert_eq!((&kept[0]["success"], &kept[0]["details"]), (&json!(false), &json!("disk full")));
        let status = api.get("/v1/rotations/certs-1669058841").await.json(200);
        assert_eq!((&status["counts"]["confirmed"], &status["counts"]["failed"]), (&json!(0), &json!(1)));
        let failed = &status["failed"][0];
        assert_eq!(failed["reason"], "step");
        assert_eq!(failed["detail"], "Generate new certificate: disk full");
        // It is told as before, tries on, and succeeds.
        let new = rotates(&server, &devices[0], NEW).await;
        config(&server, &new, NEW).await;
        becomes(&api, "confirmed", 1).await;
        // No more than the last 200 are kept.
        for round in 0..3 {
            let many = (0..100).map(|n| event(&format!("{round}-{n}"), "x", "y", None));
            let many = Value::Array(many.collect());
            assert_eq!(say(&server, &new, &many).await.status, 200);
        }
        let story = api.get("/v1/devices/device-0").await.json(200);
        assert_eq!(story["events"].as_array().unwrap().len(), 200);
        server.stop().await;
    }
}

#[tokio::test]
async fn who_has_no_certificate_of_a_device_ends_in_the_handshake() {
    let server = TestServer::start(crate::support::Backend::Sqlite).await;
    let stranger = TestServer::start(crate::support::Backend::Sqlite).await;
    let foreign = stranger.device("device-1");
    for device in [None, Some(&foreign)] {
        let sent = async {
            let mut wire = connect(&server, device).await?;
            wire.send(b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n").await
        };
        assert!(sent.await.is_err());
    }
    server.stop().await;
    stranger.stop().await;
}
