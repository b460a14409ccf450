//! A device's own folder, the programs that it runs there, and what must hold after its rotation.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use estd::pki::to_pem;

use crate::support::{FACTORY, TestServer};

/// Stands before every script.
const PRELUDE: &str = r#"
set -euo pipefail
curl() { command curl --silent --show-error --fail-with-body --cacert root.pem "$@"; }
as_device() { curl --cert device.pem --key device.key "$@"; }
as_new_device() { curl --cert new.pem --key new.key "$@"; }
certificates() { base64 -d | openssl pkcs7 -inform DER -print_certs; }
"#;

/// The folder of a device that the server has not met yet.
///
/// It starts with `root.pem`, `device.pem`, `device.key`, and `request.cnf` for `openssl req`; a
/// rotation ends with `new.pem` and `new.key`.
pub(crate) struct Workbench<'a> {
    pub device: String,
    server: &'a TestServer,
    folder: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl<'a> Workbench<'a> {
    pub(crate) fn new(server: &'a TestServer, name: &str) -> Self {
        let folder = server.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        let url = server.url();
        let environment = vec![
            ("PATH", std::env::var_os("PATH").unwrap()),
            ("HOME", folder.clone().into()),
            ("LC_ALL", "C".into()),
            ("EST", format!("{url}/.well-known/est").into()),
            ("URL", url.into()),
        ];
        let bench = Self { device: name.to_owned(), server, folder, environment };
        bench.provision();
        bench
    }

    fn provision(&self) {
        let device = self.server.device(&self.device);
        let root = self.server.root.certificate();
        self.write("root.pem", &to_pem("CERTIFICATE", root.der()).unwrap());
        self.write("device.pem", &to_pem("CERTIFICATE", device.certificate.der()).unwrap());
        self.write("device.key", &device.key.to_pem().unwrap());
        let subject = format!("CN = {}\nOU = {FACTORY}\n", self.device);
        let request = "prompt = no\nstring_mask = utf8only\ndistinguished_name = subject\n";
        self.write("request.cnf", &format!("[req]\n{request}[subject]\n{subject}"));
    }

    /// Sets a variable for every script.
    pub(crate) fn set(&mut self, variable: &'static str, value: impl AsRef<OsStr>) {
        self.environment.push((variable, value.as_ref().to_owned()));
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).unwrap();
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap()
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Runs a script of bash in the folder and gives what it prints; panics if it fails.
    pub(crate) async fn run(&self, script: &str) -> String {
        let mut command = Command::new("timeout");
        command.args(["60", "bash", "-c", &format!("{PRELUDE}{script}")]);
        command.current_dir(&self.folder).env_clear().envs(self.environment.iter().cloned());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{script}\n{printed}{errors}", output.status);
        printed
    }

    /// Makes a new key (by these arguments of `openssl genpkey`) and a request for it: `new.key`,
    /// `new.der`, and `new.b64` in lines.
    pub(crate) async fn request(&self, key: &str) {
        self.run(&format!(
            "openssl genpkey {key} -out new.key
             openssl req -new -config request.cnf -key new.key -outform DER -out new.der
             openssl base64 -in new.der -out new.b64"
        ))
        .await;
    }

    /// The server's CA certificates are the root and Device CAs that it signed; they end in
    /// `ca.pem`, where `pem` stood.
    pub(crate) async fn check_ca_certificates(&self, pem: &str) {
        let certificates = pem_blocks(pem);
        assert_eq!(certificates.len(), 3, "root, online Device CA, factory line: {pem}");
        let root = self.read("root.pem");
        assert!(certificates.iter().any(|one| normalized(one) == normalized(&root)), "{pem}");
        for certificate in &certificates {
            self.write("one.pem", certificate);
            self.run("openssl verify -x509_strict -CAfile root.pem one.pem").await;
        }
        self.write("ca.pem", pem);
    }

    /// `new.pem` is on record as pending; one session with it makes it current.
    pub(crate) async fn check_rotated(&self) {
        self.check_new_certificate().await;
        self.check_record("pending", &["current", "pending"]).await;
        self.run("as_device $EST/cacerts").await;
        self.check_record("pending", &["current", "pending"]).await;
        self.run("as_new_device $EST/cacerts").await;
        self.check_record("current", &["superseded", "current"]).await;
    }

    /// `new.pem` ends in about so many days.
    pub(crate) async fn check_ends_in(&self, days: u32) {
        let check_end = |days| format!("openssl x509 -in new.pem -checkend $(({days} * 86400))");
        self.run(&check_end(days - 1)).await;
        self.run(&format!("! {}", check_end(days + 1))).await;
    }

    /// `new.pem` is what a device of this name should hold, for `new.key`.
    async fn check_new_certificate(&self) {
        self.run(
            "[[ -s ca.pem ]] || curl $EST/cacerts | certificates > ca.pem
             openssl verify -x509_strict -purpose sslclient \\
                 -CAfile root.pem -untrusted ca.pem new.pem",
        )
        .await;
        let subject = |file| {
            let typed = "-nameopt esc_2253,sep_comma_plus,show_type";
            format!("openssl x509 -in {file} -noout -subject {typed}")
        };
        let expected = format!("subject=CN=UTF8STRING:{},OU=UTF8STRING:{FACTORY}\n", self.device);
        assert_eq!(self.run(&subject("device.pem")).await, expected);
        assert_eq!(self.run(&subject("new.pem")).await, expected);
        assert_eq!(
            self.run("openssl x509 -in new.pem -noout -pubkey").await,
            self.run("openssl pkey -in new.key -pubout").await
        );
        let text = self.run("openssl x509 -in new.pem -noout -text").await;
        assert_eq!(line_after(&text, "X509v3 Key Usage:"), "Digital Signature");
        let purpose = "TLS Web Client Authentication";
        assert_eq!(line_after(&text, "X509v3 Extended Key Usage:"), purpose);
        assert_eq!(line_after(&text, "X509v3 Basic Constraints:"), "CA:FALSE");
    }

    /// These are the device's credentials, and `new.pem` is the last.
    async fn check_record(&self, state: &str, all: &[&str]) {
        assert_eq!(self.server.states(&self.device).await, all);
        let story = self.server.story(&self.device).await;
        let last = story.credentials.last().unwrap();
        let digest = "openssl x509 -in new.pem -outform DER | sha256sum | cut -d ' ' -f 1";
        assert_eq!(last.sha256, self.run(digest).await.trim());
        assert_eq!(last.state, state);
    }
}

/// The certificates in a text, armour and all.
pub(crate) fn pem_blocks(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let blocks = text.split_inclusive(END).filter_map(|part| {
        let start = part.find("-----BEGIN CERTIFICATE-----")?;
        part.ends_with(END).then(|| part[start..].to_owned())
    });
    blocks.collect()
}

/// PEM without its line breaks.
fn normalized(pem: &str) -> String {
    pem.split_ascii_whitespace().collect()
}

/// What `openssl x509 -text` prints under a heading.
fn line_after<'t>(text: &'t str, heading: &str) -> &'t str {
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with(heading));
    lines.nth(1).unwrap_or_else(|| panic!("{heading} is not in {text}")).trim()
}
