//! A server as a child process: its addresses, its log, its signals, its HTTP.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use estd::pki::Certificate;
use serde_json::Value;

use crate::host::{Done, Host};
use crate::support::wire::{Wire, get_with};
use crate::support::{Device, Tls};

const TRIES: usize = 600;
const PAUSE: Duration = Duration::from_millis(50);

/// A server that runs until it is told to end, or this is dropped.
pub struct Process {
    child: Child,
    log_file: PathBuf,
    pub est: SocketAddr,
    pub gateway: SocketAddr,
    pub api: SocketAddr,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> String {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    }
}

impl Process {
    /// Starts the server of `host` on free ports with these arguments beside.
    pub async fn start(host: &Host, arguments: &[&str]) -> Self {
        let mut command = host.command(&SERVE);
        command.args(arguments);
        Self::spawn(host, command).await
    }

    /// Starts a command that serves, and waits until it is up.
    pub async fn spawn(host: &Host, mut command: Command) -> Self {
        let log_file = host.file(&format!("serve-{}.log", unique()));
        let log = File::create(&log_file).unwrap();
        let mut child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let up = eventually("the server to be up", async || {
            let log = std::fs::read_to_string(&log_file).unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{log}");
            }
            let line = log.lines().find(|line| line.contains("estd is up"))?.to_owned();
            serde_json::from_str::<Value>(&line).ok()
        });
        let up = up.await;
        let address = |key: &str| up[key].as_str().unwrap().parse().unwrap();
        let (est, gateway, api) = (address("est"), address("gateway"), address("api"));
        Self { child, log_file, est, gateway, api }
    }

    /// `https://localhost:PORT`.
    pub fn est_url(&self) -> String {
        format!("https://localhost:{}", self.est.port())
    }

    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// Runs a command against this server.
    pub fn estd(&self, host: &Host, arguments: &[&str]) -> Done {
        Done::of(self.command(host, arguments))
    }

    pub fn command(&self, host: &Host, arguments: &[&str]) -> Command {
        let mut command = host.bare_command();
        command.args(["--data-dir", "data", "--url", &self.api_url()]).args(arguments);
        command
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap()
    }

    /// Waits until a log line with this text is the `count`th of its kind.
    pub async fn logged(&self, text: &str, count: usize) {
        eventually(text, async || (self.log().matches(text).count() >= count).then_some(())).await;
    }

    /// Waits until the server acts by what the ledger holds now.
    pub async fn follows(&self, host: &Host) {
        let ledger = host.ledger().await;
        let version = ledger.snapshot_version().await.unwrap();
        ledger.close().await;
        let line = format!("estd_snapshot_version {version}\n");
        let reached = async || self.get("/metrics").body.contains(&line).then_some(());
        eventually("the server to follow the ledger", reached).await;
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the process to end by itself, and gives its exit code and what it has logged.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let ended = async || self.child.try_wait().unwrap();
        let status = eventually("the server to end", ended).await;
        (status.code(), self.log())
    }

    /// Ends it by SIGTERM.
    pub async fn stop(self) {
        self.signal("TERM");
        let (code, log) = self.ended().await;
        assert_eq!(code, Some(0), "{log}");
    }

    pub fn get(&self, path: &str) -> Answer {
        self.http("GET", path, "", "")
    }

    /// One request to the API with these header lines, each ending in CR LF.
    pub fn http(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.api).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}",
            self.api
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Opens a TLS connection.
    pub async fn connect(&self, root: &Certificate, device: Option<&Device>) -> Wire {
        Wire::connect(self.est, root, device, &Tls::default()).await.unwrap()
    }

    /// Whether the handshake lets this device in.
    pub async fn lets_in(&self, root: &Certificate, device: &Device) -> bool {
        let Ok(mut wire) = Wire::connect(self.est, root, Some(device), &Tls::default()).await
        else {
            return false;
        };
        wire.send(&get_with("/.well-known/est/cacerts", "")).await.is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already unless a test failed.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What serves on free ports.
pub const SERVE: [&str; 7] = [
    "serve",
    "--est-listen",
    "127.0.0.1:0",
    "--gateway-listen",
    "127.0.0.1:0",
    "--api-listen",
    "127.0.0.1:0",
];

/// Asks again and again until there is an answer; panics when there never is one.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("waited in vain for {what}");
}

fn unique() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
