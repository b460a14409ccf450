//! Devices that fail, and what a rotation makes of that.

use serde_json::json;

use crate::support::device::{name, new_key, request};
use crate::support::fioctl::Fioctl;
use crate::support::wire::post;
use crate::support::{Device, FACTORY, TestServer, Tls, eventually};
use crate::{
    ROTATIONS, act, counts, counts_become, devices, fleet, lose_patience, off_the_line,
    on_both_ledgers, start, state_becomes, status,
};

/// A request that is refused: for somebody else's name.
fn wrong() -> String {
    request(&name("somebody", FACTORY), &new_key(), &[], None)
}

on_both_ledgers! {
    async fn a_refused_device_has_failed_until_it_succeeds(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 2).await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        counts_become(&api, "certs-1", [0, 2, 0, 0, 0, 0]).await;
        assert_eq!(server.reenroll(&fleet[0], &wrong()).await.status, 403);
        let failing = status(&api, "certs-1").await;
        assert_eq!(counts(&failing), [0, 1, 0, 0, 1, 0]);
        let failed = &failing["failed"][0];
        assert_eq!((&failed["name"], &failed["reason"]), (&json!("device-0"), &json!("refused")));
        assert!(failed["detail"].as_str().unwrap().starts_with("subject-mismatch: "), "{failed}");
        // It tries on by itself.
        let new = server.rotate(&fleet[0]).await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 1, 1, 0, 0, 0]);
        server.session(&new).await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 1, 0, 1, 0, 0]);
        server.stop().await;
    }

    /// Whoever holds a stolen Device CA's key cannot make a rotation stop.
    async fn i6_what_a_forger_asks_for_says_nothing_of_the_device(backend: Backend) {
        let (server, api, _) = fleet(backend, 1).await;
        let mut asked = off_the_line(&server, "certs-1");
        asked["stop"] = json!({ "last": 1, "percent": 0 });
        start(&api, &asked).await;
        counts_become(&api, "certs-1", [0, 1, 0, 0, 0, 0]).await;
        let forged = Device::new(&server.factory_line, FACTORY, "device-0");
        assert_eq!(server.reenroll(&forged, &wrong()).await.status, 403);
        let right = forged.request().1;
        assert_eq!(server.reenroll(&forged, &right).await.status, 403);
        let running = status(&api, "certs-1").await;
        assert_eq!((&running["state"], counts(&running)), (&json!("running"), [0, 1, 0, 0, 0, 0]));
        server.stop().await;
    }

    /// An agent that is told to wait makes another request each time, so that no approval fits.
    async fn a_request_that_waits_for_an_operator_has_failed(backend: Backend) {
        let server = TestServer::start_with(backend, "[est.profile]\napproval = 'manual'").await;
        let api = Fioctl::new(&server);
        let device = server.device("device-0");
        server.session(&device).await;
        let mut asked = off_the_line(&server, "certs-1");
        let refused = api.post(ROTATIONS, &asked).await.json(400);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("requests without a label wait for an operator"), "{message}");
        asked["fioconfig"] = json!({ "label": "fioconfig" });
        start(&api, &asked).await;
        counts_become(&api, "certs-1", [0, 1, 0, 0, 0, 0]).await;
        // It goes where it was not sent.
        assert_eq!(server.reenroll(&device, &device.request().1).await.status, 202);
        let failed = status(&api, "certs-1").await["failed"][0].clone();
        assert_eq!(failed["reason"], "refused");
        assert_eq!(failed["detail"], "held: the request waits for an operator");
        server.stop().await;
    }

    /// A device that was off when the rotation ended has come through all the same.
    async fn who_switches_after_the_end_is_confirmed(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 3).await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        counts_become(&api, "certs-1", [0, 3, 0, 0, 0, 0]).await;
        let issued = server.rotate(&fleet[0]).await;
        lose_patience(&server).await;
        state_becomes(&api, "certs-1", "finished").await;
        server.session(&issued).await;
        let ended = status(&api, "certs-1").await;
        assert_eq!((&ended["state"], counts(&ended)), (&json!("finished"), [0, 0, 0, 1, 2, 0]));
        // What is refused now is not its business; what an aborted one has issued still is.
        server.reenroll(&fleet[1], &wrong()).await;
        start(&api, &off_the_line(&server, "certs-2")).await;
        counts_become(&api, "certs-2", [0, 2, 0, 0, 0, 0]).await;
        let issued = server.rotate(&fleet[1]).await;
        act(&api, "certs-2", "abort").await.json(200);
        server.session(&issued).await;
        assert_eq!(counts(&status(&api, "certs-2").await), [0, 1, 0, 1, 0, 0]);
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 0, 0, 1, 2, 0]);
        server.stop().await;
    }

    /// A bad line is no fault of the device, nor of the rotation.
    async fn a_connection_that_breaks_is_no_failure(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 1).await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        counts_become(&api, "certs-1", [0, 1, 0, 0, 0, 0]).await;
        let mut wire = server.connect(Some(&fleet[0]), &Tls::default()).await.unwrap();
        let body = fleet[0].request().1;
        let whole = post("/.well-known/est/simplereenroll", &body);
        wire.write(&whole[..whole.len() - 100]).await.unwrap();
        drop(wire);
        eventually("the refusal to be on record", async || {
            server.refusals().await == ["body-broken"]
        })
        .await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 1, 0, 0, 0, 0]);
        server.stop().await;
    }

    async fn it_pauses_by_itself_when_too_many_fail(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 4).await;
        let mut asked = off_the_line(&server, "certs-1");
        asked["stop"] = json!({ "last": 10, "percent": 10 });
        start(&api, &asked).await;
        counts_become(&api, "certs-1", [0, 4, 0, 0, 0, 0]).await;
        server.reenroll(&fleet[0], &wrong()).await;
        assert_eq!(status(&api, "certs-1").await["state"], "running", "one of ten may fail");
        server.reenroll(&fleet[1], &wrong()).await;
        let paused = status(&api, "certs-1").await;
        assert_eq!(paused["state"], "paused");
        assert_eq!(paused["state_reason"], "2 of the last 10 devices failed");
        let audit = server.audit().await;
        let row = audit.iter().find(|row| row.action == "pause-rotation").unwrap();
        assert_eq!((row.actor.as_str(), row.subject.as_str()), ("estd", "certs-1"));
        assert_eq!(act(&api, "certs-1", "resume").await.json(200)["recent_failures"], 0);
        server.reenroll(&fleet[2], &wrong()).await;
        assert_eq!(status(&api, "certs-1").await["state"], "running", "it counts anew");
        server.stop().await;
    }

    /// Who failed before the retry and fails again counts again, and a canary is one again.
    async fn the_stop_rule_and_the_canaries_hold_for_a_retry(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 3).await;
        let mut asked = off_the_line(&server, "certs-1");
        asked["stop"] = json!({ "last": 10, "percent": 10 });
        asked["pace"] = json!({ "per_minute": 600_000, "canary": 1 });
        start(&api, &asked).await;
        let resume = format!("{ROTATIONS}/certs-1/resume");
        counts_become(&api, "certs-1", [2, 1, 0, 0, 0, 0]).await;
        act(&api, "certs-1", "pause").await.json(200);
        api.post(&resume, &json!({ "past_canaries": true })).await.json(200);
        counts_become(&api, "certs-1", [0, 3, 0, 0, 0, 0]).await;
        for device in &fleet {
            server.reenroll(device, &wrong()).await;
        }
        assert_eq!(status(&api, "certs-1").await["state"], "paused");
        let retried = act(&api, "certs-1", "retry").await.json(200);
        assert_eq!((counts(&retried), &retried["canaries_left"]), ([3, 0, 0, 0, 0, 0], &json!(1)));
        act(&api, "certs-1", "resume").await.json(200);
        counts_become(&api, "certs-1", [2, 1, 0, 0, 0, 0]).await;
        act(&api, "certs-1", "pause").await.json(200);
        api.post(&resume, &json!({ "past_canaries": true })).await.json(200);
        counts_become(&api, "certs-1", [0, 3, 0, 0, 0, 0]).await;
        for device in &fleet[..2] {
            server.reenroll(device, &wrong()).await;
        }
        let paused = status(&api, "certs-1").await;
        assert_eq!(paused["state_reason"], "2 of the last 10 devices failed");
        server.stop().await;
    }

    async fn a_retry_takes_every_failed_device_of_a_large_fleet(backend: Backend) {
        let (server, api, _) = fleet(backend, 1).await;
        server.sql("UPDATE ledger_head SET last_id = 1000000").await;
        server
            .sql(
                "INSERT INTO device (id, factory_id, name, allowed_once, registered_at, \
                 device_group) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                 WHERE i < 12000) SELECT 1000 + n.i, factory.id, 'x-' || n.i, 0, 1, 'x' \
                 FROM n, factory",
            )
            .await;
        let late = json!({ "per_minute": 1, "begin": "2100-01-01" });
        let asked = json!({ "id": "certs-1", "select": { "group": "x" }, "pace": late });
        start(&api, &asked).await;
        state_becomes(&api, "certs-1", "running").await;
        act(&api, "certs-1", "pause").await.json(200);
        server.sql("UPDATE rotation_device SET state = 'failed'").await;
        server.sql("UPDATE rotation SET waiting = 0, failed = 12000").await;
        // One that another rotation has is not taken back, and does not end it.
        let other = json!({ "id": "other", "select": { "devices": ["x-1"] }, "pace": late });
        server.sql("UPDATE rotation SET state = 'finished'").await;
        start(&api, &other).await;
        let retried = act(&api, "certs-1", "retry").await.json(200);
        assert_eq!(counts(&retried), [11_999, 0, 0, 0, 1, 0]);
        assert_eq!(retried["state"], "running");
        assert_eq!(act(&api, "certs-1", "retry").await.status, 409, "none is left");
        let audit = server.audit().await;
        let about = audit.iter().filter(|row| row.action == "retry-rotation" && row.outcome == "done");
        assert_eq!(about.count(), 1);
        server.stop().await;
    }

    async fn canaries_come_first_and_must_all_succeed(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 3).await;
        let mut asked = off_the_line(&server, "certs-1");
        asked["pace"] = json!({ "per_minute": 600_000, "canary": 2 });
        start(&api, &asked).await;
        counts_become(&api, "certs-1", [1, 2, 0, 0, 0, 0]).await;
        let canaries: Vec<_> = devices(&api, "certs-1").await;
        let is_canary = |device: &&Device| {
            let name = device.certificate.subject().common_name().unwrap();
            canaries.iter().any(|(canary, state, _)| *canary == name && state == "offered")
        };
        let canaries: Vec<_> = fleet.iter().filter(is_canary).collect();
        let first = server.rotate(canaries[0]).await;
        server.session(&first).await;
        assert_eq!(counts(&status(&api, "certs-1").await), [1, 1, 0, 1, 0, 0]);
        server.reenroll(canaries[1], &wrong()).await;
        let paused = status(&api, "certs-1").await;
        assert_eq!((&paused["state"], &paused["state_reason"]), (&json!("paused"), &json!("a canary failed")));
        // Another try for it, and only then the others.
        act(&api, "certs-1", "retry").await.json(200);
        let resumed = act(&api, "certs-1", "resume").await.json(200);
        assert_eq!(resumed["canaries_left"], 1);
        counts_become(&api, "certs-1", [1, 1, 0, 1, 0, 0]).await;
        // The operator may also wait for it no more.
        act(&api, "certs-1", "pause").await.json(200);
        let resume = format!("{}/certs-1/resume", crate::ROTATIONS);
        let past = api.post(&resume, &json!({ "past_canaries": true })).await.json(200);
        assert_eq!(past["canaries_left"], 0);
        counts_become(&api, "certs-1", [0, 2, 0, 1, 0, 0]).await;
        let second = server.rotate(canaries[1]).await;
        server.session(&second).await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 1, 0, 2, 0, 0]);
        server.stop().await;
    }

    async fn patience_ends_and_failed_devices_get_another_slot(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 3).await;
        start(&api, &off_the_line(&server, "certs-1")).await;
        counts_become(&api, "certs-1", [0, 3, 0, 0, 0, 0]).await;
        let issued = server.rotate(&fleet[1]).await;
        lose_patience(&server).await;
        state_becomes(&api, "certs-1", "finished").await;
        let expected = [("device-0", "silent"), ("device-1", "unconfirmed"), ("device-2", "silent")];
        let expected = expected.map(|(name, why)| (name.to_owned(), "failed".to_owned(), why.to_owned()));
        assert_eq!(devices(&api, "certs-1").await, expected);

        act(&api, "certs-1", "retry").await.json(200);
        counts_become(&api, "certs-1", [0, 3, 0, 0, 0, 0]).await;
        server.session(&issued).await;
        assert_eq!(counts(&status(&api, "certs-1").await), [0, 2, 0, 1, 0, 0]);
        assert_eq!(act(&api, "certs-1", "retry").await.status, 409, "none has failed");
        server.stop().await;
    }
}
