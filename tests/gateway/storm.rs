//! Devices that fail and retry, with a new key each time: what that leaves is bounded, the rotation
//! says why they fail, and they come through as soon as they can.

use estd::model::PENDING_LIMIT;
use serde_json::json;

use crate::agent::{NEW, config, event, is_told_nothing, say};
use crate::on_both_ledgers;
use crate::rotation::{becomes, rotating};
use crate::support::Device;

/// How often the device tries.
const TRIES: usize = 50;

on_both_ledgers! {
    async fn i11_a_device_that_fails_for_ever_leaves_little(backend: Backend) {
        let (server, api, devices) = rotating(backend, 2).await;
        let (failing, healthy) = (&devices[0], &devices[1]);
        let mut received = Vec::new();
        for n in 0..TRIES {
            let (key, body) = failing.request();
            let answer = server.reenroll(failing, &body).await;
            if answer.status == 200 {
                received.push(Device::switched(answer.certificate(), key));
            } else {
                assert_eq!(answer.status, 429, "{answer:?}");
                assert!(answer.text().ends_with("(retried-too-often)\n"), "{}", answer.text());
                assert!(answer.header("Retry-After").is_some());
            }
            let step = "Update local configuration with new key";
            let events = json!([
                event(&format!("step {n}"), "certs-1669058841", step, Some(false)),
                event(&format!("end {n}"), "certs-1669058841", "CertRotationCompleted", Some(true)),
            ]);
            assert_eq!(say(&server, failing, &events).await.status, 200);
        }
        assert_eq!(received.len(), PENDING_LIMIT);
        let story = server.story("device-0").await;
        assert_eq!(story.credentials.len(), 1 + PENDING_LIMIT);
        let refused = async || {
            let audit = server.audit().await;
            audit.into_iter().filter(|row| row.code == "retried-too-often").count()
        };
        assert_eq!(refused().await, 16, "what comes beyond is counted");

        becomes(&api, "failed", 1).await;
        let shown = api.get("/v1/rotations/certs-1669058841/devices?state=failed").await.json(200);
        let shown = &shown["devices"][0];
        assert_eq!((&shown["name"], &shown["reason"]), (&json!("device-0"), &json!("step")));
        assert_eq!(shown["detail"], "Update local configuration with new key: disk full");

        let id = "/ota/devices/device-0/updates/certs-1669058841/?factory=factory";
        let told = api.get(id).await.json(200);
        let told = told.as_array().unwrap();
        let last = &told[told.len() - 2..];
        assert_eq!(last[0]["eventType"]["id"], "Update local configuration with new key");
        assert_eq!(last[0]["event"]["details"], "disk full");
        let about = (&last[0]["event"]["targetName"], &last[0]["event"]["version"]);
        assert_eq!(about, (&json!("lmp"), &json!("290")), "as it was said");
        assert_eq!(last[1]["event"]["success"], false, "what the ledger has seen comes last");
        assert!(!told.iter().any(|one| one["event"]["success"] == true), "{told:?}");

        // Others do not notice, and itself it goes on with the last that it was given.
        let new = server.rotate(healthy).await;
        assert!(is_told_nothing(&config(&server, &new, NEW).await));
        assert!(is_told_nothing(&config(&server, received.last().unwrap(), NEW).await));
        becomes(&api, "confirmed", 2).await;
        server.rotate(received.last().unwrap()).await;

        let server = server.restart().await;
        let audit = server.audit().await;
        let counted = audit.iter().rfind(|row| row.code == "retried-too-often").unwrap();
        let more = format!("{} more within an hour", TRIES - PENDING_LIMIT - 16);
        assert!(counted.detail.starts_with(&more), "{}", counted.detail);
        server.stop().await;
    }

    /// The gateway is never told, so that there is no step to blame.
    async fn a_device_that_only_ever_asks_again_has_failed(backend: Backend) {
        let (server, api, devices) = rotating(backend, 1).await;
        for _ in 0..=PENDING_LIMIT {
            server.reenroll(&devices[0], &devices[0].request().1).await;
        }
        becomes(&api, "failed", 1).await;
        let shown = api.get("/v1/rotations/certs-1669058841/devices?state=failed").await.json(200);
        let shown = &shown["devices"][0];
        assert_eq!(shown["reason"], "refused");
        assert!(shown["detail"].as_str().unwrap().starts_with("retried-too-often: "), "{shown}");
        server.stop().await;
    }
}
