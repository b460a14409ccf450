//! `lmp-device-register`, and devices that were made offline.

use std::path::Path;
use std::process::Command;

use estd::keys::SigningKey;
use estd::pki::{Certificate, CertificationRequest};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::offline::pem;
use crate::on_both_ledgers;
use crate::support::fioctl::{Answer, Fioctl};
use crate::support::{Device, TestServer};

pub const DEVICES: &str = "/ota/devices/";
const UUID: &str = "7b3f2a52-0d34-4c11-b5a8-1c1c2f1a9e10";

on_both_ledgers! {
    async fn lmp_device_register_gets_its_three_files(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let head = fioctl.send("HEAD", DEVICES, "").await;
        assert!(head.status < 500, "{head:?}");

        let subject = format!("/CN={UUID}/OU=factory/businessCategory=production");
        let (csr, key) = openssl_request(server.folder.path(), &subject);
        let files = register(&fioctl, UUID, "my device", &csr).await.json(201);
        let names: Vec<&String> = files.as_object().unwrap().keys().collect();
        assert_eq!(names, ["client.pem", "root.crt", "sota.toml"]);
        assert_eq!(files["root.crt"], pem(server.root.certificate()));

        let certificate = one(&files["client.pem"]);
        let request = CertificationRequest::from_pem(csr.as_bytes()).unwrap();
        assert_eq!(certificate.subject().der(), request.subject().der());
        assert_eq!(certificate.public_key(), request.public_key());
        assert!(certificate.subject().to_string().to_lowercase().contains("production"));

        let story = server.story(UUID).await;
        assert_eq!(story.alias.as_deref(), Some("my device"));
        assert_eq!(story.hardware_id.as_deref(), Some("intel-corei7-64"));
        assert_eq!(story.credentials[0].issued_by.as_deref(), Some("register"));
        assert_eq!(server.states(UUID).await, ["pending"]);
        let rows = server.audit().await;
        let rows: Vec<_> = rows.iter().filter(|row| row.subject == UUID).collect();
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((&*rows[0].action, &*rows[0].actor, &*rows[0].outcome), ("register", "admin", "done"));

        let device = Device::switched(certificate, key);
        server.session(&device).await;
        assert_eq!(server.states(UUID).await, ["current"]);
        server.rotate(&device).await;
        register(&fioctl, UUID, "my device", &csr).await.list(409);
        server.stop().await;
    }

    async fn the_configuration_is_that_of_the_gateway_and_the_device(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let (csr, _) = openssl_request(server.folder.path(), "/CN=device-1/OU=factory");
        let mut body = body("device-1", "device-1", &csr);
        body["sota-config-dir"] = json!("/etc/sota/");
        body["use-ostree-server"] = json!("true");
        body["overrides"] = json!({
            "tls": { "pkey_source": "\"pkcs11\"", "cert_source": "\"pkcs11\"" },
            "import": { "tls_pkey_path": "", "tls_clientcert_path": null },
            "storage": { "tls_pkey_path": "" },
            "pacman": { "tags": "\"main\"", "packages_limit": "3" },
            "extra": { "on": "true" },
        });
        let files = fioctl.post(DEVICES, &body).await.json(201);
        let text = files["sota.toml"].as_str().unwrap();
        let gateway = "https://localhost:8444";
        let expected = json!({
            "tls": {
                "server": gateway, "ca_source": "file", "pkey_source": "pkcs11",
                "cert_source": "pkcs11",
            },
            "provision": { "server": gateway, "primary_ecu_hardware_id": "intel-corei7-64" },
            "uptane": { "repo_server": format!("{gateway}/repo"), "key_source": "file" },
            "pacman": {
                "type": "ostree+compose_apps", "ostree_server": format!("{gateway}/treehub"),
                "compose_apps_root": "/etc/sota/compose-apps", "tags": "main", "packages_limit": 3,
            },
            "storage": { "type": "sqlite", "path": "/etc/sota/" },
            "import": { "tls_cacert_path": "/etc/sota/root.crt" },
            "extra": { "on": true },
        });
        assert_eq!(toml::from_str::<Value>(text).unwrap(), expected, "{text}");
        for unset in ["# tls_pkey_path is unset", "# tls_clientcert_path is unset"] {
            assert!(text.contains(unset), "{text}");
        }
        server.stop().await;
    }

    async fn of_two_registrations_at_once_one_wins(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        for number in 0..5 {
            let uuid = format!("device-{number}");
            let subject = format!("/CN={uuid}/OU=factory");
            let requests = [(); 2].map(|()| openssl_request(server.folder.path(), &subject).0);
            let (one, two) = tokio::join!(
                register(&fioctl, &uuid, &uuid, &requests[0]),
                register(&fioctl, &uuid, &uuid, &requests[1]),
            );
            let mut statuses = [one.status, two.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [201, 409]);
            assert_eq!(server.states(&uuid).await, ["pending"]);
        }
        server.stop().await;
    }

    /// A name for people is of one device, until that is denied.
    async fn a_name_that_is_taken_is_refused(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let csr = |uuid: &str| {
            openssl_request(server.folder.path(), &format!("/CN={uuid}/OU=factory")).0
        };
        register(&fioctl, "device-1", "kitchen", &csr("device-1")).await.json(201);
        let why = register(&fioctl, "device-2", "kitchen", &csr("device-2")).await.list(409);
        assert!(why[0].contains("(name-taken)"), "{why:?}");
        assert!(server.maybe_story("device-2").await.is_none());
        fioctl.delete("/ota/devices/kitchen/?factory=factory").await.json(200);
        register(&fioctl, "device-2", "kitchen", &csr("device-2")).await.json(201);
        server.stop().await;
    }

    async fn a_denied_device_is_registered_anew_with_another_key(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let subject = "/CN=device-1/OU=factory";
        let (csr, key) = openssl_request(server.folder.path(), subject);
        let files = register(&fioctl, "device-1", "kitchen", &csr).await.json(201);
        let old = Device::switched(one(&files["client.pem"]), key);
        server.session(&old).await;
        fioctl.delete("/ota/devices/device-1/?factory=factory&by-uuid=1").await.json(200);

        let why = register(&fioctl, "device-1", "kitchen", &csr).await.list(403);
        assert!(why[0].contains("(credential-denied)"), "{why:?}");
        let (csr, key) = openssl_request(server.folder.path(), subject);
        let files = register(&fioctl, "device-1", "cellar", &csr).await.json(201);
        let new = Device::switched(one(&files["client.pem"]), key);
        let story = server.story("device-1").await;
        assert_eq!((story.alias.as_deref(), story.denied_at), (Some("cellar"), None));
        assert_eq!(server.states("device-1").await, ["denied", "pending"]);
        server.session(&new).await;
        assert_eq!(server.states("device-1").await, ["denied", "current"]);
        let answer = server.reenroll(&old, &old.request().1).await;
        assert!(answer.text().contains("(credential-denied)"), "{}", answer.text());
        server.stop().await;
    }

    /// `PUT`: a factory line has given the device its certificate.
    async fn a_device_that_was_made_offline_is_registered(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let device = server.device("device-1");
        let body = |device: &Device| {
            let chain = pem(&device.certificate) + &pem(server.factory_line.certificate());
            json!({ "client.pem": chain, "name": "line 7", "group": "beta" })
        };
        assert_eq!(fioctl.put(DEVICES, &body(&device)).await.json(201)["uuid"], "device-1");
        let rows = server.audit().await.len();
        fioctl.put(DEVICES, &body(&device)).await.json(200);
        assert_eq!(server.audit().await.len(), rows);
        let story = server.story("device-1").await;
        assert_eq!(story.alias.as_deref(), Some("line 7"));
        assert_eq!(story.group.as_deref(), Some("beta"));
        assert_eq!(server.states("device-1").await, ["pending"]);

        let why = fioctl.put(DEVICES, &body(&server.device("device-1"))).await.list(409);
        assert!(why[0].contains("(device-known)"), "{why:?}");
        server.session(&device).await;
        assert_eq!(server.states("device-1").await, ["current"]);
        server.stop().await;
    }

    async fn i5_only_an_enabled_device_ca_registers_offline_devices(backend: Backend) {
        let server = TestServer::start(backend).await;
        let fioctl = Fioctl::new(&server);
        let stranger = crate::offline::root("factory");
        let random = aws_lc_rs::rand::SystemRandom::new();
        let name = estd::model::FactoryName::parse("factory").unwrap();
        let now = estd::clock::UnixTime::now();
        let strangers = stranger.device_ca(&name, "factory line", now, &random).unwrap();
        let put = async |device: &Device, path: &str| {
            fioctl.put(path, &json!({ "client.pem": pem(&device.certificate) })).await
        };
        let refused = async |answer: Answer, code: &str| {
            let why = answer.list(403);
            assert!(why[0].contains(&format!("({code})")), "{why:?}");
            let last = server.audit().await.pop().unwrap();
            assert_eq!((last.action.as_str(), last.code.as_str()), ("register", code));
        };
        // The same name as the Device CA's, and another key.
        refused(put(&Device::new(&strangers, "factory", "x"), DEVICES).await, "certificate-untrusted")
            .await;
        let other = Device::new(&server.factory_line, "other", "x");
        refused(put(&other, DEVICES).await, "ou-mismatch").await;
        let expired = Device::with_certificate(
            &server.factory_line,
            server.device("x").certificate.subject(),
            &[],
            -2..-1,
        );
        refused(put(&expired, DEVICES).await, "certificate-expired").await;
        for (state, code) in [("disabled", "ca-disabled-unregistered"), ("revoked", "ca-revoked")] {
            let line = server.factory_line.certificate();
            server.set_ca_state(line, "enabled").await;
            server.server.reload().await.unwrap();
            server.set_ca_state(line, state).await;
            // Even before the server has heard of it: the transaction that records knows.
            refused(put(&server.device("x"), DEVICES).await, code).await;
            server.server.reload().await.unwrap();
            refused(put(&server.device("x"), DEVICES).await, code).await;
        }
        assert!(server.maybe_story("x").await.is_none());
        server.stop().await;
    }
}

/// The body of lmp-device-register: every value a string.
pub fn body(uuid: &str, name: &str, csr: &str) -> Value {
    json!({
        "name": name, "uuid": uuid, "csr": csr, "hardware-id": "intel-corei7-64",
        "sota-config-dir": "/var/sota",
    })
}

pub async fn register(fioctl: &Fioctl, uuid: &str, name: &str, csr: &str) -> Answer {
    fioctl.post(DEVICES, &body(uuid, name, csr)).await
}

/// A request as lmp-device-register makes it, and its key.
pub fn openssl_request(folder: &Path, subject: &str) -> (String, SigningKey) {
    let key = folder.join("device.key");
    let extensions = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=critical,clientAuth"];
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    command.arg("-keyout").arg(&key).args(["-subj", subject]);
    for extension in extensions {
        command.args(["-addext", extension]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let key = PrivateKeyDer::from_pem_slice(&std::fs::read(key).unwrap()).unwrap();
    let key = SigningKey::from_der(key.secret_der()).unwrap();
    (String::from_utf8(output.stdout).unwrap(), key)
}

fn one(pem: &Value) -> Certificate {
    let mut all = Certificate::from_pem(pem.as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}
