//! The key-encryption key: where it comes from.

use crate::host::{Done, Host};
use crate::process::{Process, SERVE};
use crate::support::Backend;
use crate::support::wire::get_with;

const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const OTHER_KEY: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";
const FILE: &str = "data/key-encryption-key";

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
