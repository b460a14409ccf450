//! The log: JSON in a pipe, and never a secret, however much is logged.

use data_encoding::BASE64;
use serde_json::Value;

use crate::host::{Done, Host};
use crate::on_both_ledgers;
use crate::process::{Process, SERVE};
use crate::support::Backend;
use crate::support::wire::{get_with, post};

const PASSWORD: &str = "swordfish";

on_both_ledgers! {
    async fn logs_are_json_and_hold_no_secret(backend: Backend) {
        for filter in ["info", "trace"] {
            let (mut host, root) = Host::with_factory(backend).await;
            host.ledger_url = with_password(&host.ledger_url);
            let line = root.device_ca("line", &[]);
            let server = Process::start(&host, &["--log-filter", filter]).await;
            server.estd(&host, &["device-ca", "add", "line.pem"]).success();
            let csr = server.estd(&host, &["device-ca", "add", "--online"]).success();
            server.follows(&host).await;
            let device = line.device("device", "device-1");
            let body = device.request().1;
            let mut wire = server.connect(&root.certificate(), Some(&device)).await;
            let reenroll = "/.well-known/est/simplereenroll";
            assert_eq!(wire.send(&post(reenroll, &body)).await.unwrap().status, 200);
            let broken = format!("{}AAAA", body.trim_end());
            assert_eq!(wire.send(&post(reenroll, &broken)).await.unwrap().status, 400);
            let credentials = "Authorization: Basic Zm9vOmJhcg==\r\n";
            let cacerts = get_with("/.well-known/est/cacerts", credentials);
            assert_eq!(wire.send(&cacerts).await.unwrap().status, 200);
            assert_eq!(server.http("GET", "/v1/devices", "OSF-TOKEN: hunter2\r\n", "").status, 401);
            server.signal("HUP");
            server.logged("the Factories have changed", 2).await;
            drop(wire);
            server.signal("TERM");
            let (code, log) = server.ended().await;
            assert_eq!(code, Some(0), "{log}");

            let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let events: Vec<_> = events.collect();
            assert!(events.iter().all(|event| event["timestamp"].is_string()), "{log}");
            let issued = events.iter().find(|event| event["message"] == "issued").unwrap();
            assert_eq!(issued["level"], "INFO");
            for secret in secrets(&host, &body, &csr) {
                assert!(!log.contains(&secret), "{secret} is in the log ({filter}):\n{log}");
            }
        }
    }
}

/// Whatever is wrong with the URL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_about_the_ledger_do_not_show_its_password() {
    let host = Host::new(Backend::Sqlite).await;
    let wrong = [
        "postgres://estd:swordfish@localhost:port/estd",
        "postgres://estd:swordfish@localhost/estd?sslmode=unheard-of",
        "postgres://estd:swordfish@localhost/estd?host=/nonexistent",
        "postgres://estd:sword@swordfish@localhost/estd?host=/nonexistent",
        "postgres://estd:swordfish#@localhost/estd",
        "postgres://estd:swordfish/@localhost/estd",
        "postgres://127.0.0.1:1/estd?user=estd&password=swordfish",
        "postgres://estd@127.0.0.1:1/estd?password=swordfish",
        "postgres:estd:swordfish",
        "mysql://estd:swordfish@localhost/estd",
        "swordfish",
    ];
    for url in wrong {
        let mut command = host.bare_command();
        command.args(["--ledger-url", url]).args(SERVE);
        let done = Done::of(command);
        assert_eq!(done.code, Some(1), "{url}: {done:?}");
        assert!(done.stderr.contains("ledger.url: "), "{url}: {done:?}");
        assert!(!format!("{done:?}").contains(PASSWORD), "{url}: {done:?}");
    }
    let mut command = host.bare_command();
    command.arg("--help").env("ESTD_LEDGER_URL", wrong[0]);
    assert!(!Done::of(command).success().contains(PASSWORD));
}

/// What must stay out of a log: each as the texts in which it could come.
fn secrets(host: &Host, body: &str, csr: &str) -> Vec<String> {
    let token = host.read("data/admin-token").trim().to_owned();
    let key = host.read("data/key-encryption-key").trim().to_owned();
    let bytes = BASE64.decode(key.as_bytes()).unwrap();
    let csr: String = csr.lines().filter(|line| !line.starts_with('-')).collect();
    // A part of a request would do to tell it from others; its subject alone would not.
    let [body, csr] = [body, &csr].map(|text| text[text.len() - 60..].trim().to_owned());
    let mut secrets = vec![token, key, format!("{bytes:?}"), body, csr, "hunter2".to_owned()];
    secrets.extend(["PRIVATE KEY", "Zm9vOmJhcg", PASSWORD].map(str::to_owned));
    secrets
}

/// The URL with a password; the test's PostgreSQL does not ask for one.
fn with_password(url: &str) -> String {
    url.replace("postgres@", &format!("postgres:{PASSWORD}@"))
}
