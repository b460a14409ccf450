//! Keys of online Device CAs in a PKCS#11 token: a real SoftHSM2, its own for each test.

use std::process::Command;

use estd::ledger::KeyPlace;
use estd::pki::Certificate;

use crate::host::{Done, Host};
use crate::offline_root::{OfflineRoot, certificate};
use crate::on_both_ledgers;
use crate::process::{Process, SERVE, eventually};
use crate::support::wire::{Answer, Wire, get_with, post};
use crate::support::{Backend, Device};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "swordfish";
const WRONG_PIN: &str = "sawfish";
const TOKEN: &str = "
[keys.pkcs11]
module = '/usr/lib/softhsm/libsofthsm2.so'
token = 'estd'
pin_file = 'pin'
";

on_both_ledgers! {
    async fn a_device_ca_whose_key_is_in_the_token_issues(backend: Backend) {
        let host = host_with_token(backend).await;
        let field = Field::set_up(host);
        let server = field.host.serve().await;
        let device = field.add_line(&server).await;
        let issued = field.reenroll(&server, &device).await.certificate();
        issued.verify_issued_by(&certificate(&field.host.file("device-ca.pem"))).unwrap();

        // Another one, over the API.
        let csr = server.estd(&field.host, &["device-ca", "add", "--online"]).success();
        field.host.write("next.csr", csr);
        field.root.sign("next.csr", "next.pem", &["-subj", "/CN=the next one"]);
        server.estd(&field.host, &["device-ca", "add", "next.pem"]).success();
        let issued = field.reenroll(&server, &device).await.certificate();
        issued.verify_issued_by(&certificate(&field.host.file("next.pem"))).unwrap();
        server.stop().await;

        for key in private_keys(&field.host) {
            assert!(is(&key, "CKA_SENSITIVE", "TRUE"), "{key}");
            assert!(is(&key, "CKA_EXTRACTABLE", "FALSE"), "{key}");
            assert!(is(&key, "CKA_NEVER_EXTRACTABLE", "TRUE"), "{key}");
        }
        assert_eq!(private_keys(&field.host).len(), 2);
        let ledger = field.host.ledger().await;
        for key in ledger.installed_keys().await.unwrap() {
            let in_token = matches!(key.place, KeyPlace::Token);
            assert_eq!(in_token, key.purpose.is_none(), "{:?}", key.purpose);
        }
        ledger.close().await;
    }

    /// The server starts without the token, and finds it as soon as it is there.
    async fn a_token_that_goes_away_means_503_until_it_is_back(backend: Backend) {
        let field = Field::set_up(host_with_token(backend).await);
        let server = field.host.serve().await;
        let device = field.add_line(&server).await;
        let mut wire = field.connect(&server, &device).await;
        reenroll_on(&mut wire, &device).await.certificate();

        for _ in 0..2 {
            field.take_token_away();
            for _ in 0..2 {
                assert_no_signer(&reenroll_on(&mut wire, &device).await);
                let cacerts = wire.send(&get_with("/.well-known/est/cacerts", "")).await.unwrap();
                assert_eq!(cacerts.status, 200);
            }
            let add = server.estd(&field.host, &["device-ca", "add", "--online"]);
            add.refused("keys.pkcs11.");
            field.bring_token_back();
            reenroll_on(&mut wire, &device).await.certificate();
        }
        drop(wire);

        field.take_token_away();
        let code = "signer-unavailable";
        let audit = server.estd(&field.host, &["audit", "list"]).success();
        assert_eq!(audit.matches(code).count(), 4, "{audit}");
        server.stop().await;
        let server = field.host.serve().await;
        assert!(server.log().contains("its Device CAs sign nothing"), "{}", server.log());
        assert_no_signer(&field.reenroll(&server, &device).await);
        field.bring_token_back();
        field.reenroll(&server, &device).await.certificate();
        server.stop().await;
    }

    /// A token that was configured later, or is not any more, changes nothing of what is there.
    async fn keys_in_the_ledger_and_in_the_token_live_side_by_side(backend: Backend) {
        let host = host_with_token(backend).await;
        host.write("estd.toml", "");
        let field = Field::set_up(host);
        assert!(private_keys(&field.host).is_empty());
        field.host.write("estd.toml", TOKEN);
        let server = field.host.serve().await;
        let device = field.add_line(&server).await;
        let issued = field.reenroll(&server, &device).await.certificate();
        issued.verify_issued_by(&certificate(&field.host.file("device-ca.pem"))).unwrap();
        let csr = server.estd(&field.host, &["device-ca", "add", "--online"]).success();
        assert_eq!(private_keys(&field.host).len(), 1);
        field.host.write("next.csr", csr);
        field.root.sign("next.csr", "next.pem", &["-subj", "/CN=the next one"]);
        server.estd(&field.host, &["device-ca", "add", "next.pem"]).success();
        server.stop().await;

        field.host.write("estd.toml", "");
        let done = field.host.estd(&SERVE);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains("the configuration has no keys.pkcs11"), "{done:?}");
    }
}

/// Nobody waits for a token without end, and what it says too late changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_hangs_means_503_until_it_goes_on() {
    let field = Field::set_up(host_with_token(Backend::Sqlite).await);
    let server = field.host.serve().await;
    let device = field.add_line(&server).await;
    field.reenroll(&server, &device).await.certificate();

    // Whoever opens a pipe waits for its other end: SoftHSM does whenever it looks for changes.
    let token = std::fs::read_dir(field.host.file("tokens")).unwrap().next().unwrap().unwrap();
    let (generation, kept) = (token.path().join("generation"), field.host.file("generation"));
    std::fs::rename(&generation, &kept).unwrap();
    assert!(Command::new("mkfifo").arg(&generation).status().unwrap().success());
    let (first, second) =
        tokio::join!(field.reenroll(&server, &device), field.reenroll(&server, &device));
    assert_no_signer(&first);
    assert_no_signer(&second);
    assert!(server.log().contains("the token does not answer"), "{}", server.log());

    let pipe = field.host.file("pipe");
    std::fs::rename(&generation, &pipe).unwrap();
    std::fs::rename(&kept, &generation).unwrap();
    std::fs::write(&pipe, "").unwrap();
    eventually("the token to go on", async || {
        (field.reenroll(&server, &device).await.status == 200).then_some(())
    })
    .await;
    server.stop().await;
}

/// A token locks itself after some wrong PINs: each one is tried once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pin_means_503_until_it_is_right_and_is_not_tried_again() {
    let field = Field::set_up(host_with_token(Backend::Sqlite).await);
    field.host.write("pin", WRONG_PIN);
    let server = field.host.serve().await;
    let device = field.add_line(&server).await;
    let mut wire = field.connect(&server, &device).await;
    let refusals = || server.log().matches("refused the PIN in pin").count();
    assert_eq!(refusals(), 1, "{}", server.log());
    assert_no_signer(&reenroll_on(&mut wire, &device).await);
    assert_no_signer(&reenroll_on(&mut wire, &device).await);
    assert_eq!(server.log().matches("the login was refused").count(), 1, "{}", server.log());

    server.signal("HUP");
    server.logged("the login was refused", 2).await;
    field.host.write("pin", PIN);
    reenroll_on(&mut wire, &device).await.certificate();
    drop(wire);
    let log = server.log();
    assert!(!log.contains(PIN) && !log.contains(WRONG_PIN), "{log}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_what_is_wrong_with_the_token() {
    let mut host = host_with_token(Backend::Sqlite).await;
    host.write("none.so", "");
    host.write_secret("wrong-pin", WRONG_PIN);
    host.write("open-pin", PIN);
    host.set_mode("open-pin", 0o644);
    let cases = [
        (
            "token = 'estd'",
            "token = 'other'",
            "keys.pkcs11.token: no token is labelled \"other\"; \
          there are: \"estd\"",
        ),
        (MODULE, "/nowhere.so", "keys.pkcs11.module: /nowhere.so: "),
        (MODULE, "./none.so", "keys.pkcs11.module: ./none.so: "),
        ("'pin'", "'absent'", "keys.pkcs11.pin_file: absent: No such file"),
        ("'pin'", "'open-pin'", "mode 0644): chmod 600 open-pin"),
        ("'pin'", "'wrong-pin'", "keys.pkcs11.pin_file: the token refused the PIN in wrong-pin"),
        ("pin_file = 'pin'", "", "keys.pkcs11.pin_file: must name the file"),
        ("token = 'estd'", "", "keys.pkcs11.token: must be"),
        ("pin_file", "pin = '1'\npin_file", "unknown field `pin`"),
    ];
    for (right, wrong, reason) in cases {
        let done = check(&host, &TOKEN.replace(right, wrong));
        assert!(!done.stderr.contains(PIN) && !done.stderr.contains(WRONG_PIN), "{done:?}");
        done.refused(reason);
    }
    assert!(check(&host, TOKEN).success().contains("keys.pkcs11 \"estd\": logged in"));

    // The environment goes over the file, a systemd credential is the last resort.
    host.environment.push(("ESTD_PKCS11_PIN", PIN.to_owned()));
    check(&host, &TOKEN.replace("'pin'", "'absent'")).success();
    host.environment.pop();
    std::fs::rename(host.file("pin"), host.file("pkcs11-pin")).unwrap();
    host.environment.push(("CREDENTIALS_DIRECTORY", host.path().display().to_string()));
    check(&host, &TOKEN.replace("pin_file = 'pin'", "")).success();
    check(&host, TOKEN).refused("keys.pkcs11.pin_file: pin: No such file");
}

/// A host with a Factory whose online Device CA was made by the present configuration.
struct Field {
    host: Host,
    root: OfflineRoot,
}

impl Field {
    fn set_up(host: Host) -> Self {
        let root = host.set_up();
        Self { host, root }
    }

    /// Adds a factory line, and gives a device of it.
    async fn add_line(&self, server: &Process) -> Device {
        let line = self.root.device_ca("line", &[]);
        server.estd(&self.host, &["device-ca", "add", "line.pem"]).success();
        server.follows(&self.host).await;
        line.device("device", "device-1")
    }

    async fn connect(&self, server: &Process, device: &Device) -> Wire {
        let root: Certificate = self.root.certificate();
        server.connect(&root, Some(device)).await
    }

    async fn reenroll(&self, server: &Process, device: &Device) -> Answer {
        let mut wire = self.connect(server, device).await;
        reenroll_on(&mut wire, device).await
    }

    fn take_token_away(&self) {
        std::fs::rename(self.host.file("tokens"), self.host.file("away")).unwrap();
    }

    fn bring_token_back(&self) {
        std::fs::rename(self.host.file("away"), self.host.file("tokens")).unwrap();
    }
}

/// A host whose configuration names a token that is there.
async fn host_with_token(backend: Backend) -> Host {
    let mut host = Host::new(backend).await;
    let tokens = host.file("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let configuration = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
    host.write("softhsm2.conf", configuration);
    let path = host.file("softhsm2.conf").display().to_string();
    host.environment.push(("SOFTHSM2_CONF", path));
    let options = ["--init-token", "--free", "--label", "estd", "--pin", PIN, "--so-pin", "so-pin"];
    let made = Command::new("softhsm2-util")
        .args(options)
        .envs(host.environment.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("softhsm2-util: tests/run installs it");
    assert!(made.status.success(), "{made:?}");
    host.write_secret("pin", format!("{PIN}\n"));
    host.write("estd.toml", TOKEN);
    host
}

fn check(host: &Host, toml: &str) -> Done {
    host.write("estd.toml", toml);
    let mut command = host.bare_command();
    command.args(["serve", "--check"]);
    Done::of(command)
}

async fn reenroll_on(wire: &mut Wire, device: &Device) -> Answer {
    let request = post("/.well-known/est/simplereenroll", &device.request().1);
    wire.send(&request).await.unwrap()
}

fn assert_no_signer(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("(signer-unavailable)"), "{}", answer.text());
    assert!(answer.header("Retry-After").is_some(), "{}", answer.head);
}

/// What SoftHSM has on disk of each private key.
fn private_keys(host: &Host) -> Vec<String> {
    let mut keys = Vec::new();
    for token in std::fs::read_dir(host.file("tokens")).unwrap() {
        for object in std::fs::read_dir(token.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "object") {
                let dump = Command::new("softhsm2-dump-file").arg(path).output().unwrap();
                let dump = String::from_utf8(dump.stdout).unwrap();
                if dump.contains("CKO_PRIVATE_KEY") {
                    keys.push(dump);
                }
            }
        }
    }
    keys
}

/// Whether an attribute in a dump has this value, which stands two lines below its name.
fn is(dump: &str, attribute: &str, value: &str) -> bool {
    let mut lines = dump.lines().skip_while(|line| !line.ends_with(&format!(" {attribute}")));
    lines.nth(2).is_some_and(|line| line.ends_with(&format!(" {value}")))
}
