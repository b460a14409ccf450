//! The shell scripts for old clients, run as such a client runs them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use estd::pki::Certificate;
use serde_json::{Value, json};

use crate::offline::{CERTS, Field, meta};
use crate::support::Backend;

const SCRIPTS: [&str; 4] = ["create_ca", "create_device_ca", "sign_ca_csr", "sign_tls_csr"];
const DAY: i64 = 24 * 3600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_client_sets_a_factory_up_by_the_scripts() {
    for body in ["", "{}"] {
        let field = Field::new(Backend::Sqlite).await;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let asked = field.fioctl.send("POST", CERTS, body).await.json(201);
        write_all(folder, &asked);

        success(run(folder, "create_ca", &[]));
        success(run(folder, "create_device_ca", &["local-ca.key", "local-ca.pem"]));
        let tls = success(run(folder, "sign_tls_csr", &["tls-csr"]));
        let est = success(run(folder, "sign_tls_csr", &["est-tls-csr"]));
        let online = success(run(folder, "sign_ca_csr", &["ca-csr"]));

        let root = certificate(&std::fs::read_to_string(folder.join("factory_ca.pem")).unwrap());
        assert_eq!(root.public_key().algorithm().to_string(), "P-256");
        let validity = root.validity();
        assert_eq!((validity.not_after.0 - validity.not_before.0) / DAY, 7300);
        assert_eq!(root.subject().common_name().as_deref(), Some("Factory-CA"));
        let local = std::fs::read_to_string(folder.join("local-ca.pem")).unwrap();
        for issued in [&tls, &est, &online, &local] {
            certificate(issued).verify_issued_by(&root).unwrap();
        }
        for key in ["factory_ca.key", "local-ca.key"] {
            let mode = folder.join(key).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{key} is for its owner alone");
        }

        let root = std::fs::read_to_string(folder.join("factory_ca.pem")).unwrap();
        let body = json!({
            "root-crt": root, "tls-crt": tls, "est-tls-crt": est,
            "ca-crt": online + "\n" + &local, "change-meta": meta(),
        });
        field.fioctl.patch(CERTS, &body).await.json(200);
        field.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scripts_overwrite_nothing_and_say_what_they_need() {
    let field = Field::new(Backend::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_all(folder, &field.fioctl.post(CERTS, &json!({})).await.json(201));
    success(run(folder, "create_ca", &[]));
    success(run(folder, "create_device_ca", &[]));
    let files = ["factory_ca.key", "factory_ca.pem", "local-ca.key", "local-ca.pem"];
    let before = files.map(|file| std::fs::read(folder.join(file)).unwrap());
    let refused = [
        ("create_ca", &[][..], "is there already"),
        ("create_device_ca", &[], "is there already"),
        ("sign_tls_csr", &[], "usage:"),
        ("sign_tls_csr", &["ca-csr"], "asks for no DNS name"),
        ("sign_ca_csr", &["absent"], "absent"),
    ];
    for (script, arguments, reason) in refused {
        let output = run(folder, script, arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && errors.contains(reason), "{script}: {errors}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(before, files.map(|file| std::fs::read(folder.join(file)).unwrap()));
    field.server.stop().await;
}

/// Writes each field into a file of its name, as the client does.
fn write_all(folder: &Path, asked: &Value) {
    for (name, text) in asked.as_object().unwrap() {
        let path = folder.join(name);
        std::fs::write(&path, text.as_str().unwrap()).unwrap();
        if SCRIPTS.contains(&name.as_str()) {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
}

fn run(folder: &Path, script: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.current_dir(folder).arg(format!("./{script}")).args(arguments);
    command.output().unwrap()
}

fn success(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn certificate(text: &str) -> Certificate {
    let mut all = Certificate::from_pem(text.as_bytes()).unwrap();
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}
