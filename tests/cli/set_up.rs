//! The way from nothing to a Factory: `factory csr`, an offline root, `factory install`; and
//! `factory init`, which is all of it for development.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::host::{CSR, Done, Host, SIGNED};
use crate::offline_root::{OfflineRoot, certificate, openssl};
use crate::on_both_ledgers;
use crate::support::Backend;

const INIT: [&str; 6] = ["factory", "init", "--name", "factory", "--est-host", "localhost"];

on_both_ledgers! {
    async fn factory_csr_run_twice_gives_the_same_requests(backend: Backend) {
        let host = Host::new(backend).await;
        host.estd(&[&CSR[..], &["--out", "one"]].concat()).success();
        host.estd(&[&CSR[..], &["--out", "two"]].concat()).success();
        for name in SIGNED {
            let request = host.read(&format!("one/{name}.csr"));
            assert_eq!(request, host.read(&format!("two/{name}.csr")));
            assert_eq!(request.matches("-----BEGIN").count(), 1, "{request}");
            assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{request}");
            assert!(request.ends_with("-----END CERTIFICATE REQUEST-----\n"), "{request}");
            let file = format!("one/{name}.csr");
            openssl(host.path(), &["req", "-verify", "-noout", "-in", &file]);
        }
    }

    async fn factory_install_takes_files_in_any_order(backend: Backend) {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let host = Host::new(backend).await;
            host.request_and_sign();
            let all = ["root.pem", "est-tls.pem", "tls.pem", "device-ca.pem"];
            let files = order.map(|index: usize| all[index]);
            let told = host.estd(&[&["factory", "install"], &files[..]].concat()).success();
            assert!(told.starts_with("Installed: 4 of 4\nNothing is missing"), "{told}");
        }
    }

    /// Chain files bring the root several times, and an installation may be done again.
    async fn factory_install_passes_over_what_it_has(backend: Backend) {
        let host = Host::new(backend).await;
        host.request_and_sign();
        for name in ["est-tls.pem", "tls.pem"] {
            host.write(name, host.read(name) + &host.read("root.pem"));
        }
        let all = ["root.pem", "est-tls.pem", "tls.pem", "device-ca.pem"];
        let install = || host.estd(&[&["factory", "install"], &all[..]].concat()).success();
        assert!(install().starts_with("Installed: 4 of 6\nNothing is missing"));
        assert!(install().starts_with("Installed: 0 of 6\nNothing is missing"));
    }

    async fn factory_install_takes_files_one_by_one(backend: Backend) {
        let host = Host::new(backend).await;
        host.request_and_sign();
        let install = |file: &str| host.estd(&["factory", "install", file]).success();
        assert!(install("root.pem").contains("waiting for the root: device-ca, est-tls, tls\n"));
        assert!(install("device-ca.pem").contains("waiting for the root: est-tls, tls\n"));
        assert!(install("tls.pem").contains("waiting for the root: est-tls\n"));
        assert!(install("est-tls.pem").contains("Nothing is missing"));
    }

    /// Whatever a root makes of the subjects: the key tells which certificate is whose.
    async fn factory_install_matches_certificates_by_their_keys(backend: Backend) {
        let host = Host::new(backend).await;
        let root = host.request_and_sign();
        root.sign("est-tls.csr", "est-tls.pem", &["-subj", "/O=Somebody/CN=else"]);
        root.sign_by_ca("tls.csr", "tls.pem", &[]);
        root.sign_by_ca("device-ca.csr", "device-ca.pem", &[]);
        let asked = openssl(host.path(), &["req", "-in", "tls.csr", "-noout", "-subject"]);
        assert_eq!(asked, "subject=CN = localhost, OU = factory\n");
        let signed = openssl(host.path(), &["x509", "-in", "tls.pem", "-noout", "-subject"]);
        assert_eq!(signed, "subject=OU = factory, CN = localhost\n");
        let files = ["root.pem", "device-ca.pem", "est-tls.pem", "tls.pem"];
        let told = host.estd(&[&["factory", "install"], &files[..]].concat()).success();
        assert!(told.contains("Nothing is missing"), "{told}");
    }

    async fn factory_install_takes_serials_of_21_bytes(backend: Backend) {
        let host = Host::new(backend).await;
        host.estd(&CSR).success();
        let serial = format!("0x{}", "f".repeat(40));
        let long = ["-set_serial", &serial];
        let root = OfflineRoot::with(host.path(), "root", "/CN=Factory-CA", &long);
        for name in SIGNED {
            root.sign(&format!("{name}.csr"), &format!("{name}.pem"), &long);
            let signed = certificate(&host.file(&format!("{name}.pem")));
            assert_eq!(signed.serial().contents().len(), 21);
        }
        let files = ["root.pem", "est-tls.pem", "tls.pem", "device-ca.pem"];
        host.estd(&[&["factory", "install"], &files[..]].concat()).success();

        let server = host.serve().await;
        // Device CAs are told apart by it.
        let another = format!("0x{}e", "f".repeat(39));
        root.device_ca("line", &["-set_serial", &another]);
        server.estd(&host, &["device-ca", "add", "line.pem"]).success();
        let all = server.estd(&host, &["--json", "device-ca", "list"]).json();
        for ca in all["device_cas"].as_array().unwrap() {
            assert!(ca["serial"].as_str().unwrap().starts_with(&"f".repeat(39)), "{ca}");
        }
        assert_eq!(all["device_cas"].as_array().unwrap().len(), 2);
        server.stop().await;
    }

    async fn factory_csr_is_refused_once_the_root_is_set(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        host.estd(&CSR).refused("the Factory factory is set up already: `--only est-tls,tls` requests new server");
    }

    async fn factory_init_makes_a_second_factory_of_no_name_twice(backend: Backend) {
        let host = Host::new(backend).await;
        host.estd(&INIT).success();
        let again = [&INIT[..], &["--root-key", "2.key", "--root", "2.pem"]].concat();
        host.estd(&again).refused("there is a Factory of this name already");
        let same_host = ["factory", "init", "--name", "other", "--est-host", "LOCALHOST"];
        let same_host = [&same_host[..], &["--root-key", "2.key", "--root", "2.pem"]].concat();
        host.estd(&same_host).refused("another Factory has this EST host");
        assert!(!host.file("2.key").exists() && !host.file("2.pem").exists());
        let ledger = host.ledger().await;
        assert_eq!(ledger.factories().await.unwrap().len(), 1);
        ledger.close().await;
    }

    async fn factory_init_makes_all_that_serve_needs(backend: Backend) {
        let host = Host::new(backend).await;
        host.estd(&INIT).success();
        let server = host.serve().await;
        assert_eq!(server.get("/readyz").status, 200);
        let verify = ["verify", "-CAfile", "root.pem", "root.pem"];
        openssl(host.path(), &verify);
        let key = openssl(host.path(), &["pkey", "-in", "root.key", "-pubout"]);
        assert_eq!(key, openssl(host.path(), &["x509", "-in", "root.pem", "-noout", "-pubkey"]));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn factory_init_overwrites_no_file() {
    for name in ["root.key", "root.pem"] {
        let host = Host::new(Backend::Sqlite).await;
        host.write(name, "mine");
        host.estd(&INIT).refused(&format!("{name} is there already and is not overwritten"));
        assert_eq!(host.read(name), "mine");
        assert!(!host.file("data").exists(), "nothing else was done");
    }
}

/// The root's key is nowhere else: it is on disk before anything depends on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn factory_init_makes_nothing_without_a_place_for_the_root() {
    let host = Host::new(Backend::Sqlite).await;
    for flag in ["--root-key", "--root"] {
        host.estd(&[&INIT[..], &[flag, "missing/root"]].concat()).refused("missing/root");
        assert!(!host.file("root.key").exists() && !host.file("root.pem").exists());
    }
    host.estd(&INIT).success();
}

/// Whatever the umask: this one would leave everything open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_their_owners_alone() {
    let host = Host::new(Backend::Sqlite).await;
    open_to_all(&host, &INIT).success();
    let serve = "umask 0; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.current_dir(host.path()).env_clear();
    command.args(["-c", serve, env!("CARGO_BIN_EXE_estd"), "--data-dir", "data"]);
    command.args(["--ledger-url", &host.ledger_url]).args(crate::process::SERVE);
    crate::process::Process::spawn(&host, command).await.stop().await;

    let mode = |name: &str| host.file(name).metadata().unwrap().permissions().mode() & 0o777;
    for secret in ["root.key", "data/key-encryption-key", "data/admin-token"] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }
    assert_eq!(mode("data"), 0o700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn factory_names_that_cannot_be_used_are_refused() {
    let host = Host::new(Backend::Sqlite).await;
    let cases = [
        ("", "localhost", "--name"),
        ("a factory", "localhost", "--name"),
        ("f/../f", "localhost", "--name"),
        ("factory", "", "--est-host"),
        ("factory", "localhost:8443", "--est-host"),
        ("factory", "https://localhost", "--est-host"),
        ("factory", "est_host", "--est-host"),
    ];
    for (name, est_host, flag) in cases {
        for command in ["csr", "init"] {
            let arguments = ["factory", command, "--name", name, "--est-host", est_host];
            host.estd(&arguments).refused(flag);
        }
    }
    let ledger = host.ledger().await;
    assert!(ledger.factories().await.unwrap().is_empty());
    ledger.close().await;
}

fn open_to_all(host: &Host, arguments: &[&str]) -> Done {
    let mut command = Command::new("sh");
    command.current_dir(host.path()).env_clear();
    command.args(["-c", "umask 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_estd")]);
    command.args(["--data-dir", "data", "--ledger-url", &host.ledger_url]).args(arguments);
    Done::of(command)
}
