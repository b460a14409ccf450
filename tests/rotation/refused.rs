//! What is no rotation: a clear error, and nothing half started.

use serde_json::{Value, json};

use crate::support::Backend;
use crate::{ROTATIONS, act, fleet, line, off_the_line, start};

#[tokio::test]
async fn what_is_no_rotation_is_refused() {
    let (server, api, _) = fleet(Backend::Sqlite, 2).await;
    let all = json!({ "all": true });
    let with = |key: &str, value: Value| {
        let mut asked = json!({ "select": { "all": true } });
        asked[key] = value;
        asked
    };
    let select = |select: Value| json!({ "select": select });
    let many: Vec<_> = (0..10_001).map(|number| format!("device-{number}")).collect();
    let cases: Vec<(Value, u16, &str)> = vec![
        (json!({}), 422, "select"),
        (select(json!({})), 400, "select must say which devices"),
        (select(json!({ "all": true, "group": "x" })), 400, "all and nothing else"),
        (select(json!({ "group": "" })), 400, "group is empty"),
        (select(json!({ "group": "nobody" })), 404, "no device is in the group \"nobody\""),
        (select(json!({ "device_ca": "ab12" })), 404, "no Device CA with that serial number"),
        (select(json!({ "expires_before": "soon" })), 400, "expires_before must be a time"),
        (select(json!({ "expires_before": "2020-01-01" })), 409, "no device is left to rotate"),
        (select(json!({ "key_algorithm": "P256" })), 400, "must be P-256, P-384, Ed25519, or RSA"),
        (select(json!({ "devices": [] })), 400, "1 to 10000 devices"),
        (select(json!({ "devices": many })), 400, "1 to 10000 devices"),
        (
            select(json!({ "devices": ["device-0", "ghost", "spectre"] })),
            404,
            "2 of the named devices are unknown: ghost, spectre",
        ),
        (select(json!({ "devices": [""] })), 400, "device name"),
        (select(json!({ "colour": "red" })), 422, "colour"),
        (with("id", json!("a b")), 400, "rotation id"),
        (with("target", json!("ab12")), 404, "no Device CA with that serial number"),
        (with("target", json!(line(&server))), 409, "no Device CA that signs here"),
        (with("pace", json!({ "per_minute": 0 })), 400, "a pace is 1 to"),
        (with("pace", json!({ "per_minute": -1 })), 422, "integer `-1`"),
        (with("pace", json!({ "window": "22:00" })), 400, "a window is HH:MM-HH:MM"),
        (with("pace", json!({ "until": "2020-01-01" })), 400, "`until` must be later than now"),
        (with("pace", json!({ "begin": "never" })), 400, "pace.begin must be a time"),
        (with("stop", json!({ "percent": 100 })), 400, "percent 0 to 99"),
        (with("stop", json!({ "last": 0 })), 400, "last must be 1 to 1000"),
        (with("stop", json!({ "never": true, "last": 5 })), 400, "not both"),
        (with("reason", json!("x".repeat(1001))), 400, "reason: 1000 characters at most"),
        (with("patience_hours", json!(0)), 400, "patience_hours must be at least 1"),
        (with("fioconfig", json!({ "label": "nope" })), 400, "no profile has the label nope"),
        (with("fioconfig", json!({ "pkey_ids": "01\nX=1" })), 400, "pkey_ids must be hex"),
        (with("colour", json!("red")), 422, "colour"),
    ];
    for (asked, status, expected) in cases {
        let answer = api.post(ROTATIONS, &asked).await.json(status);
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert_eq!(api.send("POST", ROTATIONS, "no JSON").await.status, 400);
    let none = api.get(ROTATIONS).await.json(200);
    assert_eq!(none["rotations"], json!([]), "nothing has started");

    // What an operator decided and the ledger refused is on record.
    let refused = server.refusals().await;
    assert!(refused.contains(&"group-unknown".to_owned()), "{refused:?}");
    assert!(refused.contains(&"devices-unknown".to_owned()), "{refused:?}");

    start(&api, &json!({ "id": "certs-1", "select": all })).await;
    let answer = api.post(ROTATIONS, &json!({ "id": "certs-1", "select": { "all": true } })).await;
    let message = answer.json(409)["message"].to_string();
    assert!(message.contains("there is, or was, a rotation certs-1"), "{message}");
    for (method, path) in [
        ("GET", "/v1/rotations/none"),
        ("GET", "/v1/rotations/a%20b"),
        ("GET", "/v1/rotations/none/devices"),
        ("POST", "/v1/rotations/none/pause"),
    ] {
        let answer = api.send(method, path, "{}").await;
        assert_eq!(answer.json(404)["message"], "there is no such rotation", "{path}");
    }
    let answer = api.get("/v1/rotations/certs-1/devices?state=lost").await.json(400);
    assert!(answer["message"].as_str().unwrap().starts_with("state must be one of waiting, "));
    assert_eq!(act(&api, "certs-1", "destroy").await.status, 404);
    let long = json!({ "reason": "x".repeat(1001) });
    for act in ["pause", "resume", "retry", "abort"] {
        let answer = api.post(&format!("{ROTATIONS}/certs-1/{act}"), &long).await.json(400);
        assert_eq!(answer["message"], "reason: 1000 characters at most");
    }
    server.stop().await;
}

/// Devices would get what they have.
#[tokio::test]
async fn a_rotation_that_leads_nowhere_is_refused() {
    let (server, api, fleet) = fleet(Backend::Sqlite, 1).await;
    let new = server.rotate(&fleet[0]).await;
    server.session(&new).await;
    let story = api.get("/v1/devices/device-0").await.json(200);
    let mut asked = off_the_line(&server, "certs-1");
    asked["select"] = json!({ "device_ca": story["credentials"][1]["device_ca_serial"] });
    let message = api.post(ROTATIONS, &asked).await.json(409)["message"].to_string();
    assert!(message.contains("of the very Device CA that they are to leave"), "{message}");
    asked["dry_run"] = json!(true);
    assert_eq!(api.post(ROTATIONS, &asked).await.status, 409);
    server.stop().await;
}
