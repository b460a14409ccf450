//! `estd client` against `estd serve`: cacerts, enroll, reenroll.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use crate::host::{Done, Host};
use crate::offline_root::{OfflineRoot, certificate, openssl};
use crate::on_both_ledgers;
use crate::process::Process;
use crate::support::Backend;

/// A server, and in its folder a device of its factory line: `old.pem` and `old.key`.
struct Field {
    host: Host,
    server: Process,
    line: OfflineRoot,
}

impl Field {
    async fn new(backend: Backend) -> Self {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        line.device("old", "device-1");
        Self { host, server, line }
    }

    /// A request with the device's `FROM.pem` and `.key` for `TO.pem` and `.key`.
    fn enrol(&self, operation: &str, from: &str, to: &str, options: &[&str]) -> Done {
        self.enrol_at(&self.server.est_url(), operation, from, to, options)
    }

    fn enrol_at(&self, url: &str, operation: &str, from: &str, to: &str, options: &[&str]) -> Done {
        let files = [from, to].map(|name| [format!("{name}.pem"), format!("{name}.key")]);
        let [[cert, key], [out, out_key]] = &files;
        let files = ["--cert", cert, "--key", key, "--out", out, "--out-key", out_key];
        let server = ["client", operation, "--server", url, "--root", "root.pem"];
        self.host.estd(&[&server[..], &files, options].concat())
    }

    fn states(&self) -> Vec<String> {
        let show = ["device", "show", "device-1", "--json"];
        let story = self.server.estd(&self.host, &show).json();
        let states = story["credentials"].as_array().unwrap().iter();
        states.map(|one| one["state"].as_str().unwrap().to_owned()).collect()
    }
}

on_both_ledgers! {
    /// E-40: the same request again, when an operator has said yes.
    async fn e_40_a_request_that_waits_is_sent_again(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        host.write("estd.toml", "[est.profile]\napproval = 'manual'\n");
        let (line, server) = host.serve_line(&root).await;
        line.device("old", "device-1");
        let field = Field { host, server, line };
        for _ in 0..2 {
            field.enrol("reenroll", "old", "new", &[]).refused("waits for an operator's approval");
        }
        let held = field.server.estd(&field.host, &["request", "list", "--json"]).json();
        let [one] = held["held_requests"].as_array().unwrap().as_slice() else { panic!("{held}") };
        let id = one["id"].to_string();
        field.server.estd(&field.host, &["request", "approve", &id]).success();
        field.enrol("reenroll", "old", "new", &[]).success();
        assert!(!field.host.file("new.pem.csr").exists());
        field.server.stop().await;
    }

    /// After a definite no there is nothing in the way of the next try.
    async fn a_refused_request_leaves_no_key_behind(backend: Backend) {
        let field = Field::new(backend).await;
        field.enrol("reenroll", "old", "new", &[]).success();
        field.enrol("reenroll", "new", "newer", &[]).success();
        field.enrol("reenroll", "newer", "newest", &[]).success();
        for _ in 0..2 {
            field.enrol("reenroll", "old", "again", &[]).refused("(credential-superseded)");
            assert!(!field.host.file("again.key").exists());
        }
        // A key whose answer was lost is used again: there may be a certificate for it.
        std::fs::rename(field.host.file("newest.pem"), field.host.file("lost.pem")).unwrap();
        let before = field.host.read("newest.key");
        field.enrol("reenroll", "newer", "newest", &[]).success();
        assert_eq!(field.host.read("newest.key"), before);
        field.server.stop().await;
    }

    /// I3, from the device's side: each certificate is confirmed by the request made with it.
    async fn i3_reenroll_again_and_again(backend: Backend) {
        let field = Field::new(backend).await;
        let told = field.enrol("reenroll", "old", "new", &[]).success();
        assert!(told.starts_with("OU=factory,CN=device-1 until 20"), "{told}");
        assert_eq!(field.states(), ["current", "pending"]);
        field.enrol("reenroll", "new", "newer", &["--bind"]).success();
        assert_eq!(field.states(), ["superseded", "current", "pending"]);
        field.enrol("enroll", "newer", "newest", &[]).success();
        assert_eq!(field.states(), ["superseded", "superseded", "current", "pending"]);

        // What came back fits its key, chains to the root, and says what the old one said.
        let verify = ["verify", "-CAfile", "root.pem", "-untrusted", "device-ca.pem", "newest.pem"];
        openssl(field.host.path(), &verify);
        let public = openssl(field.host.path(), &["pkey", "-in", "newest.key", "-pubout"]);
        let certified = ["x509", "-in", "newest.pem", "-noout", "-pubkey"];
        assert_eq!(public, openssl(field.host.path(), &certified));
        let read = |name: &str| certificate(&field.host.file(name));
        assert_eq!(read("newest.pem").subject(), read("old.pem").subject());
        let mode = field.host.file("newest.key").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        field.server.stop().await;
    }

    async fn refusals_reach_whoever_asked(backend: Backend) {
        let field = Field::new(backend).await;
        field.enrol("reenroll", "old", "new", &[]).success();
        field.line.device("forged", "device-1");
        let forged = field.enrol("reenroll", "forged", "none", &[]);
        forged.refused("the server answered 403: the device is known");
        let label = format!("{}/.well-known/est/unheard-of", field.server.est_url());
        let unknown = field.enrol_at(&label, "reenroll", "old", "nothing", &[]);
        unknown.refused("the server answered 404: no enrolment profile has this label");
        assert!(!field.host.file("none.pem").exists() && !field.host.file("nothing.pem").exists());
        assert_eq!(field.states(), ["current", "pending"]);
        field.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_29_cacerts_prints_the_root_and_the_device_cas() {
    let field = Field::new(Backend::Sqlite).await;
    let url = field.server.est_url();
    let cacerts = ["client", "cacerts", "--server", &url, "--root", "root.pem"];
    let files = ["root.pem", "device-ca.pem", "line.pem"];
    let expected: BTreeSet<String> = files.map(|name| field.host.read(name)).into();
    let printed = field.host.estd(&cacerts).success();
    let blocks = printed.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned);
    assert_eq!(blocks.collect::<BTreeSet<_>>(), expected);
    let json = field.host.estd(&[&cacerts[..], &["--json"]].concat()).json();
    let blocks = json["certificates"].as_array().unwrap().iter();
    let blocks = blocks.map(|one| one.as_str().unwrap().to_owned());
    assert_eq!(blocks.collect::<BTreeSet<_>>(), expected);
    field.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h_13_the_client_takes_either_answer_style_and_tells_json() {
    let field = Field::new(Backend::Sqlite).await;
    let label = format!("{}/.well-known/est/fioconfig", field.server.est_url());
    let told = field.enrol_at(&label, "reenroll", "old", "new", &["--json"]).json();
    let new = certificate(&field.host.file("new.pem"));
    assert_eq!(told["serial"], new.serial().to_string());
    assert_eq!(told["sha256"], new.fingerprint().to_string());
    assert_eq!(told["subject"], "OU=factory,CN=device-1");
    field.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_trusts_the_root_alone_and_overwrites_no_key() {
    let field = Field::new(Backend::Sqlite).await;
    OfflineRoot::new(field.host.path(), "other", "/CN=other");
    let url = field.server.est_url();
    let cacerts = |url: &str, root: &str| {
        field.host.estd(&["client", "cacerts", "--server", url, "--root", root])
    };
    cacerts(&url, "other.pem").refused("UnknownIssuer");
    cacerts(&url.replace("localhost", "127.0.0.1"), "root.pem").refused("not valid for name");
    cacerts("http://localhost", "root.pem").refused("it must begin with https://");
    cacerts(&url, "root.key").refused("there is no certificate in it");
    cacerts(&url, "absent.pem").refused("absent.pem: No such file");

    field.host.write("new.key", "mine");
    field
        .enrol("reenroll", "old", "new", &[])
        .refused("new.key: there is no private key in PEM in it");
    assert_eq!(field.host.read("new.key"), "mine");
    field.host.write("bad.pem", field.host.read("old.pem"));
    field.host.write("bad.key", "no key");
    field.enrol("reenroll", "bad", "none", &[]).refused("bad.key");
    field.host.write("bad.key", field.host.read("root.key"));
    field.enrol("reenroll", "bad", "none", &[]).refused("TLS: ");
    assert!(!field.host.file("none.key").exists());
    field.server.stop().await;
}
