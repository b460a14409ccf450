//! Rotations from their start to their end.

use estd::clock::UnixTime;
use estd::pki::Certificate;
use serde_json::json;

use crate::support::device::new_key;
use crate::support::{Device, eventually};
use crate::{
    ROTATIONS, act, counts, counts_become, devices, fleet, line, lose_patience, off_the_line,
    on_both_ledgers, start, state_becomes, status,
};

on_both_ledgers! {
    /// The whole of it: a Device CA is disabled, its devices rotate, and it is revoked.
    async fn a_device_ca_is_phased_out_by_a_rotation(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 4).await;
        let line = line(&server);
        api.post(&format!("/v1/device-cas/{line}/disable"), &json!({})).await.json(200);
        let started = start(&api, &off_the_line(&server, "certs-1")).await;
        assert_eq!((&started["state"], &started["devices"]), (&json!("running"), &json!(4)));
        counts_become(&api, "certs-1", [0, 4, 0, 0, 0, 0]).await;

        let mut new = Vec::new();
        for device in &fleet {
            new.push(server.rotate(device).await);
        }
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 0, 4, 0, 0, 0]);
        for (done, device) in (1..).zip(&new[..3]) {
            server.session(device).await;
            assert_eq!(counts(&status(&api, "certs-1").await), [0, 0, 4 - done, done, 0, 0]);
        }
        let revoke = format!("/v1/device-cas/{line}/revoke");
        assert_eq!(api.post(&revoke, &json!({})).await.list(409), ["device-3"]);
        let running = status(&api, "certs-1").await;
        assert_eq!(running["state"], "running");
        assert_eq!(running["slowest_to_confirm"][0]["name"], "device-3");

        server.session(&new[3]).await;
        state_becomes(&api, "certs-1", "finished").await;
        api.post(&revoke, &json!({})).await.json(200);
        let audit = server.audit().await;
        let about = audit.iter().filter(|row| row.subject == "certs-1");
        let about: Vec<_> = about.map(|row| (row.action.as_str(), row.actor.as_str())).collect();
        assert_eq!(about, [("start-rotation", "admin"), ("finish-rotation", "estd")]);
        let finish = audit.iter().find(|row| row.action == "finish-rotation").unwrap();
        assert_eq!(finish.detail, "4 confirmed, 0 failed, 0 left out");
        let story = api.get("/v1/devices/device-0").await.json(200);
        assert_eq!(story["rotations"][0]["rotation"], "certs-1");
        assert_eq!(story["rotations"][0]["state"], "confirmed");
        server.stop().await;
    }

    /// A device that renews before its slot is counted, and so is one that nobody waits for any more.
    async fn what_devices_do_by_themselves_counts(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 3).await;
        let mut slow = off_the_line(&server, "slow");
        slow["pace"] = json!({ "per_minute": 1, "begin": "2100-01-01" });
        start(&api, &slow).await;
        let new = server.rotate(&fleet[0]).await;
        assert_eq!(counts(&status(&api, "slow").await), [2, 0, 1, 0, 0, 0]);
        server.session(&new).await;
        assert_eq!(counts(&status(&api, "slow").await), [2, 0, 0, 1, 0, 0]);
        // The same certificate again, and another of its own accord, change nothing more.
        server.session(&new).await;
        let newer = server.rotate(&new).await;
        server.session(&newer).await;
        assert_eq!(counts(&status(&api, "slow").await), [2, 0, 0, 1, 0, 0]);
        server.stop().await;
    }

    async fn paused_it_gives_no_slot_and_aborted_it_lets_go(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 3).await;
        let mut held = off_the_line(&server, "held");
        held["pace"] = json!({ "per_minute": 1, "begin": "2100-01-01" });
        start(&api, &held).await;
        assert_eq!(act(&api, "held", "resume").await.status, 409, "it runs already");
        assert_eq!(act(&api, "held", "pause").await.json(200)["state"], "paused");
        assert_eq!(act(&api, "held", "pause").await.status, 409);
        // Facts count, paused or not.
        let new = server.rotate(&fleet[0]).await;
        server.session(&new).await;
        assert_eq!(counts(&status(&api, "held").await), [2, 0, 0, 1, 0, 0]);
        assert_eq!(act(&api, "held", "resume").await.json(200)["state"], "running");

        let other = off_the_line(&server, "other");
        let refused = api.post(ROTATIONS, &other).await.json(409);
        assert!(refused["message"].as_str().unwrap().contains("2 are in another rotation"), "{refused}");
        act(&api, "held", "abort").await.json(200);
        assert_eq!(act(&api, "held", "resume").await.status, 409);
        assert_eq!(start(&api, &other).await["devices"], 2);
        // What it let go of is not its business any more.
        counts_become(&api, "other", [0, 2, 0, 0, 0, 0]).await;
        server.rotate(&fleet[1]).await;
        assert_eq!(counts(&status(&api, "held").await), [2, 0, 0, 1, 0, 0]);
        assert_eq!(counts(&status(&api, "other").await), [0, 1, 1, 0, 0, 0]);
        server.stop().await;
    }

    /// What it was about to do it does after a restart.
    async fn a_restart_goes_on_where_it_was(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 3).await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        counts_become(&api, "certs-1", [0, 3, 0, 0, 0, 0]).await;
        let new = server.rotate(&fleet[0]).await;
        let server = server.restart().await;
        let api = crate::support::fioctl::Fioctl::new(&server);
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 2, 1, 0, 0, 0]);
        server.session(&new).await;
        lose_patience(&server).await;
        state_becomes(&api, "certs-1", "finished").await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 0, 0, 1, 2, 0]);
        server.stop().await;
    }

    /// In chunks, each of which may be the last before the server ends.
    async fn a_fleet_is_gathered_in_chunks(backend: Backend) {
        let (server, api, _) = fleet(backend, 1).await;
        // Rows of a fleet too large for one chunk, below the rows to come.
        server.sql("UPDATE ledger_head SET last_id = 1000000").await;
        for sql in [
            "INSERT INTO device (id, factory_id, name, allowed_once, registered_at, last_seen_at, \
             device_group) WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n \
             WHERE i < 14999) SELECT n.i, factory.id, 'x-' || n.i, 0, 1, n.i, \
             CASE WHEN n.i % 2 = 0 THEN 'even' END FROM n, factory",
            "INSERT INTO device (id, factory_id, name, allowed_once, registered_at, denied_at, \
             device_group) SELECT 20000, id, 'denied', 0, 1, 1, 'even' FROM factory",
        ] {
            server.sql(sql).await;
        }
        let asked = json!({
            "id": "certs-1", "select": { "group": "even" },
            "pace": { "per_minute": 1, "begin": "2100-01-01", "canary": 10 },
        });
        let started = start(&api, &asked).await;
        assert_eq!(started["state"], "preparing");
        assert!(started["devices"].as_i64().unwrap() < 7000, "{started}");
        state_becomes(&api, "certs-1", "running").await;
        let running = status(&api, "certs-1").await;
        assert_eq!(counts(&running), [7000, 0, 0, 0, 0, 0]);
        assert_eq!(running["canaries_left"], 10);
        // Canaries are devices that were seen lately, and no ordinal is given twice.
        let page = api.get(&format!("{ROTATIONS}/certs-1/devices?limit=1000")).await.json(200);
        let ordinals: Vec<_> =
            page["devices"].as_array().unwrap().iter().map(|one| one["ordinal"].as_i64()).collect();
        assert_eq!(ordinals, (1..=1000).map(Some).collect::<Vec<_>>());
        assert_eq!(page["next"], "1000");
        // Whether there is any device is known when the last was looked at.
        let none = json!({ "id": "none", "select": { "expires_before": "2020-01-01" } });
        assert_eq!(start(&api, &none).await["state"], "preparing");
        state_becomes(&api, "none", "finished").await;
        assert_eq!(status(&api, "none").await["state_reason"], "there was no device to rotate");
        server.stop().await;
    }

    /// However many devices are left out before them, the first that are not are the canaries.
    async fn devices_that_are_left_out_take_no_canarys_place(backend: Backend) {
        let (server, api, _) = fleet(backend, 0).await;
        server.sql("UPDATE ledger_head SET last_id = 1000000").await;
        server
            .sql(
                "INSERT INTO device (id, factory_id, name, allowed_once, registered_at, \
                 device_group) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                 WHERE i < 6000) SELECT 1000 + n.i, factory.id, 'x-' || n.i, 0, 1, 'old' \
                 FROM n, factory",
            )
            .await;
        for name in ["device-0", "device-1", "device-2"] {
            server.session(&server.device(name)).await;
        }
        let late = json!({ "per_minute": 1, "begin": "2100-01-01", "canary": 2 });
        for (id, select) in [("old", json!({ "group": "old" })), ("new", json!({ "all": true }))] {
            start(&api, &json!({ "id": id, "select": select, "pace": late })).await;
            state_becomes(&api, id, "running").await;
        }
        let running = status(&api, "new").await;
        assert_eq!(counts(&running), [3, 0, 0, 0, 0, 6000]);
        assert_eq!(running["canaries_left"], 2);
        let page = api.get(&format!("{ROTATIONS}/new/devices?limit=4")).await.json(200);
        let states: Vec<_> = page["devices"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        assert_eq!(states, ["waiting", "waiting", "waiting", "skipped"]);
        server.stop().await;
    }

    /// A target says which Device CA issues to its devices, and to nobody else.
    async fn a_target_issues_to_the_devices_of_its_rotation(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 2).await;
        let cas = api.get("/v1/device-cas").await.json(200);
        let mut online = cas["device_cas"].as_array().unwrap().iter();
        let first = online.rfind(|ca| ca["kind"] == "online").unwrap()["serial"].clone();
        let csr = api.post("/v1/device-cas/requests", &json!({})).await.json(200);
        let certificate = crate::selection::certify(&server, csr["csr"].as_str().unwrap());
        api.post("/v1/device-cas", &json!({ "certificate": certificate })).await.json(201);
        let mut asked = off_the_line(&server, "certs-1");
        asked["select"] = json!({ "devices": ["device-0"] });
        asked["target"] = first.clone();
        start(&api, &asked).await;
        let in_rotation = server.rotate(&fleet[0]).await;
        let other = server.rotate(&fleet[1]).await;
        let issuer = |device: &Device| device.certificate.issuer().to_string();
        assert_ne!(issuer(&in_rotation), issuer(&other));
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 0, 1, 0, 0, 0]);
        server.session(&in_rotation).await;
        state_becomes(&api, "certs-1", "finished").await;

        // Disabled, it cannot be one; and a rotation to it stops by itself.
        let mut asked = off_the_line(&server, "certs-2");
        asked["target"] = first.clone();
        asked["pace"] = json!({ "per_minute": 1, "begin": "2100-01-01" });
        start(&api, &asked).await;
        let first = first.as_str().unwrap();
        api.post(&format!("/v1/device-cas/{first}/disable"), &json!({})).await.json(200);
        state_becomes(&api, "certs-2", "paused").await;
        let reason = status(&api, "certs-2").await["state_reason"].clone();
        assert_eq!(reason, "the Device CA that is its target does not sign any more");
        asked["id"] = json!("certs-3");
        let refused = api.post(ROTATIONS, &asked).await.json(409);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("no Device CA that signs"), "{refused}");
        // No device is left without a certificate for that.
        server.rotate(&fleet[1]).await;
        server.stop().await;
    }

    /// A Device CA that ends before the certificates would is not what everybody else is issued from.
    async fn a_rotation_goes_where_certificates_live_their_time(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 1).await;
        let new = server.rotate(&fleet[0]).await;
        server.session(&new).await;
        let story = api.get("/v1/devices/device-0").await.json(200);
        let lasting = story["credentials"][1]["device_ca_serial"].as_str().unwrap().to_owned();
        let csr = api.post("/v1/device-cas/requests", &json!({})).await.json(200);
        let begin = UnixTime::now().plus(-3500 * 24 * 3600);
        let csr = csr["csr"].as_str().unwrap();
        let certificate = crate::selection::certify_at(&server, csr, begin);
        let short = Certificate::from_pem(certificate.as_bytes()).unwrap().remove(0);
        let short = short.serial().to_string();
        api.post("/v1/device-cas", &json!({ "certificate": certificate })).await.json(201);

        let asked = json!({ "select": { "all": true }, "target": short });
        let message = api.post(ROTATIONS, &asked).await.json(409)["message"].to_string();
        assert!(message.contains("before the certificates that it shall sign"), "{message}");
        // Whoever leaves the lasting one gets another of it all the same, as long as it is enabled.
        let asked = json!({
            "id": "certs-1", "select": { "device_ca": lasting },
            "pace": { "per_minute": 1, "begin": "2100-01-01" },
        });
        let message = api.post(ROTATIONS, &asked).await.json(409)["message"].to_string();
        assert!(message.contains("of the very Device CA that they are to leave"), "{message}");
        api.post(&format!("/v1/device-cas/{lasting}/disable"), &json!({})).await.json(200);
        start(&api, &asked).await;
        api.post(&format!("/v1/device-cas/{lasting}/enable"), &json!({})).await.json(200);
        state_becomes(&api, "certs-1", "paused").await;
        let reason = status(&api, "certs-1").await["state_reason"].clone();
        assert_eq!(reason, "the Device CA that devices are to leave is the one that issues to them");
        server.stop().await;
    }

    /// I7 and the operator's allowance: a device that is rolled back begins anew.
    async fn a_device_that_goes_back_waits_again(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 2).await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        counts_become(&api, "certs-1", [0, 2, 0, 0, 0, 0]).await;
        let new = server.rotate(&fleet[0]).await;
        server.session(&new).await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 1, 0, 1, 0, 0]);
        api.post("/v1/devices/device-0/allow", &json!({})).await.json(200);
        server.session(&fleet[0]).await;
        counts_become(&api, "certs-1", [0, 2, 0, 0, 0, 0]).await;
        let again = server.rotate(&fleet[0]).await;
        server.session(&again).await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 1, 0, 1, 0, 0]);
        // Denied, the other will not come.
        api.post("/v1/devices/device-1/deny", &json!({})).await.json(200);
        lose_patience(&server).await;
        state_becomes(&api, "certs-1", "finished").await;
        assert_eq!(devices(&api, "certs-1").await[1].1, "failed");
        server.stop().await;
    }

    /// A pending credential of before that is off the Device CA is as good as a new one.
    async fn what_was_issued_before_counts_where_the_device_ca_is_left(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 1).await;
        let new = server.rotate(&fleet[0]).await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        server.session(&new).await;
        state_becomes(&api, "certs-1", "finished").await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 0, 0, 1, 0, 0]);
        server.stop().await;
    }

    /// Time that was too short is no dead end.
    async fn resumed_it_goes_on_after_its_time(backend: Backend) {
        let (server, api, _) = fleet(backend, 2).await;
        let mut asked = off_the_line(&server, "certs-1");
        let until = UnixTime::now().plus(2);
        asked["pace"] = json!({ "per_minute": 1, "until": until.to_string() });
        start(&api, &asked).await;
        state_becomes(&api, "certs-1", "paused").await;
        let paused = status(&api, "certs-1").await;
        assert!(paused["state_reason"].as_str().unwrap().starts_with("its time is over"), "{paused}");
        act(&api, "certs-1", "resume").await.json(200);
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let resumed = status(&api, "certs-1").await;
        assert_eq!((&resumed["state"], &resumed["pace"]["until"]), (&json!("running"), &json!(null)));
        server.stop().await;
    }

    async fn a_rotation_that_cannot_go_on_holds_up_no_other(backend: Backend) {
        let (server, api, _) = fleet(backend, 2).await;
        let late = json!({ "per_minute": 1, "begin": "2100-01-01" });
        let broken = json!({ "id": "broken", "select": { "devices": ["device-0"] }, "pace": late });
        start(&api, &broken).await;
        server.sql("UPDATE rotation SET plan = 'no JSON'").await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        counts_become(&api, "certs-1", [0, 1, 0, 0, 0, 1]).await;
        server.stop().await;
    }

    /// Server-sent events: each change, until the rotation ends.
    async fn a_rotation_is_followed_live(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 1).await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        let rotate = async {
            counts_become(&api, "certs-1", [0, 1, 0, 0, 0, 0]).await;
            let new = server.rotate(&fleet[0]).await;
            server.session(&new).await;
        };
        let events = format!("{ROTATIONS}/certs-1/events");
        let (told, ()) = tokio::join!(api.get(&events), rotate);
        assert!(told.head.contains("text/event-stream"), "{told:?}");
        let events: Vec<serde_json::Value> = told
            .body
            .lines()
            .filter_map(|line| line.trim().strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        let states: Vec<_> = events.iter().map(|event| (event["state"].as_str().unwrap(), counts(event))).collect();
        assert_eq!(states.last(), Some(&("finished", [0, 0, 0, 1, 0, 0])), "{states:?}");
        assert!(states.len() > 1 && states[0].0 == "running", "{states:?}");
        assert_eq!(api.get(&format!("{ROTATIONS}/none/events")).await.status, 404);
        server.stop().await;
    }

    async fn the_same_request_starts_one_rotation(backend: Backend) {
        let (server, api, _) = fleet(backend, 2).await;
        let mut asked = off_the_line(&server, "certs-1");
        asked["pace"] = json!({ "per_minute": 1, "begin": "2100-01-01" });
        asked.as_object_mut().unwrap().remove("id");
        let send = async |key: &str, body: &serde_json::Value| {
            let headers = format!(
                "OSF-TOKEN: {}\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\n",
                api.token()
            );
            api.send_with("POST", ROTATIONS, &headers, &body.to_string()).await
        };
        let first = send("one", &asked).await.json(201);
        assert_eq!(send("one", &asked).await.json(200)["id"], first["id"]);
        let mut other = asked.clone();
        other["reason"] = json!("another");
        let refused = send("one", &other).await.json(409);
        assert!(refused["message"].as_str().unwrap().contains("by another request"), "{refused}");
        assert_eq!(send("", &asked).await.status, 400);
        let list = api.get(ROTATIONS).await.json(200);
        assert_eq!(list["rotations"].as_array().unwrap().len(), 1);
        server.stop().await;
    }
}

/// The order of slots is that of the ordinals, and one that is not waiting any more is passed over.
#[tokio::test]
async fn slots_come_in_order() {
    let (server, api, fleet) = fleet(crate::support::Backend::Sqlite, 3).await;
    let mut slow = off_the_line(&server, "certs-1");
    slow["pace"] = json!({ "per_minute": 60 });
    start(&api, &slow).await;
    let first = devices(&api, "certs-1").await;
    eventually("the first slot", async || counts(&status(&api, "certs-1").await)[1] > 0).await;
    let page = api.get(&format!("{ROTATIONS}/certs-1/devices?state=offered")).await.json(200);
    assert_eq!(page["devices"][0]["ordinal"], 1, "{first:?}");
    counts_become(&api, "certs-1", [0, 3, 0, 0, 0, 0]).await;
    let key = new_key();
    let body = fleet[0].request_for(&key);
    server.reenroll(&fleet[0], &body).await.certificate();
    server.stop().await;
}
