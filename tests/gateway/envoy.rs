//! Requests as Envoy's `ext_authz` sends them with the configuration in `deploy/envoy.yaml`: the method
//! and the path are the device's, the certificate is in `X-Forwarded-Client-Cert`.

use estd::pki::to_pem;
use serde_json::json;

use crate::on_both_ledgers;
use crate::support::fioctl::Fioctl;
use crate::support::{Device, TestServer};

/// What Envoy says of a client, by its SANITIZE_SET.
fn forwarded(device: &Device) -> String {
    let (certificate, fingerprint) = (&device.certificate, device.certificate.fingerprint());
    let pem = to_pem("CERTIFICATE", certificate.der()).unwrap();
    let pem = pem.replace('\n', "%0A").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!(
        "X-Forwarded-Client-Cert: Hash={fingerprint};Cert=\"{}\";Subject=\"CN=a\\\",b;Cert=x\"\r\n",
        pem.replace(' ', "%20")
    )
}

on_both_ledgers! {
    async fn envoy_lets_pass_whom_the_ledger_accepts(backend: Backend) {
        let server = TestServer::start(backend).await;
        let api = Fioctl::new(&server).with_role("operator", "factory").await;
        let bearer = format!("Authorization: Bearer {}\r\n", api.token());
        let asks = async |method: &str, path: &str, headers: &str| {
            let path = format!("/v1/authz{path}");
            api.send_with(method, &path, &format!("{bearer}{headers}"), "").await
        };
        let device = server.device("device-1");
        for (method, path) in
            [("GET", "/"), ("PATCH", "//config"), ("DELETE", "/a/b?factory=x"), ("OPTIONS", "/%ff")]
        {
            let answer = asks(method, path, &forwarded(&device)).await;
            assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
            assert_eq!(answer.header("Estd-Device"), Some("device-1"));
        }
        let forged = asks("GET", "/config", &forwarded(&server.device("device-1"))).await;
        assert_eq!((forged.status, forged.header("Estd-Reason")), (403, Some("credential-unknown")));

        let two = forwarded(&device).replace("Hash=", "By=spiffe://x,Hash=");
        let twice = forwarded(&device).repeat(2);
        let its_own = "X-Client-Cert: x\r\n";
        for headers in ["", "X-Forwarded-Client-Cert: Hash=0\r\n", &two, &twice, its_own] {
            let answer = asks("GET", "/config", headers).await;
            assert_eq!(answer.status, 400, "{headers}: {answer:?}");
        }
        let viewer = Fioctl::new(&server).with_role("viewer", "factory").await;
        let headers = format!("OSF-TOKEN: {}\r\n{}", viewer.token(), forwarded(&device));
        assert_eq!(viewer.send_with("GET", "/v1/authz/config", &headers, "").await.status, 403);
        assert_eq!(viewer.send_with("GET", "/v1/authz/config", "", "").await.status, 401);

        // A gateway that lets everybody knock: what is of no Device CA is on record, and not for ever.
        let elsewhere = TestServer::start(backend).await;
        let stranger = forwarded(&elsewhere.device("device-1"));
        for _ in 0..70 {
            assert_eq!(asks("GET", "/config", &stranger).await.status, 403);
        }
        let sightings = server.audit().await.into_iter().filter(|row| row.action == "sighting");
        assert!((1..70).contains(&sightings.count()));
        elsewhere.stop().await;

        Fioctl::new(&server).post("/v1/devices/device-1/deny", &json!({})).await.json(200);
        let denied = asks("GET", "/config", &forwarded(&device)).await;
        assert_eq!((denied.status, denied.header("Estd-Reason")), (403, Some("credential-denied")));

        // As another server of the same ledger revokes it: this one has not heard of it yet.
        let other = server.device("device-2");
        assert_eq!(asks("GET", "/config", &forwarded(&other)).await.status, 200);
        assert_eq!(asks("GET", "/config", &forwarded(&other)).await.status, 200);
        server.set_ca_state(server.factory_line.certificate(), "revoked").await;
        let revoked = asks("GET", "/config", &forwarded(&other)).await;
        assert_eq!(revoked.status, 403, "{revoked:?}");
        server.stop().await;
    }
}
