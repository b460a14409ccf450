//! What an operator asks a running server, as text and as JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::host::{Done, Host};
use crate::offline_root::{OfflineRoot, openssl};
use crate::on_both_ledgers;
use crate::process::Process;
use crate::support::Device;
use crate::support::wire::{get_with, post};

/// Names as devices may bear them, and as openssl wants them written.
const ODD_NAMES: [(&str, &str); 8] = [
    ("a/b", "a\\/b"),
    ("..", ".."),
    ("100% of it?x=1&y#z", "100% of it?x=1&y#z"),
    ("%2e%2E", "%2e%2E"),
    ("Gerät 7 \u{1f980}", "Gerät 7 \u{1f980}"),
    ("'; DROP TABLE device; --", "'; DROP TABLE device; --"),
    ("\"a\\b\"", "\"a\\\\b\""),
    ("+a b", "\\+a b"),
];

on_both_ledgers! {
    async fn factory_show_tells_what_there_is_and_what_is_missing(backend: Backend) {
        let host = Host::new(backend).await;
        let server = host.serve().await;
        let none = server.estd(&host, &["factory", "show"]).success();
        assert_eq!(none, "There is no Factory yet: `estd factory init` or `csr` makes one.\n");
        let none = server.estd(&host, &["--json", "factory", "show"]).json();
        assert_eq!(none, json!({ "factories": [] }));

        let root = host.request_and_sign();
        let install = ["factory", "install", "root.pem", "est-tls.pem", "device-ca.pem"];
        host.estd(&install).success();
        server.follows(&host).await;
        let text = server.estd(&host, &["factory", "show"]).success();
        let first = "Factory factory, EST host localhost";
        let kinds = [first, "CERTIFICATE", "root", "est-tls", "tls", "device-ca"];
        assert_eq!(text.lines().count(), kinds.len(), "{text}");
        for (line, kind) in text.lines().zip(kinds) {
            assert!(line.starts_with(kind), "{text}");
        }
        let line = |kind: &str| text.lines().find(|line| line.starts_with(kind)).unwrap();
        assert!(line("tls").ends_with("missing") && line("device-ca").ends_with("enabled"));
        let serial = root.certificate().serial().to_string();
        assert!(line("root").contains(&serial) && line("root").contains("P-256"), "{text}");

        let all = server.estd(&host, &["factory", "show", "--json"]).json();
        let factory = &all["factories"][0];
        assert_eq!(factory["root"]["serial"], json!(serial));
        assert_eq!(factory["tls"], Value::Null);
        assert_eq!(factory["device_cas"][0]["kind"], "online");
        server.stop().await;
    }

    async fn device_ca_add_takes_a_local_one(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        root.device_ca("line", &[]);
        let text = server.estd(&host, &["device-ca", "add", "line.pem"]).success();
        assert_eq!(text, server.estd(&host, &["device-ca", "list"]).success());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("SUBJECT") && lines[0].ends_with("STATE"), "{text}");
        assert!(lines[1].contains(" online ") && lines[2].contains(" local "), "{text}");
        assert!(lines[2].contains("CN=line") && lines[2].ends_with("enabled"), "{text}");

        let add = |file: &str| server.estd(&host, &["device-ca", "add", file]);
        add("line.pem").refused("has that certificate already");
        add("root.pem").refused("has that certificate already");
        add("tls.csr").refused("there is no certificate in it");
        add("absent.pem").refused("absent.pem: No such file");
        OfflineRoot::new(host.path(), "other", "/CN=other").device_ca("stranger", &[]);
        add("other.pem").refused("it is not signed by the Factory's root");
        add("stranger.pem").refused("it is not signed by the Factory's root");
        root.sign("line.csr", "leaf.pem", &[]);
        add("leaf.pem").refused("it is not a CA certificate");
        server.estd(&host, &["device-ca", "add"]).refused("name a certificate, or --online");
        assert_eq!(text, server.estd(&host, &["device-ca", "list"]).success());
        server.stop().await;
    }

    /// Two Device CAs of one subject, as one user's tools make them, are two.
    async fn device_ca_add_tells_cas_apart_by_key(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        for _ in 0..2 {
            root.device_ca("line", &[]);
            server.estd(&host, &["device-ca", "add", "line.pem"]).success();
        }
        let all = server.estd(&host, &["device-ca", "list", "--json"]).json();
        let all = all["device_cas"].as_array().unwrap();
        let keys: BTreeSet<_> = all.iter().map(|ca| ca["public_key_sha256"].to_string()).collect();
        assert_eq!((all.len(), keys.len()), (3, 3));
        server.stop().await;
    }

    async fn device_ca_add_online_makes_the_one_that_issues(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        let device = line.device("device", "device-1");
        let first = rotate(&server, &root, &device).await;

        let csr = server.estd(&host, &["device-ca", "add", "--online"]).success();
        assert_eq!(csr.matches("-----BEGIN CERTIFICATE REQUEST-----").count(), 1, "{csr}");
        let again = server.estd(&host, &["device-ca", "add", "--online", "--json"]).json();
        assert_eq!(again["csr"].as_str().unwrap().trim_end(), csr.trim_end());
        host.write("next.csr", csr);
        root.sign("next.csr", "next.pem", &["-subj", "/CN=the next one"]);
        let text = server.estd(&host, &["device-ca", "add", "next.pem"]).success();
        let line = text.lines().find(|line| line.starts_with("CN=the next one")).unwrap();
        assert!(line.contains(" online ") && line.ends_with("enabled"), "{text}");
        server.follows(&host).await;

        let second = rotate(&server, &root, &device).await;
        let issuer = first.certificate.issuer().common_name().unwrap();
        assert!(issuer.starts_with("factory online Device CA "), "{issuer}");
        assert_eq!(second.certificate.issuer().to_string(), "CN=the next one");
        server.stop().await;
    }

    async fn device_list_and_show_tell_a_devices_story(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        let device = line.device("device", "device-1");
        let new = rotate(&server, &root, &device).await;
        let states = || {
            let story = server.estd(&host, &["device", "show", "device-1", "--json"]).json();
            let all = story["credentials"].as_array().unwrap().iter();
            all.map(|one| one["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(states(), ["current", "pending"]);
        let list = server.estd(&host, &["device", "list"]).success();
        let columns = ["DEVICE", "DEVICE", "CA", "UNTIL", "PENDING", "LAST", "SEEN"];
        assert_eq!(words(&list, 0), columns, "{list}");
        assert_eq!(words(&list, 1)[..2], ["device-1", "OU=factory,CN=line"], "{list}");
        assert_eq!(words(&list, 1)[3], "1", "{list}");

        session(&server, &root, &new).await;
        assert_eq!(states(), ["superseded", "current"]);
        let show = server.estd(&host, &["device", "show", "device-1"]).success();
        assert!(show.starts_with("Device      device-1\nRegistered  20"), "{show}");
        assert!(words(&show, 4)[0] == "superseded" && words(&show, 5)[0] == "current", "{show}");
        assert!(show.contains(&new.certificate.serial().to_string()), "{show}");
        let list = server.estd(&host, &["device", "list", "--json"]).json();
        assert_eq!(list["devices"][0]["name"], "device-1");
        assert_eq!(list["devices"][0]["pending"], 0);
        let missing = ["device", "show", "device-2"];
        server.estd(&host, &missing).refused("there is no such device");
        server.stop().await;
    }

    /// I7: the way out of an alarm, once.
    async fn i7_device_allow_lets_a_device_come_back_once(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        let old = line.device("device", "device-1");
        let new = rotate(&server, &root, &old).await;
        session(&server, &root, &new).await;
        assert_eq!(reenroll(&server, &root, &old).await, 403);

        let told = server.estd(&host, &["device", "allow", "device-1"]).success();
        assert!(told.contains("may come back once"), "{told}");
        let show = server.estd(&host, &["device", "show", "device-1"]).success();
        assert!(show.contains("May come back once"), "{show}");
        let told = server.estd(&host, &["device", "allow", "device-1", "--json"]).json();
        assert_eq!(told, json!({ "device": "device-1", "allowed_once": true }));
        assert_eq!(reenroll(&server, &root, &old).await, 200);
        let show = server.estd(&host, &["device", "show", "device-1", "--json"]).json();
        assert_eq!(show["allowed_once"], false);
        let stranger = ["device", "allow", "device-2"];
        server.estd(&host, &stranger).refused("there is no such device");
        server.stop().await;
    }

    /// Whatever certificate it has, until it is allowed back.
    async fn device_deny_refuses_a_device_from_now_on(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        let device = line.device("device", "device-1");
        session(&server, &root, &device).await;
        let show = || server.estd(&host, &["device", "show", "device-1"]).success();
        assert!(!show().contains("Denied"));

        let deny = ["device", "deny", "device-1"];
        let told = server.estd(&host, &deny).success();
        assert!(told.contains("`estd device allow device-1` lets it back"), "{told}");
        let told = server.estd(&host, &[&deny[..], &["--json"]].concat()).json();
        assert_eq!(told, json!({ "device": "device-1", "denied": true }));
        assert!(show().contains("\nDenied      20"), "{}", show());
        assert_eq!(reenroll(&server, &root, &device).await, 403);

        server.estd(&host, &["device", "allow", "device-1"]).success();
        assert_eq!(reenroll(&server, &root, &device).await, 200);
        assert!(!show().contains("Denied"));
        server.estd(&host, &["device", "deny", "device-2"]).refused("there is no such device");
        server.stop().await;
    }

    async fn devices_of_odd_names_are_shown_and_allowed(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        for (name, written) in ODD_NAMES {
            session(&server, &root, &line.device("odd", written)).await;
            let show = server.estd(&host, &["device", "show", "--json", name]).json();
            assert_eq!(show["name"], name);
            let allow = server.estd(&host, &["device", "allow", "--json", name]).json();
            assert_eq!(allow["device"], name);
            let text = server.estd(&host, &["device", "show", name]).success();
            assert!(text.starts_with(&format!("Device      {name}\n")), "{text}");
        }
        let list = server.estd(&host, &["device", "list", "--json"]).json();
        let names = list["devices"].as_array().unwrap().iter();
        let names: BTreeSet<_> = names.map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ODD_NAMES.iter().map(|(name, _)| *name).collect());
        server.stop().await;
    }

    /// I10: an edit is found, and the exit code says so.
    async fn i10_audit_verify_finds_an_edit(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let rows = server.estd(&host, &["audit", "list", "--json"]).json();
        let count = rows["rows"].as_array().unwrap().len();
        let list = server.estd(&host, &["audit", "list"]).success();
        assert_eq!(words(&list, 0)[..4], ["NUMBER", "AT", "ACTOR", "ACTION"], "{list}");
        assert_eq!(list.lines().count(), count + 1, "{list}");
        let page = ["audit", "list", "--limit", "2", "--before", "4", "--json"];
        let page = server.estd(&host, &page).json();
        let numbers = page["rows"].as_array().unwrap().iter().map(|row| &row["number"]);
        assert_eq!(numbers.collect::<Vec<_>>(), [&json!(3), &json!(2)]);

        let verify = server.estd(&host, &["audit", "verify"]).success();
        assert_eq!(verify, format!("Intact: {count} rows\n"));
        let verify = server.estd(&host, &["audit", "verify", "--json"]).json();
        assert_eq!(verify, json!({ "intact": true, "rows": count, "fault": null }));

        host.sql("UPDATE audit SET subject = 'somebody else' WHERE number = 3").await;
        let Done { code, stdout, .. } = server.estd(&host, &["audit", "verify"]);
        let fault = "row 3 of the audit log was changed, or one before it was removed";
        assert_eq!((code, stdout), (Some(1), format!("NOT INTACT: {fault}\n")));
        let Done { code, stdout, .. } = server.estd(&host, &["audit", "verify", "--json"]);
        let told: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, told["fault"].as_str()), (Some(1), Some(fault)));
        server.stop().await;
    }

    async fn where_there_are_several_factories_one_is_named(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let init = ["factory", "init", "--name", "two", "--est-host", "two.example"];
        host.estd(&[&init[..], &["--root-key", "2.key", "--root", "2.pem"]].concat()).success();
        let server = host.serve().await;
        let list = ["device-ca", "list"];
        server.estd(&host, &list).refused("there are several Factories: name one");
        let of = |name: &'static str| [&["--factory", name], &list[..]].concat();
        let two = server.estd(&host, &of("two")).success();
        assert!(two.contains("CN=two online Device CA") && two.lines().count() == 2, "{two}");
        server.estd(&host, &of("three")).refused("there is no such Factory");
        assert!(server.estd(&host, &["factory", "show"]).success().contains("Factory two"));
        server.stop().await;
    }
}

/// A connection of its own as this device.
pub async fn session(server: &Process, root: &OfflineRoot, device: &Device) {
    let mut wire = server.connect(&root.certificate(), Some(device)).await;
    let answer = wire.send(&get_with("/.well-known/est/cacerts", "")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

pub async fn rotate(server: &Process, root: &OfflineRoot, device: &Device) -> Device {
    let (key, body) = device.request();
    let mut wire = server.connect(&root.certificate(), Some(device)).await;
    let answer = wire.send(&post("/.well-known/est/simplereenroll", &body)).await.unwrap();
    Device::switched(answer.certificate(), key)
}

/// Asks for a new certificate; gives the status.
pub async fn reenroll(server: &Process, root: &OfflineRoot, device: &Device) -> u16 {
    let (_, body) = device.request();
    let mut wire = server.connect(&root.certificate(), Some(device)).await;
    wire.send(&post("/.well-known/est/simplereenroll", &body)).await.unwrap().status
}

/// The words of one line.
fn words(text: &str, line: usize) -> Vec<&str> {
    text.lines().nth(line).unwrap().split_whitespace().collect()
}

/// What openssl makes of an odd name is that name.
#[test]
fn odd_names_are_written_as_openssl_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = OfflineRoot::new(folder.path(), "root", "/CN=root");
    for (name, written) in ODD_NAMES {
        let device = root.device("odd", written);
        assert_eq!(device.certificate.subject().common_name().as_deref(), Some(name));
    }
    let text = openssl(folder.path(), &["x509", "-in", "odd.pem", "-noout", "-subject"]);
    assert!(text.contains("OU = factory"), "{text}");
}
