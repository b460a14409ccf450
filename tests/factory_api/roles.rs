//! Tokens on the Factory API: what each role may do, and nothing of another Factory.

use serde_json::json;

use crate::offline::{CERTS, Field, pem};
use crate::on_both_ledgers;

/// Every route with the smallest role that may use it.
const ROUTES: [(&str, &str, &str); 9] = [
    ("GET", CERTS, "viewer"),
    ("GET", "/ota/factories/acme/users/self/", "viewer"),
    ("GET", "/ota/devices/?factory=acme", "viewer"),
    ("GET", "/ota/devices/x/?factory=acme", "viewer"),
    ("POST", "/ota/devices/", "operator"),
    ("PUT", "/ota/devices/", "operator"),
    ("DELETE", "/ota/devices/x/?factory=acme", "operator"),
    ("POST", CERTS, "admin"),
    ("PATCH", CERTS, "admin"),
];
const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

on_both_ledgers! {
    async fn every_route_takes_its_role(backend: Backend) {
        let (field, _) = Field::set_up(backend).await;
        for (rank, role) in ROLES.iter().enumerate() {
            let fioctl = field.fioctl.with_role(role, "acme").await;
            for (method, path, needed) in ROUTES {
                let answer = fioctl.send(method, path, "{}").await;
                let is_allowed = ROLES.iter().position(|one| *one == needed).unwrap() <= rank;
                assert_eq!(answer.status != 403, is_allowed, "{role} {method} {path}: {answer:?}");
            }
            let user = fioctl.get("/ota/factories/acme/users/self/").await.json(200);
            let name = format!("a-{role}");
            assert_eq!(user, json!({ "polis-id": name, "name": name, "role": role }));
        }
        field.server.stop().await;
    }

    /// It is answered like one that is not there; and who did something is on record.
    async fn a_token_sees_nothing_of_another_factory(backend: Backend) {
        let (field, _) = Field::set_up(backend).await;
        let other = "/ota/factories/factory/certs/";
        let fioctl = field.fioctl.with_role("admin", "acme").await;
        assert_eq!(fioctl.get(other).await.json(404), fioctl.get("/ota/factories/x/certs/").await.json(404));
        for (method, path) in [
            ("POST", other),
            ("PATCH", other),
            ("GET", "/ota/factories/factory/users/self/"),
            ("GET", "/ota/devices/?factory=factory"),
            ("DELETE", "/ota/devices/x/?factory=factory"),
        ] {
            fioctl.send(method, path, "{}").await.json(404);
        }
        // Its subject names the other Factory, of which this token knows nothing.
        let device = field.server.device("device-1");
        let body = json!({ "client.pem": pem(&device.certificate) });
        assert_eq!(fioctl.put("/ota/devices/", &body).await.status, 403);
        assert!(field.server.maybe_story("device-1").await.is_none());

        let local = field.local_ca("line 2");
        let all = field.shown("ca-crt").await + &pem(local.certificate());
        let count = field.server.audit().await.len();
        fioctl.patch(CERTS, &json!({ "ca-crt": all })).await.json(200);
        assert_eq!(field.server.audit().await[count].actor, "a-admin");
        field.server.stop().await;
    }
}
