//! Configuration by file, environment and flags; `serve --check`; what keeps a server from
//! starting.

use std::process::Command;

use crate::host::{Done, Host};
use crate::on_both_ledgers;
use crate::process::{Process, SERVE};
use crate::support::Backend;

/// A key-encryption key of some other ledger.
const ANOTHER_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n";
const SECOND_FACTORY: [&str; 6] =
    ["factory", "csr", "--name", "second", "--est-host", "second.example"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_needs_no_configuration() {
    let host = Host::new(Backend::Sqlite).await;
    let mut command = host.bare_command();
    command.args(SERVE);
    let server = Process::spawn(&host, command).await;
    assert_eq!(server.get("/healthz").body, "ok\n");
    for file in ["ledger.sqlite", "key-encryption-key", "admin-token"] {
        assert!(host.file("estd-data").join(file).exists(), "{file}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_every_wrong_key() {
    let host = Host::new(Backend::Sqlite).await;
    let wrong = "
        [ledger]
        url = 'mysql://user:swordfish@db/estd'
        [est]
        listen = 'localhost'
        registration_authorities = ['abc']
        [est.profile]
        validity_days = 100000
        [est.labels.simpleenroll]
        [est.labels.'a/b']
        [est.labels.fast]
        validity_days = 0
        keys = []
        [api]
        listen = '127.0.0.1:99999'
        [log]
        filter = 'a=b=c'
    ";
    let keys = [
        "ledger.url: must begin with sqlite: or postgres:",
        "est.listen: \"localhost\" is not ADDRESS:PORT",
        "est.registration_authorities: \"abc\" is not",
        "est.profile.validity_days: must be 1 to",
        "est.labels.simpleenroll: ",
        "est.labels.a/b: ",
        "est.labels.fast.validity_days: must be 1 to",
        "est.labels.fast.keys: must name at least one",
        "api.listen: \"127.0.0.1:99999\" is not",
        "log.filter: ",
    ];
    for key in keys {
        check(&host, wrong).refused(&format!("\n  {key}"));
    }
    let done = check(&host, wrong);
    assert_eq!(done.stderr.lines().count(), keys.len() + 1, "{done:?}");
    assert!(!done.stderr.contains("swordfish"), "{done:?}");
}

/// E-05, for every operation, the ones not offered too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_05_a_label_named_like_an_operation_is_refused() {
    let host = Host::new(Backend::Sqlite).await;
    let operations =
        ["cacerts", "simpleenroll", "simplereenroll", "csrattrs", "serverkeygen", "fullcmc"];
    for name in operations {
        let refusal = format!("est.labels.{name}: ");
        check(&host, &format!("[est.labels.{name}]")).refused(&refusal);
        check(&host, &format!("[est.labels.{name}]")).refused("an operation has that name");
    }
    check(&host, "[est.labels.cacerts2]").success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_configuration_is_refused_by_key_and_file() {
    let host = Host::new(Backend::Sqlite).await;
    let cases = [
        ("datadir = 'x'", "unknown field `datadir`"),
        ("[est]\nlisen = '0.0.0.0:1'", "unknown field `lisen`"),
        ("[estt]\n", "unknown field `estt`"),
        ("[est.labels.x]\nvalidity = 1", "unknown field `validity`"),
        ("[est]\nlisten = 8443", "listen"),
        ("[est.profile]\nkeys = ['dsa']", "unknown variant `dsa`"),
        ("[est.profile]\nanswer = 'x'", "unknown variant `x`"),
        ("[log]\nformat = 'xml'", "unknown variant `xml`"),
        ("[est", "estd.toml"),
    ];
    for (toml, reason) in cases {
        println!("{toml}");
        check(&host, toml).refused("estd: the configuration file estd.toml: ");
        check(&host, toml).refused(reason);
    }
    let broken = check(&host, "[ledger]\nurl = 'postgres://estd:secret@db/estd' x");
    assert!(broken.stderr.contains("line 2, url: ") && !broken.stderr.contains("secret"));
    let absent = host.estd(&["--config", "absent.toml", "serve", "--check"]);
    absent.refused("the configuration file absent.toml: No such file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_to_is_named() {
    let host = Host::new(Backend::Sqlite).await;
    host.write("file", "");
    for folder in ["file", "file/out"] {
        let toml = format!("[export]\nfolder = '{folder}'");
        check(&host, &toml).refused(&format!("export.folder: {folder}: "));
    }
    let told = check(&host, "[export]\nfolder = 'out/for/nginx'").success();
    assert!(told.contains("export.folder  out/for/nginx\n"), "{told}");
    assert!(!host.file("out").exists(), "a check makes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let host = Host::new(Backend::Sqlite).await;
    host.write(
        "estd.toml",
        "data_dir = 'f'\n[est]\nlisten = '1.1.1.1:1'\n[api]\nlisten = '1.1.1.1:1'",
    );
    host.write("other.toml", "[est.labels.mine]");
    let checked = |environment: &[(&str, &str)], flags: &[&str]| {
        let mut command = host.bare_command();
        command.args(["serve", "--check"]).args(flags).envs(environment.iter().copied());
        Done::of(command).success()
    };
    let told = checked(&[], &[]);
    assert!(told.contains("data_dir    f\n") && told.contains("est.listen  1.1.1.1:1\n"), "{told}");
    let environment = [("ESTD_DATA_DIR", "e"), ("ESTD_EST_LISTEN", "2.2.2.2:2")];
    let told = checked(&environment, &[]);
    assert!(told.contains("data_dir    e\n") && told.contains("est.listen  2.2.2.2:2\n"), "{told}");
    assert!(told.contains("api.listen  1.1.1.1:1\n"), "{told}");
    let told = checked(&environment, &["--est-listen", "3.3.3.3:3"]);
    assert!(told.contains("data_dir    e\n") && told.contains("est.listen  3.3.3.3:3\n"), "{told}");
    let told = checked(&[("ESTD_CONFIG", "other.toml")], &[]);
    assert!(told.contains("mine") && told.contains("data_dir    ./estd-data\n"), "{told}");
    assert!(!host.file("f").exists() && !host.file("e").exists(), "a check makes nothing");
}

on_both_ledgers! {
    /// Never half a server: one that cannot open its keys does not start.
    async fn another_key_encryption_key_is_refused_at_the_start(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        std::fs::rename(host.file("data/key-encryption-key"), host.file("kept")).unwrap();
        let refused = |why: &str| {
            for command in [&SERVE[..], &SECOND_FACTORY[..]] {
                let done = host.estd(command);
                assert!(!done.stderr.contains("estd is up"), "{done:?}");
                assert!(done.code == Some(1) && done.stderr.contains(why), "{done:?}");
            }
        };
        refused("under a key-encryption key that is not in data/key-encryption-key");
        assert!(!host.file("data/key-encryption-key").exists(), "no other key is made");
        host.write_secret("data/key-encryption-key", ANOTHER_KEY);
        refused("data/key-encryption-key is not the one");

        std::fs::rename(host.file("kept"), host.file("data/key-encryption-key")).unwrap();
        host.serve().await.stop().await;
    }

    async fn a_key_encryption_key_that_is_none_is_refused(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        for contents in ["", "c2hvcnQ=\n", "no base64 at all\n"] {
            host.write("data/key-encryption-key", contents);
            let done = host.estd(&SERVE);
            let why = "data/key-encryption-key does not hold a key-encryption key";
            assert!(done.code == Some(1) && done.stderr.contains(why), "{done:?}");
            assert_eq!(host.read("data/key-encryption-key"), contents);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_cannot_be_had_is_named() {
    let host = Host::new(Backend::Sqlite).await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (est, api, key) in [(&*taken, "127.0.0.1:0", "est"), ("127.0.0.1:0", &*taken, "api")] {
        let done = host.estd(&["serve", "--est-listen", est, "--api-listen", api]);
        assert_eq!(done.code, Some(1), "{done:?}");
        let named = format!("estd: {key}.listen: {taken}: Address already in use");
        assert!(done.stderr.contains(&named), "{done:?}");
    }
}

/// `serve --check` with this as `estd.toml`.
fn check(host: &Host, toml: &str) -> Done {
    host.write("estd.toml", toml);
    let mut command: Command = host.bare_command();
    command.args(["serve", "--check"]);
    Done::of(command)
}
