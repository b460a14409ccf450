//! Which devices a rotation takes.

use estd::clock::UnixTime;
use estd::pki::{CertificationRequest, to_pem};
use serde_json::{Value, json};

use crate::support::TestServer;
use crate::support::fioctl::Fioctl;
use crate::{ROTATIONS, devices, fleet, line, on_both_ledgers, start};

/// Signs a Device CA's request as the root does offline.
pub fn certify(server: &TestServer, csr: &str) -> String {
    certify_at(server, csr, UnixTime::now())
}

/// The same ten years from `begin` on.
pub fn certify_at(server: &TestServer, csr: &str, begin: UnixTime) -> String {
    let request = CertificationRequest::from_pem(csr.as_bytes()).unwrap();
    let random = aws_lc_rs::rand::SystemRandom::new();
    let (name, key) = (request.subject(), request.public_key());
    let certificate = server.root.certify_device_ca(name, key, begin, &random).unwrap();
    to_pem("CERTIFICATE", certificate.der()).unwrap()
}

async fn dry(api: &Fioctl, select: Value) -> Value {
    let asked = json!({ "select": select, "dry_run": true });
    api.post(ROTATIONS, &asked).await.json(200)
}

on_both_ledgers! {
    async fn a_dry_run_tells_how_many_and_who(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 4).await;
        let new = server.rotate(&fleet[0]).await;
        server.session(&new).await;
        let line = line(&server);
        server.sql("UPDATE device SET device_group = 'beta' WHERE name IN ('device-0', 'device-1')").await;
        let soon = UnixTime::now().plus(400 * 24 * 3600).to_string();
        for (select, names) in [
            (json!({ "all": true }), vec![0, 1, 2, 3]),
            (json!({ "device_ca": line }), vec![1, 2, 3]),
            (json!({ "group": "beta" }), vec![0, 1]),
            (json!({ "group": "beta", "device_ca": line }), vec![1]),
            (json!({ "expires_before": soon }), vec![0]),
            (json!({ "key_algorithm": "P-256" }), vec![0, 1, 2, 3]),
            (json!({ "key_algorithm": "RSA-2048" }), vec![]),
            (json!({ "devices": ["device-3", "device-1", "device-3"] }), vec![1, 3]),
            (json!({ "devices": ["device-3", "device-0"], "device_ca": line }), vec![3]),
        ] {
            let run = dry(&api, select.clone()).await;
            let mut some: Vec<_> =
                run["some"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
            some.sort_unstable();
            let names: Vec<_> = names.iter().map(|number| format!("device-{number}")).collect();
            assert_eq!(some, names, "{select}");
            assert_eq!(run["devices"], names.len(), "{select}");
        }
        assert_eq!(api.get(ROTATIONS).await.json(200)["rotations"], json!([]), "nothing has started");
        server.stop().await;
    }

    /// Only one active rotation has a device.
    async fn devices_of_another_rotation_are_left_out(backend: Backend) {
        let (server, api, _) = fleet(backend, 3).await;
        let late = json!({ "per_minute": 1, "begin": "2100-01-01" });
        let first = json!({ "id": "first", "select": { "devices": ["device-1"] }, "pace": late });
        start(&api, &first).await;
        let run = dry(&api, json!({ "all": true })).await;
        assert_eq!((&run["devices"], &run["held"]), (&json!(2), &json!(1)));
        start(&api, &json!({ "id": "second", "select": { "all": true }, "pace": late })).await;
        let expected = [("device-0", "waiting", ""), ("device-1", "skipped", "held"), ("device-2", "waiting", "")];
        let text = |(a, b, c): (&str, &str, &str)| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(devices(&api, "second").await, expected.map(text));
        server.stop().await;
    }

    /// Those that have the target's certificate already are left out, unless it is about to end.
    async fn devices_on_the_target_are_left_out(backend: Backend) {
        let (server, api, fleet) = fleet(backend, 2).await;
        let new = server.rotate(&fleet[0]).await;
        server.session(&new).await;
        let story = api.get("/v1/devices/device-0").await.json(200);
        let online = story["credentials"][1]["device_ca_serial"].clone();
        let asked = json!({ "select": { "all": true }, "target": online, "dry_run": true });
        let run = api.post(ROTATIONS, &asked).await.json(200);
        assert_eq!((&run["devices"], &run["on_target"]), (&json!(1), &json!(1)));
        let soon = UnixTime::now().plus(400 * 24 * 3600).to_string();
        let select = json!({ "expires_before": soon });
        let asked = json!({ "select": select, "target": online, "dry_run": true });
        assert_eq!(api.post(ROTATIONS, &asked).await.json(200)["devices"], 1);
        // What it was issued and has not used holds up the revocation of the other Device CA.
        let csr = api.post("/v1/device-cas/requests", &json!({})).await.json(200);
        let certificate = certify(&server, csr["csr"].as_str().unwrap());
        api.post("/v1/device-cas", &json!({ "certificate": certificate })).await.json(201);
        server.rotate(&new).await;
        let story = api.get("/v1/devices/device-0").await.json(200);
        let select = json!({ "device_ca": story["credentials"][2]["device_ca_serial"] });
        let asked = json!({ "select": select, "target": online, "dry_run": true });
        let run = api.post(ROTATIONS, &asked).await.json(200);
        assert_eq!((&run["devices"], &run["on_target"]), (&json!(1), &json!(0)));
        server.stop().await;
    }
}
