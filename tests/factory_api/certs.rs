//! The commands of `fioctl keys`: create, show, rotate-tls, add-device-ca, update, disable, revoke.

use estd::pki::Certificate;
use serde_json::{Value, json};

use crate::offline::{CERTS, Field, crl, meta, pem, read_csr};
use crate::on_both_ledgers;
use crate::support::fioctl::Fioctl;
use crate::support::{Device, TestServer};

const PROSE: &str = "## Device CAs of the Factory\n(this text is no PEM)\n";

on_both_ledgers! {
    /// `keys ca create`, then `keys ca show`.
    async fn keys_ca_create_sets_a_factory_up(backend: Backend) {
        let field = Field::new(backend).await;
        let fioctl = &field.fioctl;
        assert_eq!(fioctl.get(CERTS).await.json(206), json!({}));

        let csrs = field.request(&["first-time-init", "tls-csr", "ca-csr"]).await;
        assert_eq!(csrs.as_object().unwrap().len(), 2, "{csrs}");
        let user = fioctl.get("/ota/factories/acme/users/self/").await.json(200);
        assert!(!user["polis-id"].as_str().unwrap().is_empty() && user["role"].is_string());

        let (tls, online) = (field.sign_server(&csrs["tls-csr"]), field.sign_ca(&csrs["ca-csr"]));
        let local = field.local_ca("fio-admin");
        let body = json!({
            "root-crt": pem(field.root.certificate()),
            "tls-crt": pem(&tls),
            "ca-crt": pem(&online) + "\n" + PROSE + &pem(local.certificate()),
            "change-meta": meta(),
        });
        fioctl.patch(CERTS, &body).await.json(200);

        let shown = fioctl.get(CERTS).await.json(200);
        let text = |field: &str| shown[field].as_str().unwrap().to_owned();
        assert_eq!(text("root-crt"), pem(field.root.certificate()));
        assert_eq!(text("tls-crt"), pem(&tls));
        assert_eq!(text("ca-crt"), pem(&online) + &pem(local.certificate()));
        assert_eq!(shown["est-tls-crt"], Value::Null);
        assert_eq!(shown["disabled-ca-serials"], json!([]));
        let meta = &shown["change-meta"];
        assert_eq!((&meta["created-by"], &meta["updated-by"]), (&json!("admin"), &json!("admin")));
        assert!(meta["created-at"].is_string() && meta["updated-at"].is_string(), "{meta}");
        assert_eq!(fioctl.get(CERTS.trim_end_matches('/')).await.json(200), shown);

        let kinds: Vec<_> = device_cas(&field).await.iter().map(|ca| ca.kind.as_str()).collect();
        assert_eq!(kinds, ["online", "local"]);
        field.server.stop().await;
    }

    async fn i9_the_root_is_uploaded_once(backend: Backend) {
        let (field, _) = Field::set_up(backend).await;
        let again = pem(field.root.certificate());
        let other = pem(crate::offline::root("acme").certificate());
        for root in [again, other] {
            let why = field.patch("root-crt", &root).await.list(409);
            assert!(why[0].contains("it is set once"), "{why:?}");
        }
        let body = json!({
            "first-time-init": true, "ca-csr": true, "est-tls-csr": false, "tls-csr": true,
        });
        field.fioctl.post(CERTS, &body).await.json(409);
        field.server.stop().await;
    }

    /// `keys est authorize`, `keys ca rotate-tls`, twice each.
    async fn server_certificates_are_rotated(backend: Backend) {
        let (field, _) = Field::set_up(backend).await;
        for (csr, crt) in [("est-tls-csr", "est-tls-crt"), ("tls-csr", "tls-crt")] {
            let mut before = field.shown(crt).await;
            for _ in 0..2 {
                let csrs = field.request(&[csr]).await;
                assert_eq!(csrs, field.request(&[csr]).await, "it waits already");
                let certificate = pem(&field.sign_server(&csrs[csr]));
                for _ in 0..2 {
                    field.patch(crt, &certificate).await.json(200);
                    assert_eq!(field.shown(crt).await, certificate);
                }
                assert_ne!(before, certificate);
                before = certificate;
            }
        }
        field.server.stop().await;
    }

    /// `keys ca add-device-ca`, `keys ca update`: what came and what went is on record, once.
    async fn ca_crt_replaces_the_whole_list(backend: Backend) {
        let (field, first) = Field::set_up(backend).await;
        let before = field.shown("ca-crt").await;
        let second = field.local_ca("line 1");
        assert_eq!(first.certificate().subject(), second.certificate().subject());
        let all = before.clone() + "\n" + &pem(second.certificate());

        let count = field.server.audit().await.len();
        field.patch("ca-crt", &all).await.json(200);
        field.patch("ca-crt", &all).await.json(200);
        field.patch("ca-crt", &(all.clone() + &all)).await.json(200);
        assert_eq!(field.shown("ca-crt").await, before.clone() + &pem(second.certificate()));
        let detail = format!("certificate {}", second.certificate().fingerprint());
        let added = ("add-device-ca".to_owned(), "done".to_owned(), detail);
        assert_eq!(field.rows_after(count).await, [added]);

        let count = field.server.audit().await.len();
        field.patch("ca-crt", &before).await.json(200);
        field.patch("ca-crt", &before).await.json(200);
        assert_eq!(field.shown("ca-crt").await, before);
        let went = ("revoke-device-ca", "done", "left out of ca-crt");
        let went = (went.0.to_owned(), went.1.to_owned(), went.2.to_owned());
        assert_eq!(field.rows_after(count).await, [went]);

        let why = field.patch("ca-crt", &all).await.list(409);
        assert!(why[0].contains("`estd device-ca add --again`"), "{why:?}");
        assert_eq!(field.shown("ca-crt").await, before);

        let csrs = field.request(&["ca-csr"]).await;
        let online = pem(&field.sign_ca(&csrs["ca-csr"]));
        field.patch("ca-crt", &(before.clone() + &online)).await.json(200);
        assert_eq!(field.shown("ca-crt").await, before + &online);
        assert_eq!(device_cas(&field).await.last().unwrap().kind.as_str(), "online");
        field.server.stop().await;
    }

    /// The answer names the command that allows it and the devices; nothing of the rest is done.
    async fn i8_a_device_ca_that_is_needed_is_not_left_out_nor_revoked(backend: Backend) {
        let (field, local) = Field::set_up(backend).await;
        let device = Device::new(&local, "acme", "device-1");
        let body = json!({ "client.pem": pem(&device.certificate) });
        field.fioctl.put("/ota/devices/", &body).await.json(201);

        let before = field.shown("ca-crt").await;
        let online = before.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        let serial = local.certificate().serial();
        let command = format!("estd device-ca revoke {serial} --strand 1");
        let newcomer = field.local_ca("newcomer");
        let left_out = online.to_owned() + &pem(newcomer.certificate());
        let revoked = field.crl(&[(serial, Some(9))]);
        for (name, value) in [("ca-crt", &left_out), ("ca-revoke-crl", &revoked)] {
            let count = field.server.audit().await.len();
            let why = field.patch(name, value).await.list(409);
            assert!(why[0].contains(&command), "{why:?}");
            assert_eq!(why[1..], ["device-1"]);
            assert_eq!(field.shown("ca-crt").await, before);
            let rows = field.rows_after(count).await;
            assert_eq!((rows.len(), rows[0].1.as_str()), (1, "refused"), "{rows:?}");
        }

        let allowed = estd_revoke(&field, &local).await;
        assert_eq!(allowed, 200);
        assert_eq!(field.shown("ca-crt").await, online);
        field.server.stop().await;
    }

    /// `keys ca disable-device-ca`, `revoke-device-ca`: reasons 6, 8, 9 and none.
    async fn i5_a_crl_of_the_root_disables_enables_and_revokes(backend: Backend) {
        let (field, first) = Field::set_up(backend).await;
        let second = field.local_ca("line 2");
        let all = field.shown("ca-crt").await + &pem(second.certificate());
        field.patch("ca-crt", &all).await.json(200);
        let (first, second) = (first.certificate().clone(), second.certificate().clone());
        let (one, two) = (first.serial(), second.serial());
        let disabled = async || {
            field.fioctl.get(CERTS).await.json(200)["disabled-ca-serials"].clone()
        };

        for _ in 0..2 {
            let list = field.crl(&[(one, Some(6)), (two, Some(6))]);
            field.patch("ca-revoke-crl", &list).await.json(200);
            assert_eq!(disabled().await, json!([one.to_decimal(), two.to_decimal()]));
            assert_eq!(field.shown("ca-crt").await, all, "a disabled one is still listed");
        }
        field.patch("ca-crt", &all).await.json(200);
        assert_eq!(disabled().await, json!([one.to_decimal(), two.to_decimal()]));

        let list = field.crl(&[(one, Some(8))]);
        field.patch("ca-revoke-crl", &list).await.json(200);
        assert_eq!(disabled().await, json!([two.to_decimal()]));

        let list = field.crl(&[(one, Some(9)), (two, None)]);
        field.patch("ca-revoke-crl", &list).await.json(200);
        let left = field.shown("ca-crt").await;
        assert_eq!(all, left.clone() + &pem(&first) + &pem(&second));
        assert_eq!(disabled().await, json!([]));

        // One that is revoked is not brought back by a CRL.
        let why = field.patch("ca-revoke-crl", &field.crl(&[(one, Some(8))])).await.list(409);
        assert!(why[0].contains("device-ca add --again"), "{why:?}");
        field.server.stop().await;
    }

    /// fioctl before it made certificates itself sends every field that it knows, most of them empty.
    async fn old_clients_send_more_than_they_say(backend: Backend) {
        let field = Field::new(backend).await;
        let asked = field.fioctl.post(CERTS, &json!({})).await.json(201);
        let mut body = asked.clone();
        body["root-crt"] = json!(pem(field.root.certificate()));
        body["tls-crt"] = json!(pem(&field.sign_server(&asked["tls-csr"])));
        body["ca-crt"] = json!("");
        body["est-tls-crt"] = Value::Null;
        body["change-meta"] = meta();
        field.fioctl.patch(CERTS, &body).await.json(200);
        assert!(field.shown("ca-crt").await.is_empty());
        read_csr(&asked["ca-csr"]);
        read_csr(&asked["est-tls-csr"]);
        field.server.stop().await;
    }

    /// The Factory that serves: what is uploaded holds when the answer is there.
    async fn i5_an_upload_reaches_the_handshake_at_once(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = server.device("device-1");
        server.session(&device).await;
        let fioctl = Fioctl::new(&server);
        let now = estd::clock::UnixTime::now();
        let serial = server.factory_line.certificate().serial();
        let list = crl(&server.root, &[(serial, Some(6))], now..now.plus(900));
        let path = "/ota/factories/factory/certs/";
        fioctl.patch(path, &json!({ "ca-revoke-crl": list })).await.json(200);
        let unknown = server.device("unknown");
        let answer = server.reenroll(&unknown, &unknown.request().1).await;
        assert!(answer.text().contains("(ca-disabled-unregistered)"), "{}", answer.text());
        server.rotate(&device).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_whoever_has_a_token_may_use_the_factory_api() {
    let field = Field::new(crate::support::Backend::Sqlite).await;
    let everything = [
        ("GET", CERTS),
        ("POST", CERTS),
        ("PATCH", CERTS),
        ("GET", "/ota/factories/acme/users/self/"),
        ("GET", "/ota/devices/"),
        ("POST", "/ota/devices/"),
        ("PUT", "/ota/devices/"),
        ("GET", "/ota/devices/x/"),
        ("DELETE", "/ota/devices/x/"),
    ];
    for headers in ["", "OSF-TOKEN: wrong\r\n", "Authorization: Bearer wrong\r\n"] {
        for (method, path) in everything {
            field.fioctl.send_with(method, path, headers, "{}").await.json(401);
        }
    }
    for path in ["/ota/factories/other/certs/", "/ota/factories/other/users/self/", "/ota/"] {
        field.fioctl.get(path).await.json(404);
    }
    let large = "x".repeat(300 * 1024);
    assert_eq!(field.fioctl.send("PATCH", CERTS, &large).await.status, 413);
    field.server.stop().await;
}

async fn device_cas(field: &Field) -> Vec<estd::model::DeviceCa> {
    let factories = field.server.ledger().factories().await.unwrap();
    factories.into_iter().find(|trust| trust.factory.id == field.acme).unwrap().device_cas
}

/// What the command that the refusal names does.
async fn estd_revoke(field: &Field, ca: &estd::factory::Authority) -> u16 {
    let certificate: &Certificate = ca.certificate();
    let path = format!("/v1/device-cas/{}/revoke?factory=acme", certificate.serial());
    field.fioctl.post(&path, &json!({ "strand": 1 })).await.status
}
