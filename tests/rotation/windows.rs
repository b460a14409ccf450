//! What renewal-info tells the devices of a rotation.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use estd::clock::UnixTime;
use estd::pki::Certificate;
use serde_json::{Value, json};

use crate::support::TestServer;
use crate::{act, counts_become, fleet, line, off_the_line, on_both_ledgers, start};

/// The window that a device of the factory line is told, and how many seconds until it may ask again.
async fn window(server: &TestServer, certificate: &Certificate) -> (UnixTime, UnixTime, i64) {
    let issuer = server.factory_line.certificate();
    let key = BASE64URL_NOPAD.encode(&issuer.key_identifier().unwrap());
    let serial = BASE64URL_NOPAD.encode(certificate.serial().contents());
    let answer = server.get(None, &format!("/.well-known/est/renewal-info/{key}.{serial}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told: Value = serde_json::from_str(answer.text()).unwrap();
    let time = |key: &str| UnixTime::parse(told["suggestedWindow"][key].as_str().unwrap()).unwrap();
    let retry = answer.header("Retry-After").unwrap().parse().unwrap();
    (time("start"), time("end"), retry)
}

on_both_ledgers! {
    async fn devices_are_told_their_slots(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 6).await;
        let ordinary = window(&server, &fleet[0].certificate).await;
        assert_eq!(ordinary.2, 21_600);
        let mut asked = off_the_line(&server, "certs-1");
        asked["pace"] = json!({ "per_minute": 1, "begin": "2100-01-01" });
        start(&api, &asked).await;
        let begin = UnixTime::parse("2100-01-01").unwrap();
        let mut starts = BTreeMap::new();
        for device in &fleet {
            let (start, end, retry) = window(&server, &device.certificate).await;
            assert_eq!((end, retry), (start.plus(60), 300));
            starts.insert((start.0 - begin.0) / 60, device);
        }
        assert_eq!(starts.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6], "one a minute");

        act(&api, "certs-1", "pause").await.json(200);
        let paused = window(&server, &fleet[0].certificate).await;
        assert_eq!(paused, (ordinary.0, ordinary.1, 300), "as ever, but look again soon");
        act(&api, "certs-1", "abort").await.json(200);
        assert_eq!(window(&server, &fleet[0].certificate).await, ordinary);
        server.stop().await;
    }

    async fn a_slot_that_has_come_is_now_and_in_the_past_if_the_device_ca_is_disabled(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 1).await;
        let device = &fleet[0];
        start(&api, &off_the_line(&server, "certs-1")).await;
        counts_become(&api, "certs-1", [0, 1, 0, 0, 0, 0]).await;
        let (start, end, _) = window(&server, &device.certificate).await;
        let now = UnixTime::now();
        assert!(start <= now && start > now.plus(-60) && end == start.plus(60));
        let line = line(&server);
        api.post(&format!("/v1/device-cas/{line}/disable"), &json!({})).await.json(200);
        let (start, end, _) = window(&server, &device.certificate).await;
        assert!(start < end && end < UnixTime::now());
        // Its answer was lost: now. It has what was wanted: as ever.
        let new = server.rotate(device).await;
        assert!(window(&server, &device.certificate).await.1 < UnixTime::now());
        server.session(&new).await;
        server.stop().await;
    }
}
