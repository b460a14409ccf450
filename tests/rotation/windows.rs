//! What renewal-info tells the devices of a rotation.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use estd::clock::UnixTime;
use estd::pki::{Certificate, Fingerprint};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::device::name;
use crate::support::{Backend, Device, FACTORY, TestServer};
use crate::{act, counts_become, fleet, line, off_the_line, on_both_ledgers, start, state_becomes};

const DAY: i64 = 24 * 3600;

/// The window that a device of the factory line is told, and how many seconds until it may ask again.
async fn window(server: &TestServer, certificate: &Certificate) -> (UnixTime, UnixTime, i64) {
    window_of(server, server.factory_line.certificate(), certificate).await
}

/// The same for a device of any Device CA.
async fn window_of(
    server: &TestServer,
    issuer: &Certificate,
    certificate: &Certificate,
) -> (UnixTime, UnixTime, i64) {
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
        let begin = UnixTime::now().plus(30 * DAY);
        asked["pace"] = json!({ "per_minute": 1, "begin": begin.to_string() });
        start(&api, &asked).await;
        let mut starts = BTreeMap::new();
        for device in &fleet {
            let (start, end, retry) = window(&server, &device.certificate).await;
            assert_eq!((end, retry), (start.plus(60), 300));
            starts.insert((start.0 - begin.0) / 60, device);
        }
        assert_eq!(starts.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6], "one a minute");

        // Others have had theirs: there is nobody between the first and the last.
        server.sql("UPDATE rotation_device SET state = 'confirmed' WHERE ordinal BETWEEN 2 AND 5").await;
        server.sql("UPDATE rotation SET waiting = 2, confirmed = 4").await;
        let last = window(&server, &starts[&6].certificate).await;
        assert_eq!(last.0, begin.plus(120));

        act(&api, "certs-1", "pause").await.json(200);
        let paused = window(&server, &fleet[0].certificate).await;
        assert_eq!(paused, (ordinary.0, ordinary.1, 300), "as ever, but look again soon");
        act(&api, "certs-1", "abort").await.json(200);
        assert_eq!(window(&server, &fleet[0].certificate).await, ordinary);
        server.stop().await;
    }

    /// A slot that comes later than the certificate wants to be renewed would strand the device.
    async fn a_slot_never_puts_a_renewal_off(backend: Backend) {
        let (server, api, _) = fleet(backend, 0).await;
        let name = name("device-0", FACTORY);
        let line_ca = &server.factory_line;
        let device = Device::with_certificate(line_ca, &name, &[], -70..20);
        server.session(&device).await;
        let own = window(&server, &device.certificate).await;
        let mut asked = off_the_line(&server, "certs-1");
        asked["pace"] = json!({ "per_minute": 1, "begin": "2100-01-01" });
        start(&api, &asked).await;
        let told = window(&server, &device.certificate).await;
        assert_eq!(told, (own.0, own.1, 300));
        assert!(told.1 < device.certificate.validity().not_after);
        server.stop().await;
    }

    /// Where a device gets no certificate of the target, it is not told to come again and again.
    async fn who_got_something_else_is_not_told_to_renew_at_once(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 1).await;
        let trust = server.ledger().factories().await.unwrap().pop().unwrap();
        let target = trust.issuing_ca(UnixTime::now(), 0).unwrap().certificate.serial().to_string();
        let csr = api.post("/v1/device-cas/requests", &json!({})).await.json(200);
        let other = crate::selection::certify(&server, csr["csr"].as_str().unwrap());
        api.post("/v1/device-cas", &json!({ "certificate": other })).await.json(201);
        let other = Certificate::from_pem(other.as_bytes()).unwrap().remove(0);
        let mut asked = off_the_line(&server, "certs-1");
        asked["target"] = json!(target);
        start(&api, &asked).await;
        counts_become(&api, "certs-1", [0, 1, 0, 0, 0, 0]).await;
        server.sql("UPDATE rotation_device SET offered_at = offered_at - 1").await;
        api.post(&format!("/v1/device-cas/{target}/disable"), &json!({})).await.json(200);
        let new = server.rotate(&fleet[0]).await;
        let (start, _, retry) = window_of(&server, &other, &new.certificate).await;
        assert!(start > UnixTime::now().plus(100 * DAY), "{start}");
        assert_eq!(retry, 300, "it may be told otherwise soon");
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

/// A herd: 50,000 devices that all ask now are told to come as the pace says, and not one faster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_is_spread_as_the_pace_says() {
    const DEVICES: i64 = 50_000;
    const PER_MINUTE: i64 = 6_000;
    let (server, api, _) = fleet(Backend::Sqlite, 1).await;
    server.sql("UPDATE ledger_head SET last_id = 10000000").await;
    server.sql(
        "INSERT INTO device (id, factory_id, name, allowed_once, registered_at, last_seen_at, \
         device_group) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) \
         SELECT 100000 + n.i, factory.id, 'x-' || n.i, 0, 1, n.i % 977, 'herd' FROM n, factory",
    )
    .await;
    server.sql(
        "INSERT INTO credential (id, device_id, device_ca_id, state, sha256, public_key_sha256, \
         certificate, recorded_at, serial, key_algorithm, not_after) \
         SELECT id + 1000000, id, (SELECT MIN(id) FROM device_ca), 'current', \
         CAST(printf('%032d', id) AS BLOB), x'', x'', 1, CAST(printf('%016d', id) AS BLOB), 'P-256', 1 \
         FROM device WHERE device_group = 'herd'",
    )
    .await;
    let asked = json!({
        "id": "herd", "select": { "group": "herd" },
        "pace": { "per_minute": PER_MINUTE, "begin": "2100-01-01" },
    });
    start(&api, &asked).await;
    state_becomes(&api, "herd", "running").await;

    let begin = UnixTime::parse("2100-01-01").unwrap();
    let factory = server.factory;
    let all: Vec<i64> = (100_001..=100_000 + DEVICES).collect();
    let mut parts = JoinSet::new();
    for part in all.chunks(10_000) {
        let (part, ledger) = (part.to_vec(), server.ledger().clone());
        parts.spawn(async move {
            let mut minutes = Vec::new();
            for id in part {
                let sha256 = Fingerprint::from_bytes(format!("{id:032}").as_bytes()).unwrap();
                let serial = format!("{id:016}");
                let slot = ledger.slot_of(factory, sha256, serial.as_bytes()).await.unwrap();
                let (rotation, slot) = slot.expect("every device has its slot");
                let window = rotation.window(&slot, UnixTime::now()).unwrap();
                minutes.push((window.start.0 - begin.0) / 60);
            }
            minutes
        });
    }
    let mut by_minute = BTreeMap::<i64, i64>::new();
    for minute in parts.join_all().await.concat() {
        *by_minute.entry(minute).or_default() += 1;
    }
    let counts: Vec<_> = by_minute.values().copied().collect();
    assert_eq!(counts.iter().sum::<i64>(), DEVICES);
    assert_eq!(by_minute.keys().copied().collect::<Vec<_>>(), (0..=8).collect::<Vec<_>>());
    // The clock has whole seconds: a second's devices may fall on either side of a minute.
    let second = PER_MINUTE / 60;
    assert!(counts.iter().all(|count| *count <= PER_MINUTE + second), "{counts:?}");
    assert!(counts[..8].iter().all(|count| *count >= PER_MINUTE - second), "{counts:?}");
    server.stop().await;
}
