//! `fioctl devices list|show|delete`.

use serde_json::{Value, json};

use crate::offline::pem;
use crate::on_both_ledgers;
use crate::support::fioctl::Fioctl;
use crate::support::{Device, TestServer, Tls};

const DEVICES: &str = "/ota/devices/";

on_both_ledgers! {
    async fn devices_are_listed_page_by_page(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        for number in 0..5 {
            let group = if number < 2 { "beta" } else { "" };
            introduce(&fioctl, &server.device(&format!("uuid-{number}")), &format!("Box_{number}"), group).await;
        }
        let first = fioctl.get("/ota/devices/?factory=factory&limit=2").await.json(200);
        assert_eq!(first["total"], 5);
        let device = &first["devices"][0];
        assert_eq!((&device["uuid"], &device["name"]), (&json!("uuid-0"), &json!("Box_0")));
        assert_eq!((&device["factory"], &device["device-group"]), (&json!("factory"), &json!("beta")));
        assert!(device["created-at"].as_str().unwrap().ends_with("+00:00"), "{device}");
        assert!(device["public-key"].as_str().unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
        assert_eq!((&device["last-seen"], &device["group"]), (&json!(""), &Value::Null));

        let mut seen = uuids(&first);
        let mut next = first["next"].clone();
        while let Some(url) = next.as_str() {
            let host = format!("http://{}", server.server.api_address());
            let page = fioctl.get(url.strip_prefix(&host).unwrap()).await.json(200);
            seen.extend(uuids(&page));
            next = page["next"].clone();
        }
        assert_eq!(seen, ["uuid-0", "uuid-1", "uuid-2", "uuid-3", "uuid-4"]);
        server.stop().await;
    }

    async fn devices_are_filtered(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        introduce(&fioctl, &server.device("uuid-1"), "Box_1", "beta").await;
        introduce(&fioctl, &server.device("uuid-2"), "BoxX2", "").await;
        introduce(&fioctl, &server.device("uuid-3"), "", "beta").await;
        let cases: [(&str, &[&str]); 9] = [
            ("", &["uuid-1", "uuid-2", "uuid-3"]),
            ("name_ilike=box*", &["uuid-1", "uuid-2"]),
            ("name_ilike=box%25", &["uuid-1", "uuid-2"]),
            ("name_ilike=box_*", &["uuid-1"]),
            ("name_ilike=UUID-3", &["uuid-3"]),
            ("name_ilike=%27%3B+DROP", &[]),
            ("group=beta&match_tag=&shared=0", &["uuid-1", "uuid-3"]),
            ("uuid=uuid-2", &["uuid-2"]),
            ("group=beta&uuid=uuid-2", &[]),
        ];
        for (query, expected) in cases {
            let page = fioctl.get(&format!("{DEVICES}?{query}")).await.json(200);
            assert_eq!(uuids(&page), expected, "{query}");
            assert_eq!((&page["total"], &page["next"]), (&json!(expected.len()), &Value::Null));
        }
        server.stop().await;
    }

    async fn a_device_is_shown_by_either_name(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let device = server.device("uuid-1");
        introduce(&fioctl, &device, "kitchen", "beta").await;
        // Somebody calls their device by another's UUID.
        introduce(&fioctl, &server.device("uuid-2"), "uuid-1", "").await;
        server.session(&device).await;
        for path in ["kitchen/", "kitchen/?factory=factory", "uuid-1", "uuid-1/?by-uuid=1"] {
            let shown = fioctl.get(&format!("{DEVICES}{path}")).await.json(200);
            assert_eq!(shown["uuid"], "uuid-1", "{path}");
            assert_eq!(shown["group"]["name"], "beta");
            assert!(shown["last-seen"].as_str().unwrap().ends_with("+00:00"), "{shown}");
        }
        for path in ["kitchen/?by-uuid=1", "nobody/", "kitchen/?factory=other"] {
            fioctl.get(&format!("{DEVICES}{path}")).await.json(404);
        }
        server.stop().await;
    }

    /// Deleting is denying: refused at once on a connection that is open, until allowed.
    async fn a_deleted_device_is_denied(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let device = server.rotate(&server.device("uuid-1")).await;
        let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
        let path = "/.well-known/est/simplereenroll";
        let request = crate::support::wire::post(path, &device.request().1);
        wire.send(&request).await.unwrap().certificate();
        assert_eq!(server.states("uuid-1").await, ["superseded", "current", "pending"]);

        let count = server.audit().await.len();
        fioctl.delete("/ota/devices/uuid-1/?factory=factory").await.json(200);
        let rows = server.audit().await.split_off(count);
        assert_eq!((rows.len(), rows[0].action.as_str()), (1, "deny-device"), "{rows:?}");
        assert_eq!(server.states("uuid-1").await, ["denied", "denied", "denied"]);
        let story = server.story("uuid-1").await;
        assert!(story.denied_at.is_some() && !story.allowed_once);

        let answer = wire.send(&request).await.unwrap();
        assert!(answer.text().contains("(credential-denied)"), "{}", answer.text());
        fioctl.get("/ota/devices/uuid-1/").await.json(404);
        fioctl.delete("/ota/devices/uuid-1/").await.json(404);
        assert_eq!(fioctl.get(DEVICES).await.json(200)["total"], 0);
        drop(wire);

        let count = server.audit().await.len();
        fioctl.post("/v1/devices/uuid-1/deny", &json!({})).await.json(200);
        assert_eq!(server.audit().await.len(), count, "it is denied already");
        fioctl.post("/v1/devices/nobody/deny", &json!({})).await.json(404);
        fioctl.post("/v1/devices/uuid-1/allow", &json!({})).await.json(200);
        server.session(&device).await;
        assert_eq!(server.states("uuid-1").await, ["denied", "current", "pending"]);
        assert_eq!(fioctl.get(DEVICES).await.json(200)["total"], 1);
        server.stop().await;
    }
}

async fn introduce(fioctl: &Fioctl, device: &Device, name: &str, group: &str) {
    let body = json!({ "client.pem": pem(&device.certificate), "name": name, "group": group });
    fioctl.put(DEVICES, &body).await.json(201);
}

fn uuids(page: &Value) -> Vec<String> {
    let devices = page["devices"].as_array().unwrap();
    devices.iter().map(|device| device["uuid"].as_str().unwrap().to_owned()).collect()
}
