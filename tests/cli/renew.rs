//! `estd client renew`: when it renews, and that no power cut leaves a device without a pair.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::factory::Authority;
use estd::keys::SigningKey;
use estd::model::{FactoryName, HostName, RenewalWindow};
use estd::pki::{
    Certificate, Extension, Serial, Template, Validity, certs_only, to_est_text, to_pem,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::host::Done;
use crate::offline_root::certificate;
use crate::on_both_ledgers;
use crate::process::eventually;
use crate::support::device::name;
use crate::support::{Backend, Device, FACTORY, HOST, TestServer, provider};

const DAY: i64 = 24 * 3600;
/// Nobody listens there.
const NOWHERE: &str = "https://localhost:1";

/// A device's folder, with its pair in `c` and `k`, and the root that it trusts.
struct Field {
    folder: TempDir,
    url: String,
}

impl Field {
    fn new(server: &TestServer, device: &Device) -> Self {
        Self::at(&server.url(), &server.root, device)
    }

    fn at(url: &str, root: &Authority, device: &Device) -> Self {
        let field = Self { folder: tempfile::tempdir().unwrap(), url: url.to_owned() };
        field.write("root.pem", &pem(root.certificate()));
        field.put("c", "k", device);
        field
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    fn put(&self, certificate: &str, key: &str, device: &Device) {
        self.write(certificate, &pem(&device.certificate));
        self.write(key, &device.key.to_pem().unwrap());
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estd"));
        command.current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/bin:/bin").args(["client", "renew", "--server", &self.url]);
        command.args(["--root", "root.pem", "--cert", "c", "--key", "k"]).args(options);
        command
    }

    fn renew(&self, options: &[&str]) -> Done {
        Done::of(self.command(options))
    }

    /// The certificate in place; panics unless the key in place is its own.
    #[track_caller]
    fn pair(&self) -> Certificate {
        let certificate = certificate(&self.file("c"));
        assert_eq!(certificate.public_key(), key(&self.file("k")).public_key());
        certificate
    }

    #[track_caller]
    fn holds(&self, device: &Device) {
        assert_eq!(self.pair(), device.certificate);
    }

    fn names(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Panics if more is left than a pair, the one before, and what this test put there.
    #[track_caller]
    fn is_tidy(&self) {
        let expected = ["c", "c.previous", "k", "k.lock", "k.previous", "root.pem"];
        assert_eq!(self.names(), expected.map(str::to_owned).into());
    }
}

fn pem(certificate: &Certificate) -> String {
    to_pem("CERTIFICATE", certificate.der()).unwrap()
}

fn key(path: &Path) -> SigningKey {
    let key = PrivateKeyDer::from_pem_slice(&std::fs::read(path).unwrap()).unwrap();
    SigningKey::from_der(key.secret_der()).unwrap()
}

/// A device whose certificate is valid from and until so many seconds from now.
fn valid_for(line: &Authority, from: i64, until: i64) -> Device {
    let random = SystemRandom::new();
    let (key, now) = (SigningKey::generate(&random).unwrap(), UnixTime::now());
    let authority = line.certificate().key_identifier().unwrap();
    let template = Template {
        serial: &Serial::random(&random).unwrap(),
        issuer: line.certificate().subject(),
        validity: Validity { not_before: now.plus(from), not_after: now.plus(until) },
        subject: &name("device-1", FACTORY),
        public_key: key.public_key(),
        extensions: &[Extension::authority_key_identifier(&authority).unwrap()],
    };
    let to_be_signed = template.to_be_signed(line.key().algorithm()).unwrap();
    let der = line.key().sign(to_be_signed, &random).unwrap();
    Device { certificate: Certificate::from_der(&der).unwrap(), key }
}

/// A device whose window is over.
fn due(server: &TestServer) -> Device {
    valid_for(&server.factory_line, -300 * DAY, 65 * DAY)
}

on_both_ledgers! {
    async fn i3_a_window_in_the_past_means_now(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = due(&server);
        let field = Field::new(&server, &device);
        for (file, mode) in [("k", 0o640), ("c", 0o604)] {
            std::fs::set_permissions(field.file(file), Permissions::from_mode(mode)).unwrap();
        }
        let told = field.renew(&[]).success();
        assert!(told.starts_with("renewed: OU=factory,CN=device-1 until 20"), "{told}");
        let new = field.pair();
        assert_ne!(new, device.certificate);
        assert_eq!(new.subject(), device.certificate.subject());
        field.is_tidy();
        assert_eq!(certificate(&field.file("c.previous")), device.certificate);
        assert_eq!(key(&field.file("k.previous")).public_key(), device.key.public_key());
        for (file, mode) in [("k", 0o640), ("k.previous", 0o640), ("c", 0o604)] {
            let found = field.file(file).metadata().unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{file}");
        }
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        let audit = server.audit().await;
        assert!(audit.iter().any(|row| row.detail.starts_with("it went well")));

        let told = field.renew(&["--json"]).json();
        assert_eq!(told["renewed"], false);
        assert_eq!(told["certificate"]["serial"], new.serial().to_string());
        assert_eq!(field.pair(), new);
        assert_eq!(server.refusals().await, Vec::<String>::new());
        server.stop().await;
    }

    /// Its first poll is the first that the server sees of it; and what is not in the certificate is
    /// in that of its issuer.
    async fn a_window_to_come_is_told(backend: Backend) {
        let server = TestServer::start(backend).await;
        let with_identifier = server.device("device-1");
        let subject = name("device-2", FACTORY);
        let line = &server.factory_line;
        let without = Device::with_certificate(line, &subject, &[], 0..365);
        for device in [&with_identifier, &without] {
            let field = Field::new(&server, device);
            let window = RenewalWindow::of(&device.certificate);
            let told = field.renew(&["--json"]).json();
            assert_eq!(told["reason"], "as the server suggests", "{told}");
            assert_eq!(told["window"]["start"], window.start.to_string());
            assert_eq!(told["window"]["end"], window.end.to_string());
            let moment = UnixTime::parse(told["renews_at"].as_str().unwrap()).unwrap();
            assert!(window.start <= moment && moment <= window.end);
            let text = field.renew(&[]).success();
            assert!(text.contains(" is renewed at 20"), "{text}");
            field.holds(device);
            assert_eq!(field.names().len(), 4, "the pair, the root and the lock");
        }
        server.stop().await;
    }

    async fn each_state_that_a_power_cut_leaves_ends_in_one_pair(backend: Backend) {
        let server = TestServer::start(backend).await;
        // The next key, and nothing of it at the server.
        let field = Field::new(&server, &due(&server));
        let next = SigningKey::generate(&SystemRandom::new()).unwrap();
        field.write("k.next", &next.to_pem().unwrap());
        field.renew(&[]).success();
        assert_eq!(field.pair().public_key(), next.public_key());
        field.is_tidy();

        // Its certificate was issued, and the answer lost.
        reset(&server).await;
        let device = due(&server);
        let field = Field::new(&server, &device);
        let next = server.rotate(&device).await;
        field.write("k.next", &next.key.to_pem().unwrap());
        field.renew(&[]).success();
        assert_eq!(field.pair().public_key(), next.key.public_key());
        field.is_tidy();

        // The next pair is whole; with a session of it or without.
        for proven in [false, true] {
            reset(&server).await;
            let device = server.device("device-1");
            let field = Field::new(&server, &device);
            let next = server.rotate(&device).await;
            field.put("c.next", "k.next", &next);
            if proven {
                server.session(&next).await;
            }
            field.renew(&[]).success();
            field.holds(&next);
            field.is_tidy();
            assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        }
        assert_eq!(server.refusals().await, Vec::<String>::new());
        server.stop().await;
    }

    async fn a_pair_that_is_refused_is_put_aside(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = due(&server);
        server.session(&device).await;
        let field = Field::new(&server, &device);
        let forged = due(&server);
        field.put("c.next", "k.next", &forged);
        field.renew(&[]).refused("the server refuses the new certificate, which is put aside");
        field.holds(&device);
        assert_eq!(certificate(&field.file("c.refused")), forged.certificate);
        assert_eq!(server.refusals().await.last().unwrap(), "credential-unknown");
        field.renew(&[]).success();
        assert_ne!(field.pair(), device.certificate);
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        server.stop().await;
    }

    /// Wherever it is, it goes on from there; and nothing that it does looks like a clone.
    async fn killed_at_any_moment_it_ends_what_it_began(backend: Backend) {
        let server = TestServer::start(backend).await;
        for milliseconds in (0..60).step_by(4) {
            reset(&server).await;
            let device = due(&server);
            let field = Field::new(&server, &device);
            let mut agent = Agent::start(&field, &[]);
            std::thread::sleep(Duration::from_millis(milliseconds));
            agent.0.kill().unwrap();
            agent.0.wait().unwrap();
            field.renew(&[]).success();
            assert_ne!(field.pair(), device.certificate);
            let states = server.states("device-1").await;
            let (last, before) = states.split_last().unwrap();
            assert_eq!(last, "current", "{states:?}");
            assert!(before.iter().all(|state| state == "superseded"), "{states:?}");
        }
        assert_eq!(server.refusals().await, Vec::<String>::new());
        server.stop().await;
    }

    async fn a_refused_request_changes_nothing(backend: Backend) {
        let server = TestServer::start(backend).await;
        let device = due(&server);
        server.session(&device).await;
        let field = Field::new(&server, &device);
        server.sql("UPDATE credential SET state = 'denied'").await;
        for _ in 0..2 {
            field.renew(&[]).refused("the server answered 403: the certificate is denied");
            field.holds(&device);
            assert_eq!(field.names().len(), 4, "{:?}", field.names());
        }
        server.stop().await;
    }

    async fn e_40_a_request_that_waits_is_sent_again(backend: Backend) {
        let toml = "[est.profile]\napproval = 'manual'\n";
        let server = TestServer::start_with(backend, toml).await;
        let device = due(&server);
        let field = Field::new(&server, &device);
        for _ in 0..2 {
            field.renew(&[]).refused("waits for an operator's approval");
        }
        field.holds(&device);
        server.sql("UPDATE held_request SET state = 'approved', decided_at = asked_at").await;
        field.renew(&[]).success();
        field.is_tidy();
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        server.stop().await;
    }
}

/// Makes the server forget the device.
async fn reset(server: &TestServer) {
    server.sql("DELETE FROM enrolment").await;
    server.sql("DELETE FROM credential").await;
    server.sql("DELETE FROM device").await;
}

/// A TLS alert says it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_ends_the_handshake_is_put_aside() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = server.device("device-1");
    let expired = valid_for(&server.factory_line, -2 * DAY, -DAY);
    let stranger = valid_for(&authority(), 0, DAY);
    for next in [expired, stranger] {
        let field = Field::new(&server, &device);
        field.put("c.next", "k.next", &next);
        field.renew(&[]).refused("the server refuses the new certificate, which is put aside");
        field.holds(&device);
        assert!(field.renew(&[]).success().contains(" is renewed at "));
    }
    server.stop().await;
}

/// It was proven, and the answer lost; then somebody on the way says no in the server's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_pair_that_may_be_the_only_one_left_is_not_put_aside() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = server.device("device-1");
    let next = server.rotate(&device).await;
    server.session(&next).await;
    let mut field = Field::new(&server, &device);
    field.put("c.next", "k.next", &next);
    field.url = refused_once(server.server.est_address()).await;
    field.renew(&[]).refused("stays beside the present one because that is not accepted either");
    assert_eq!(certificate(&field.file("c.next")), next.certificate);
    field.renew(&[]).success();
    field.holds(&next);
    field.is_tidy();
    server.stop().await;
}

/// It may be the only key that the server accepts, and its certificate may come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_next_pair_that_cannot_be_read_now_is_not_lost() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = due(&server);
    for unreadable in ["c.next", "k.next"] {
        reset(&server).await;
        let field = Field::new(&server, &device);
        let next = server.rotate(&device).await;
        server.session(&next).await;
        field.put("c.next", "k.next", &next);
        field.write("c.switching", "");
        let (there, away) = (field.file(unreadable), field.file("away"));
        std::fs::rename(&there, &away).unwrap();
        std::fs::create_dir(&there).unwrap();
        field.renew(&[]).refused(&format!("{unreadable}: Is a directory"));
        field.holds(&device);
        std::fs::remove_dir(&there).unwrap();
        std::fs::rename(&away, &there).unwrap();
        field.renew(&[]).success();
        field.holds(&next);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_key_that_the_server_may_have_accepted_is_kept_and_nothing_is_said_to_be_renewed() {
    let server = TestServer::start(Backend::Sqlite).await;
    for marker in ["c.proving", "c.switching"] {
        reset(&server).await;
        let device = due(&server);
        let field = Field::new(&server, &device);
        let next = server.rotate(&device).await;
        server.session(&next).await;
        field.put("lost", "k.next", &next);
        field.write(marker, "");
        field.renew(&[]).refused("the server answered 403");
        field.holds(&device);
        assert_eq!(key(&field.file("k.refused")).public_key(), next.key.public_key());
        // It comes back with its certificate: a person has found that.
        std::fs::rename(field.file("k.refused"), field.file("k.next")).unwrap();
        std::fs::rename(field.file("lost"), field.file("c.next")).unwrap();
        field.renew(&[]).success();
        field.holds(&next);
    }
    server.stop().await;
}

/// A full disk, or a file that nobody can replace, is found out while the old pair is still good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_whatever_of_the_switch_can_fail_is_done_before_the_server_knows() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = server.device("device-1");
    let field = Field::new(&server, &device);
    let next = server.rotate(&device).await;
    field.put("c.next", "k.next", &next);
    for blocked in ["c.previous", "k.unfinished", "c.unfinished", "c.proving.unfinished"] {
        std::fs::create_dir(field.file(blocked)).unwrap();
        std::fs::write(field.file(blocked).join("full"), "").unwrap();
        field.renew(&[]).refused(blocked);
        assert_eq!(server.states("device-1").await, ["current", "pending"], "{blocked}");
        std::fs::remove_dir_all(field.file(blocked)).unwrap();
    }
    field.renew(&[]).success();
    field.holds(&next);
    field.is_tidy();
    server.stop().await;
}

/// What the server has accepted is put in place without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_was_begun_ends_without_the_server() {
    let root = authority();
    let (old, new) = (valid_for(&root, -300 * DAY, DAY), valid_for(&root, 0, DAY));
    let field = || {
        let field = Field::at(NOWHERE, &root, &old);
        field.write("c.switching", "");
        field
    };
    let told = ["--on-renewed", "cp \"$ESTD_CERT\" seen; cp \"$ESTD_KEY\" seen.key; echo done"];
    let ends = |field: &Field| {
        let done = field.renew(&told);
        assert!(done.stderr.contains("done\n") && !done.stdout.contains("done\n"), "{done:?}");
        assert!(done.success().starts_with("renewed: "));
        field.holds(&new);
        assert_eq!(
            [field.read("seen"), field.read("seen.key")],
            [field.read("c"), field.read("k")]
        );
        let left = field.names();
        for gone in ["c.next", "k.next", "c.switching", "c.next.csr"] {
            assert!(!left.contains(gone), "{gone}: {left:?}");
        }
    };
    // Nothing is in place yet.
    let before = field();
    before.put("c.next", "k.next", &new);
    ends(&before);
    // The key is in place, its certificate is not.
    let half = field();
    half.put("c.next", "k", &new);
    ends(&half);
    // Both are, and nobody was told.
    let whole = field();
    whole.put("c", "k", &new);
    ends(&whole);
    whole.renew(&[]).success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_broken_off_are_written_anew() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = due(&server);
    let field = Field::new(&server, &device);
    for name in ["k.next.unfinished", "c.next.unfinished", "k.next", "c.next", "c.next.csr"] {
        field.write(name, "-----BEGIN");
    }
    field.renew(&[]).success();
    assert_ne!(field.pair(), device.certificate);
    field.is_tidy();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_certificate_is_told_and_touched_by_nobody() {
    let root = authority();
    let (one, other) = (valid_for(&root, 0, DAY), valid_for(&root, 0, DAY));
    let field = Field::at(NOWHERE, &root, &one);
    field.write("k", &other.key.to_pem().unwrap());
    for options in [&[][..], &["--watch"]] {
        field.renew(options).refused("k is not the key of");
        assert_eq!(field.names().len(), 4, "the pair, the root and the lock");
    }
    field.write("k", "no key");
    field.renew(&[]).refused("k: there is no private key in PEM in it");
    std::fs::remove_file(field.file("c")).unwrap();
    field.renew(&["--watch"]).refused("c: No such file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h_13_a_label_in_the_url_is_kept() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut field = Field::new(&server, &due(&server));
    field.url = format!("{}/.well-known/est/fioconfig", server.url());
    let told = field.renew(&["--json"]).json();
    assert_eq!(
        (&told["renewed"], field.pair().serial().to_string().into()),
        (&true.into(), told["certificate"]["serial"].clone())
    );
    assert_eq!(field.renew(&["--json"]).json()["reason"], "as the server suggests");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_is_told_undoes_nothing_and_is_run_again() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = due(&server);
    let field = Field::new(&server, &device);
    for _ in 0..2 {
        field
            .renew(&["--on-renewed", "exit 3"])
            .refused("is in place, but --on-renewed \"exit 3\" failed: exit status: 3");
        assert_ne!(field.pair(), device.certificate);
        assert!(field.file("c.switching").exists());
    }
    let renewed = field.pair();
    assert!(field.renew(&["--on-renewed", "true"]).success().starts_with("renewed: "));
    assert_eq!(field.pair(), renewed);
    field.is_tidy();
    server.stop().await;
}

/// It was so for the whole life of a certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_always_fails_keeps_no_certificate_from_being_renewed() {
    let server = TestServer::start(Backend::Sqlite).await;
    let device = due(&server);
    server.session(&device).await;
    let field = Field::new(&server, &device);
    field.write("c.switching", "");
    field.renew(&["--on-renewed", "exit 3"]).refused("failed: exit status: 3");
    assert_ne!(field.pair(), device.certificate);
    assert_eq!(server.states("device-1").await, ["superseded", "current"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_renewal_info_two_thirds_of_the_lifetime_count() {
    let root = authority();
    let unavailable = "503 Service Unavailable\r\nRetry-After: 5";
    for status in ["404 Not Found", "501 Not Implemented", "500 Internal Server Error"] {
        let url = canned(&root, &[status], unavailable).await;
        let field = Field::at(&url, &root, &valid_for(&root, -60 * DAY, 40 * DAY));
        let told = field.renew(&["--json"]).json();
        assert_eq!(told["renewed"], false);
        assert!(told["reason"].as_str().unwrap().starts_with("after two thirds"), "{told}");
        let start = UnixTime::parse(told["window"]["start"].as_str().unwrap()).unwrap();
        assert!((start.0 - UnixTime::now().0 - 20 * DAY / 3).abs() < 60, "{told}");

        let due = valid_for(&root, -80 * DAY, 20 * DAY);
        field.put("c", "k", &due);
        field.renew(&[]).refused("the server answered 503");
        field.holds(&due);
        assert!(field.file("k.next").exists(), "for the next try");
    }
    let early = valid_for(&root, -60 * DAY, 40 * DAY);
    let mut field = Field::at(NOWHERE, &root, &early);
    let told = field.renew(&[]).success();
    assert!(
        told.contains("after two thirds of its lifetime: cannot talk to localhost:1"),
        "{told}"
    );
    field.put("c", "k", &valid_for(&root, -80 * DAY, 20 * DAY));
    field.renew(&[]).refused("cannot talk to localhost:1");
    field.url = "http://localhost".to_owned();
    field.renew(&["--watch"]).refused("it must begin with https://");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_renews_when_the_window_comes() {
    let server = TestServer::start(Backend::Sqlite).await;
    let soon = || {
        let device = valid_for(&server.factory_line, -35, 25);
        let start = RenewalWindow::of(&device.certificate).start.0 - UnixTime::now().0;
        (2..4).contains(&start).then_some(device)
    };
    let device = std::iter::repeat_with(soon).flatten().next().unwrap();
    let window = RenewalWindow::of(&device.certificate);
    let field = Field::new(&server, &device);
    let agent = Agent::start(&field, &["--watch", "--json", "--on-renewed", "date +%s > told"]);
    eventually("the certificate to be renewed", async || {
        (field.file("told").exists() && !field.file("c.switching").exists()).then_some(())
    })
    .await;
    let told_at: i64 = field.read("told").trim().parse().unwrap();
    assert!(window.start.0 <= told_at, "{told_at} is before {}", window.start.0);
    assert_ne!(field.pair(), device.certificate);
    let lines = agent.stop().await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["renewed"], false);
    assert_eq!(lines.last().unwrap()["renewed"], true);
    assert_eq!(server.states("device-1").await, ["superseded", "current"]);
    assert_eq!(server.refusals().await, Vec::<String>::new());
    server.stop().await;
}

/// Its clock is behind, and the server tells the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_clock_is_behind_goes_by_that_of_the_server() {
    let root = authority();
    let time = UnixTime::now().plus(30 * DAY);
    let body = json!({ "suggestedWindow": { "start": time, "end": time } });
    for (date, due) in [("", false), ("Date: Thu, 01 Jan 2099 00:00:00 GMT\r\n", true)] {
        let get = format!("200 OK\r\n{date}X: y\r\n\r\n{body}");
        let url = canned(&root, &[&get], "503 Service Unavailable").await;
        let field = Field::at(&url, &root, &valid_for(&root, -DAY, 365 * DAY));
        let done = field.renew(&[]);
        if due {
            done.refused("the server answered 503");
        } else {
            assert!(done.success().contains(" is renewed at "));
        }
    }
}

/// An operator may have paused the rotation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_asks_again_before_it_renews() {
    let root = authority();
    let window = |seconds: i64| {
        let time = UnixTime::now().plus(seconds);
        let body = json!({ "suggestedWindow": { "start": time, "end": time } });
        format!("200 OK\r\nRetry-After: 3600\r\n\r\n{body}")
    };
    let gets = [window(2), window(100 * DAY)];
    let url =
        canned(&root, &gets.each_ref().map(String::as_str), "500 Internal Server Error").await;
    let device = valid_for(&root, -DAY, 365 * DAY);
    let field = Field::at(&url, &root, &device);
    let agent = Agent::start(&field, &["--watch", "--json"]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(field.read("log"), "", "it asked for nothing");
    field.holds(&device);
    let lines = agent.stop().await;
    let moments: Vec<UnixTime> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| UnixTime::parse(line["renews_at"].as_str().unwrap()).unwrap())
        .collect();
    let [first, second] = moments[..] else { panic!("{lines}") };
    assert!(second.0 - first.0 > 99 * DAY, "{lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_waits_as_long_as_the_server_says() {
    let root = authority();
    let (unavailable, waiting) = ("503 Service Unavailable", "202 Accepted");
    for (status, pause, left, least) in [
        (unavailable, 600, 20 * DAY, 600),
        (waiting, 600, 20 * DAY, 600),
        (unavailable, 5, 20 * DAY, 30),
        // The certificate does not last as long.
        (unavailable, 86_400, 100, 30),
    ] {
        let answer = format!("{status}\r\nRetry-After: {pause}");
        let url = canned(&root, &["404 Not Found"], &answer).await;
        let field = Field::at(&url, &root, &valid_for(&root, -80 * DAY, left));
        let agent = Agent::start(&field, &["--watch"]);
        let log = eventually("the agent to fail", async || {
            let log = field.read("log");
            log.contains("; tries again in ").then_some(log)
        });
        let log = log.await;
        let seconds = log.trim().rsplit(' ').nth(1).unwrap().parse::<u64>().unwrap();
        assert!((least..=least * 3 / 2).contains(&seconds), "{log}");
        assert_eq!(agent.stop().await, "");
    }
}

/// Nobody reads along any more, or the disk is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_goes_on_where_nothing_can_be_printed() {
    let root = authority();
    let url = canned(&root, &["404 Not Found"], "503 Service Unavailable").await;
    for device in [valid_for(&root, -DAY, 300 * DAY), valid_for(&root, -80 * DAY, 20 * DAY)] {
        let field = Field::at(&url, &root, &device);
        let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = field.command(&["--watch"]);
        let mut agent = Agent(command.stdout(full()).stderr(full()).spawn().unwrap());
        eventually("the first look", async || field.file("k.lock").exists().then_some(())).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(agent.0.try_wait().unwrap().is_none(), "it has ended");
    }
}

/// They come as a set, whose order means nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_is_found_among_those_of_the_cas() {
    let root = authority();
    let next = valid_for(&root, 0, 90 * DAY);
    let all = [root.certificate().der(), next.certificate.der()];
    let answer = format!("200 OK\r\n\r\n{}", to_est_text(&certs_only(&all).unwrap()));
    let url = canned(&root, &["404 Not Found"], &answer).await;
    let field = Field::at(&url, &root, &valid_for(&root, -80 * DAY, 20 * DAY));
    field.write("k.next", &next.key.to_pem().unwrap());
    field.renew(&[]).success();
    field.holds(&next);
}

/// An agent that runs; its standard error is in the field's `log`.
struct Agent(Child);

impl Agent {
    fn start(field: &Field, options: &[&str]) -> Self {
        let log = std::fs::File::create(field.file("log")).unwrap();
        let child = field.command(options).stdout(Stdio::piped()).stderr(log).spawn();
        Self(child.unwrap())
    }

    /// Ends it by SIGTERM; gives what it printed.
    async fn stop(mut self) -> String {
        let pid = self.0.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status();
        assert!(sent.unwrap().success());
        let ended = async || self.0.try_wait().unwrap();
        assert_eq!(eventually("the agent to end", ended).await.code(), Some(0));
        std::io::read_to_string(self.0.stdout.take().unwrap()).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already unless a test failed.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn authority() -> Authority {
    let factory = FactoryName::parse(FACTORY).unwrap();
    Authority::root(&factory, UnixTime::now(), &SystemRandom::new()).unwrap()
}

/// A server that answers one GET after the other by these (the last for ever), and every POST by that:
/// status and headers, then the body if there is one; gives its URL.
async fn canned(root: &Authority, gets: &[&str], post: &str) -> String {
    let random = SystemRandom::new();
    let key = SigningKey::generate(&random).unwrap();
    let host = HostName::parse(HOST).unwrap();
    let subject = name(HOST, FACTORY);
    let now = UnixTime::now();
    let own = root.certify_server(&subject, &host, key.public_key(), now, &random).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.to_pem().unwrap().as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().to_vec().into()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{HOST}:{}", socket.local_addr().unwrap().port());
    let whole = |answer: &str| {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let (gets, post): (Vec<String>, String) =
        (gets.iter().copied().map(whole).collect(), whole(post));
    tokio::spawn(async move {
        let last = gets.last().unwrap();
        let mut gets = gets.iter().chain(std::iter::repeat(last));
        while let Ok((stream, _)) = socket.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = [0; 8192];
            // One request of a client fits, and comes in one piece.
            while let Ok(1..) = stream.read(&mut buffer).await {
                let answer = if buffer.starts_with(b"GET") { gets.next().unwrap() } else { &post };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    url
}

/// Somebody on the way to the server, who ends the first connection by an alert that nobody has
/// authenticated, access_denied, and lets the others pass; gives their URL.
async fn refused_once(server: SocketAddr) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{HOST}:{}", socket.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut refused, _) = socket.accept().await.unwrap();
        let _hello = refused.read(&mut [0; 8192]).await.unwrap();
        refused.write_all(&[21, 3, 3, 0, 2, 2, 49]).await.unwrap();
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut onward = TcpStream::connect(server).await.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut stream, &mut onward).await },
            );
        }
    });
    url
}
