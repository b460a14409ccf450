//! Rotations that fioctl starts: `config rotate-certs -g GROUP`, `devices config rotate-certs DEVICE`,
//! and `devices updates`, which shows how a device fares.

use serde_json::{Value, json};

use crate::support::Backend;
use crate::{counts, counts_become, fleet, on_both_ledgers, status};

const GROUP: &str = "/ota/factories/factory/device-groups/beta/config/";

/// The body that fioctl sends.
fn body(server: &str, id: &str) -> Value {
    let value = format!("ESTSERVER={server}\nPKEYIDS=01,07\nCERTIDS=03,09\nROTATIONID={id}\n");
    json!({ "reason": "yearly", "files": [{
        "name": "fio-rotate-certs", "value": value, "unencrypted": true,
        "on-changed": ["/usr/share/fioconfig/handlers/renew-client-cert"],
    }] })
}

const EST: &str = "https://localhost:8443/.well-known/est";

on_both_ledgers! {
    async fn a_group_rotates_at_fioctls_word(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 3).await;
        server.sql("UPDATE device SET device_group = 'beta' WHERE name <> 'device-2'").await;
        let started = api.patch(GROUP, &body(EST, "certs-1669058841")).await.json(200);
        assert_eq!((&started["id"], &started["devices"]), (&json!("certs-1669058841"), &json!(2)));
        assert_eq!((&started["reason"], &started["pace"]["per_minute"]), (&json!("yearly"), &json!(60)));
        counts_become(&api, "certs-1669058841", [0, 2, 0, 0, 0, 0]).await;
        let again = api.patch(GROUP, &body(EST, "certs-1669058841")).await;
        assert_eq!(again.status, 409, "{again:?}");

        let updates = async |path: &str| api.get(&format!("/ota/devices/device-0/{path}")).await;
        let list = updates("updates/?factory=factory").await.json(200);
        assert_eq!((&list["total"], &list["next"]), (&json!(1), &Value::Null));
        assert_eq!(list["updates"][0]["correlation-id"], "certs-1669058841");
        let step = async || {
            let events = updates("updates/certs-1669058841/?factory=factory").await.json(200);
            let event = &events[0];
            (event["eventType"]["id"].clone(), event["event"]["success"].clone())
        };
        assert_eq!(step().await, (json!("CertRotationStarted"), Value::Null));
        let new = server.rotate(&fleet[0]).await;
        assert_eq!(step().await, (json!("Generate new certificate"), json!(true)));
        server.session(&new).await;
        assert_eq!(step().await, (json!("CertRotationCompleted"), json!(true)));
        assert_eq!(updates("updates/none/").await.status, 404);
        let none = api.get("/ota/devices/device-2/updates/").await.json(200);
        assert_eq!(none["updates"], json!([]));
        server.stop().await;
    }

    async fn one_device_rotates_at_fioctls_word(backend: Backend) {
        let (server, api, _) = fleet(backend, 2).await;
        let path = "/ota/devices/device-1/config/?factory=factory&by-uuid=1";
        let labelled = format!("{EST}/fioconfig");
        let started = api.patch(path, &body(&labelled, "certs-2")).await.json(200);
        assert_eq!((&started["devices"], &started["fioconfig"]["label"]), (&json!(1), &json!("fioconfig")));
        assert_eq!(counts(&status(&api, "certs-2").await).iter().sum::<i64>(), 1);
        let nobody = "/ota/devices/nobody/config/?factory=factory&by-uuid=1";
        assert_eq!(api.patch(nobody, &body(EST, "certs-3")).await.status, 404);
        server.stop().await;
    }
}

#[tokio::test]
async fn what_is_no_rotation_is_refused() {
    let (server, api, _) = fleet(Backend::Sqlite, 1).await;
    server.sql("UPDATE device SET device_group = 'beta'").await;
    let no_group = "/ota/factories/factory/device-groups//config/";
    let message = api.patch(no_group, &body(EST, "certs-1")).await.json(400)["message"].to_string();
    assert!(message.contains("name the group"), "{message}");
    let value = |value: &str| json!({ "files": [{ "name": "fio-rotate-certs", "value": value }] });
    for (wrong, status, why) in [
        (json!({}), 400, "files"),
        (json!({ "files": [] }), 400, "files: there is none"),
        (
            json!({ "files": [{ "name": "fio-rotate-certs", "value": "x" }, { "name": "x", "value": "" }] }),
            400,
            "must come alone",
        ),
        (value(""), 400, "there is no ESTSERVER="),
        (value("ESTSERVER=https://localhost/.well-known/est\n"), 400, "there is no ROTATIONID="),
        (body("http://localhost/.well-known/est", "certs-1"), 400, "ESTSERVER must be https://"),
        (body("https://localhost/", "certs-1"), 400, "ESTSERVER must be https://"),
        (body("https://elsewhere:8443/.well-known/est", "certs-1"), 400, "EST is at localhost"),
        (
            body("https://localhost/.well-known/est/nope", "certs-1"),
            400,
            "no profile has the label",
        ),
        (body(EST, "a b"), 400, "rotation id"),
    ] {
        let answer = api.patch(GROUP, &wrong).await.json(status);
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(why), "{why}: {message}");
    }
    let nobody = GROUP.replace("beta", "nobody");
    assert_eq!(api.patch(&nobody, &body(EST, "certs-1")).await.status, 404);
    let elsewhere = GROUP.replace("factories/factory", "factories/other");
    assert_eq!(api.patch(&elsewhere, &body(EST, "certs-1")).await.status, 404);
    assert_eq!(api.get("/v1/rotations").await.json(200)["rotations"], json!([]));
    server.stop().await;
}
