//! The key-encryption key: where it comes from, and replacing it by `estd keys rewrap`.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::host::{Done, Host};
use crate::on_both_ledgers;
use crate::process::{Process, SERVE};
use crate::support::Backend;
use crate::support::wire::get_with;

const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const OTHER_KEY: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";
const FILE: &str = "data/key-encryption-key";
const NEW_FILE: &str = "data/key-encryption-key.new";

on_both_ledgers! {
    async fn after_a_rewrap_only_the_new_key_opens(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let old = host.read(FILE);
        let told = host.estd(&["keys", "rewrap"]).success();
        assert!(told.starts_with("Rewrapped: 3 private keys, under the key in data/"), "{told}");
        assert!(told.contains("Restart every server"), "{told}");
        let new = host.read(FILE);
        assert_ne!(old, new);
        assert_eq!(host.file(FILE).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!host.file(NEW_FILE).exists());

        host.write(FILE, &old);
        assert_refused(&host.estd(&SERVE), "data/key-encryption-key is not the one");
        host.estd(&["keys", "rewrap"]).refused("data/key-encryption-key is not the one");
        host.write(FILE, new);
        let server = serves(&host).await;
        let audit = server.estd(&host, &["audit", "list"]).success();
        let row = audit.lines().find(|line| line.contains("rewrap-keys")).unwrap();
        assert!(row.contains("command line") && row.contains("3 private keys"), "{row}");
        server.estd(&host, &["audit", "verify"]).success();
        server.stop().await;
    }

    /// What it holds goes on; what it would store under the old key is refused.
    async fn a_server_that_runs_through_a_rewrap_makes_no_key_until_its_restart(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let server = serves(&host).await;
        host.estd(&["keys", "rewrap"]).success();
        server.signal("HUP");
        server.logged("the Factories have changed", 1).await;
        assert_serves(&host, &server).await;
        let add = ["device-ca", "add", "--online"];
        server.estd(&host, &add).refused("restart this server");

        // A replica that has the new key goes on; the old server follows it as far as it can.
        let replica = serves(&host).await;
        host.write("next.csr", replica.estd(&host, &add).success());
        root.sign("next.csr", "next.pem", &["-subj", "/CN=the next one"]);
        replica.estd(&host, &["device-ca", "add", "next.pem"]).success();
        server.follows(&host).await;
        server.logged("a key does not open and is not used", 1).await;
        assert_serves(&host, &server).await;
        replica.stop().await;
        server.stop().await;
        serves(&host).await.stop().await;
    }

    /// A process that dies leaves the new key beside the old one, before or after the commit.
    async fn an_interrupted_rewrap_is_survived(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        host.write_secret(NEW_FILE, KEY);
        serves(&host).await.stop().await;
        assert_eq!(host.read(NEW_FILE), KEY, "before the commit the old key stays");
        host.estd(&["keys", "rewrap"]).success();
        assert_eq!(host.read(FILE), KEY, "the key that waited is used");

        for there in [Some(OTHER_KEY), None] {
            std::fs::rename(host.file(FILE), host.file(NEW_FILE)).unwrap();
            if let Some(old) = there {
                host.write_secret(FILE, old);
            }
            serves(&host).await.stop().await;
            assert_eq!(host.read(FILE), KEY, "after the commit the new key moves");
            assert!(!host.file(NEW_FILE).exists());
        }

        host.write_secret(NEW_FILE, KEY);
        host.write_secret(FILE, OTHER_KEY);
        host.estd(&["keys", "rewrap"]).success();
        assert_ne!(host.read(FILE), KEY, "a rewrap begins as a start does");
        serves(&host).await.stop().await;
    }

    async fn a_rewrap_that_fails_changes_nothing(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let old = host.read(FILE);
        host.write_secret("mine", &old);
        host.estd(&["keys", "rewrap", "--to", "mine"]).refused("mine holds the present");
        host.write("open", KEY);
        host.set_mode("open", 0o644);
        host.estd(&["keys", "rewrap", "--to", "open"]).refused("chmod 600 open");
        host.sql("UPDATE private_key SET wrapped = request WHERE purpose = 'tls'").await;
        host.estd(&["keys", "rewrap"]).refused("it does not open");
        assert_eq!(host.read(FILE), old);
        host.sql("DELETE FROM server_certificate WHERE purpose = 'tls'").await;
        host.sql("DELETE FROM private_key WHERE purpose = 'tls'").await;
        serves(&host).await.stop().await;
    }

    /// From a file to the environment, and from there to another.
    async fn rewrap_to_a_file_of_the_operators_choice(backend: Backend) {
        let (mut host, _root) = Host::with_factory(backend).await;
        let told = host.estd(&["keys", "rewrap", "--to", "first", "--json"]).json();
        assert_eq!(told, json!({ "rewrapped": 3, "webhook_secrets": 0, "key_file": "first" }));
        assert_eq!(host.file("first").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_refused(&host.estd(&SERVE), "data/key-encryption-key is not the one");
        std::fs::remove_file(host.file(FILE)).unwrap();

        host.environment = vec![("ESTD_KEY_ENCRYPTION_KEY", host.read("first"))];
        serves(&host).await.stop().await;
        host.estd(&["keys", "rewrap"]).refused("comes from ESTD_KEY_ENCRYPTION_KEY: name a file");
        host.write_secret("second", KEY);
        let told = host.estd(&["keys", "rewrap", "--to", "second"]).success();
        assert!(told.contains("Give that key to every server"), "{told}");
        let not_the_one = "in ESTD_KEY_ENCRYPTION_KEY is not the one";
        assert_refused(&host.estd(&SERVE), not_the_one);
        host.environment = vec![("ESTD_KEY_ENCRYPTION_KEY", KEY.to_owned())];
        serves(&host).await.stop().await;
        assert!(!host.file(FILE).exists(), "what comes from the environment goes to no file");
    }
}

/// In their order: the environment, a systemd credential, the data folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_comes_from_the_environment_a_credential_or_the_data_folder() {
    let mut host = Host::new(Backend::Sqlite).await;
    std::fs::create_dir(host.file("credentials")).unwrap();
    host.write("credentials/key-encryption-key", format!("{KEY}\n"));
    let credentials = host.file("credentials").display().to_string();
    host.environment = vec![("CREDENTIALS_DIRECTORY", credentials.clone())];
    host.set_up();
    serves(&host).await.stop().await;
    assert!(!host.file(FILE).exists(), "what comes from a credential goes to no file");

    host.environment = vec![("ESTD_KEY_ENCRYPTION_KEY", KEY.to_owned())];
    serves(&host).await.stop().await;
    assert!(!host.file(FILE).exists());
    host.environment = Vec::new();
    assert_refused(&host.estd(&SERVE), "a key-encryption key that is not in data/");
    host.write_secret(FILE, KEY);
    serves(&host).await.stop().await;

    // What comes first counts, even if it is wrong.
    let another = ("CREDENTIALS_DIRECTORY", credentials);
    host.environment = vec![("ESTD_KEY_ENCRYPTION_KEY", OTHER_KEY.to_owned()), another.clone()];
    assert_refused(&host.estd(&SERVE), "in ESTD_KEY_ENCRYPTION_KEY is not the one");
    host.environment = vec![("ESTD_KEY_ENCRYPTION_KEY", "swordfish".to_owned())];
    let done = host.estd(&SERVE);
    assert_refused(&done, "ESTD_KEY_ENCRYPTION_KEY does not hold a key-encryption key");
    assert!(!done.stderr.contains("swordfish"), "{done:?}");
    host.write("credentials/key-encryption-key", OTHER_KEY);
    host.environment = vec![another];
    assert_refused(&host.estd(&SERVE), "credentials/key-encryption-key is not the one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_others_can_read_is_refused() {
    let (host, _root) = Host::with_factory(Backend::Sqlite).await;
    for mode in [0o640, 0o604] {
        host.set_mode(FILE, mode);
        let what_to_do = format!("(mode {mode:04o}): chmod 600 data/key-encryption-key");
        assert_refused(&host.estd(&SERVE), &what_to_do);
        host.estd(&["keys", "rewrap"]).refused(&what_to_do);
    }
    host.set_mode(FILE, 0o400);
    serves(&host).await.stop().await;
}

/// A server whose keys are open.
async fn serves(host: &Host) -> Process {
    let server = host.serve().await;
    assert_serves(host, &server).await;
    server
}

async fn assert_serves(host: &Host, server: &Process) {
    let root = crate::offline_root::certificate(&host.file("root.pem"));
    let mut wire = server.connect(&root, None).await;
    let cacerts = wire.send(&get_with("/.well-known/est/cacerts", "")).await.unwrap();
    assert_eq!(cacerts.status, 200);
}

fn assert_refused(done: &Done, why: &str) {
    assert!(done.code == Some(1) && done.stderr.contains(why), "{why:?} is not in {done:?}");
    assert!(!done.stderr.contains("estd is up"), "{done:?}");
}
