//! What TLS is refused, each beside a control: an `openssl s_server` that takes the same.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CACERTS, server};

/// An `openssl s_server` that takes whatever these options say; it ends with this value.
struct Control {
    process: Child,
    address: SocketAddr,
}

impl Control {
    fn start(folder: &Path, options: &[&str]) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert", "control.pem"])
            .args(["-key", "control.key"])
            .args(options)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ")?.parse().ok());
        Self { address: address.expect("it says where it listens"), process }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _maybe_gone = self.process.kill();
        let _status = self.process.wait();
    }
}

/// An RSA certificate of the control's own.
fn make_control_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=control"])
        .args(["-keyout", "control.key", "-out", "control.pem", "-days", "1"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
}

/// The cipher suite that `openssl s_client` agrees on with a server, or none.
fn suite(address: SocketAddr, options: &[&str]) -> Option<String> {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let cipher = text.lines().find_map(|line| line.split("Cipher is ").nth(1))?;
    (cipher != "(NONE)").then(|| cipher.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_08_e_12_what_is_refused_is_what_openssl_would_do_with_another() {
    let server = server().await;
    let folder = server.folder.path().to_owned();
    let address = server.server.est_address();
    let cases: [&[&str]; 7] = [
        &["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"],
        &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "eNULL@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "aNULL@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AECDH@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "kRSA"],
        &["-tls1_2", "-cipher", "ECDHE+SHA1@SECLEVEL=0"],
    ];
    let check = move || {
        make_control_certificate(&folder);
        for options in cases {
            let control = Control::start(&folder, options);
            assert!(suite(control.address, options).is_some(), "openssl has no {options:?}");
            assert_eq!(suite(address, options), None, "{options:?}");
        }
        for version in ["-tls1_2", "-tls1_3"] {
            assert!(suite(address, &[version]).is_some(), "{version}");
        }
    };
    tokio::task::spawn_blocking(check).await.unwrap();
    server.stop().await;
}

/// E-08, E-12: nothing is served in the clear.
#[tokio::test]
async fn e_12_without_tls_there_is_no_answer() {
    let server = server().await;
    let mut raw = TcpStream::connect(server.server.est_address()).await.unwrap();
    let request = format!("GET {CACERTS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    raw.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // An alert or a reset: what matters is what it does not say.
    let _ended = raw.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.get(None, CACERTS).await.status, 200);
    server.stop().await;
}
