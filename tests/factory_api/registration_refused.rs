//! Registrations that are refused: with one row on record each, and without a device left behind.

use estd::pki::{Extension, KeyUsages, from_est_text, to_pem};
use serde_json::{Value, json};

use crate::on_both_ledgers;
use crate::registration::{DEVICES, body, openssl_request, register};
use crate::support::TestServer;
use crate::support::device::{name, new_key, request};
use crate::support::fioctl::Fioctl;

on_both_ledgers! {
    async fn i4_a_token_registers_only_what_the_request_says(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let ask = |extensions: &[Extension], password: Option<&str>| {
            pem(&request(&name("device-1", "factory"), &new_key(), extensions, password))
        };
        let of = |common: &str, unit: &str| pem(&request(&name(common, unit), &new_key(), &[], None));
        let mut broken = from_est_text(request(&name("device-1", "factory"), &new_key(), &[], None).as_bytes()).unwrap();
        *broken.last_mut().unwrap() ^= 1;
        let broken = to_pem("CERTIFICATE REQUEST", &broken).unwrap();
        let ca = Extension::certificate_authority(None).unwrap();
        let usage = Extension::key_usage(KeyUsages::KeyCertSign).unwrap();
        let cases = [
            (of("device-2", "factory"), 400, "uuid-mismatch"),
            (of("device-1", "other"), 403, "ou-mismatch"),
            (broken, 400, "csr-signature"),
            (ask(&[ca], None), 400, "ca-requested"),
            (ask(&[usage], None), 400, "key-usage-not-allowed"),
            (ask(&[], Some("secret")), 403, "channel-binding-unavailable"),
            ("no PEM".to_owned(), 400, "csr-malformed"),
            (of("device-1", "factory").repeat(2), 400, "csr-malformed"),
        ];
        for (csr, status, code) in cases {
            let count = server.audit().await.len();
            let why = register(&fioctl, "device-1", "", &csr).await.list(status);
            assert!(why[0].contains(&format!("({code})")), "{code}: {why:?}");
            let rows = server.audit().await.split_off(count);
            assert_eq!(rows.len(), 1, "{code}: {rows:?}");
            let row = &rows[0];
            let said = (&*row.action, &*row.actor, &*row.outcome, &*row.code);
            assert_eq!(said, ("register", "admin", "refused", code));
        }
        let csr = of("device-1", "factory");
        server.sql("UPDATE device_ca SET state = 'disabled' WHERE kind = 'online'").await;
        let why = register(&fioctl, "device-1", "", &csr).await.list(503);
        assert!(why[0].contains("(issuing-ca-disabled)"), "{why:?}");
        assert!(server.maybe_story("device-1").await.is_none());
        server.stop().await;
    }

    async fn weak_keys_are_refused_as_in_enrolment(backend: Backend) {
        let toml = "[est.profile]\nkeys = ['p384']";
        let server = TestServer::start_with(backend, toml).await;
        let fioctl = Fioctl::new(&server);
        let (csr, _) = openssl_request(server.folder.path(), "/CN=device-1/OU=factory");
        let why = register(&fioctl, "device-1", "", &csr).await.list(400);
        assert!(why[0].contains("(key-not-allowed)"), "{why:?}");
        server.stop().await;
    }

    async fn hostile_overrides_are_refused_before_anything_is_issued(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let csr = pem(&request(&name("device-1", "factory"), &new_key(), &[], None));
        let many: serde_json::Map<String, Value> =
            (0..300).map(|number| (format!("key{number}"), json!("1"))).collect();
        let overrides = [
            json!({ "tls": { "server": "\"x\"\nca_source = \"y\"" } }),
            json!({ "tls": { "server": "\"x\"\r\n[p11]" } }),
            json!({ "tls": { "server": "x" } }),
            json!({ "tls": { "server": "\"x" } }),
            json!({ "tls": { "server": "1\u{0}" } }),
            json!({ "tls": { "server": "1, b = 2" } }),
            json!({ "tls": { "a = 1\nb": "1" } }),
            json!({ "tls": { "": "1" } }),
            json!({ "tls": { "a.b": "1" } }),
            json!({ "tls]\n[p11": { "module": "\"/evil.so\"" } }),
            json!({ "tls.x": { "a": "1" } }),
            json!({ "a".repeat(65): { "a": "1" } }),
            json!({ "tls": { "server": format!("\"{}\"", "x".repeat(5000)) } }),
            json!({ "tls": many }),
            json!({ "tls": "1" }),
            json!({ "tls": { "server": 1 } }),
            json!("x"),
        ];
        for overrides in overrides {
            let mut body = body("device-1", "", &csr);
            body["overrides"] = overrides.clone();
            assert_eq!(fioctl.post(DEVICES, &body).await.status, 400, "{overrides}");
        }
        let hostile = [
            ("sota-config-dir", json!("relative")),
            ("sota-config-dir", json!("/x\n[p11]")),
            ("hardware-id", json!("x\ny")),
            ("hardware-id", json!("x".repeat(256))),
            ("name", json!("x\u{7}y")),
            ("group", json!("x".repeat(256))),
            ("uuid", json!("")),
            ("uuid", json!("x\ny")),
            ("uuid", Value::Null),
            ("csr", Value::Null),
        ];
        for (field, value) in hostile {
            let mut body = body("device-1", "", &csr);
            body[field] = value.clone();
            assert_eq!(fioctl.post(DEVICES, &body).await.status, 400, "{field}: {value}");
        }
        for body in ["", "[]", "{", "{\"client.pem\": \"x\"}"] {
            fioctl.send("PUT", DEVICES, body).await.json(400);
        }
        assert!(server.maybe_story("device-1").await.is_none());
        let mut body = body("device-1", "", &csr);
        body["hardware-id"] = json!("a \"quoted\" \\ one");
        let files = fioctl.post(DEVICES, &body).await.json(201);
        let sota: Value = toml::from_str(files["sota.toml"].as_str().unwrap()).unwrap();
        assert_eq!(sota["provision"]["primary_ecu_hardware_id"], body["hardware-id"]);
        server.stop().await;
    }

    /// `?factory=`, else the OU, else the only one.
    async fn the_factory_is_named_by_the_query_or_the_request(backend: Backend) {
        let field = crate::offline::Field::new(backend).await;
        let csr = |unit: &str, uuid: &str| pem(&request(&name(uuid, unit), &new_key(), &[], None));
        let post = async |path: &str, unit: &str, uuid: &str| {
            field.fioctl.post(path, &body(uuid, "", &csr(unit, uuid))).await.status
        };
        assert_eq!(post("/ota/devices/?factory=factory", "factory", "d1").await, 201);
        assert_eq!(post("/ota/devices", "factory", "d2").await, 201);
        assert_eq!(post("/ota/devices/?factory=factory", "acme", "d3").await, 403);
        assert_eq!(post("/ota/devices/?factory=nobody", "factory", "d3").await, 404);
        assert_eq!(post("/ota/devices/", "nobody", "d3").await, 404);
        // One without a root.
        assert_eq!(post("/ota/devices/", "acme", "d3").await, 409);
        field.server.stop().await;
    }
}

/// The PEM of an EST body.
fn pem(body: &str) -> String {
    to_pem("CERTIFICATE REQUEST", &from_est_text(body.as_bytes()).unwrap()).unwrap()
}
