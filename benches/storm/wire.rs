//! The agent on the wire: one connection to the gateway and one to EST for each try.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use estd::pki::to_pem;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::json;

use crate::device::Device;
use crate::handshake::{client_config, trust};
use crate::server::{FACTORY, HOST, Server};

const TIMEOUT: Duration = Duration::from_mins(1);

/// Numbers of events, each once.
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// A device and where it connects.
pub struct Agent {
    device: Device,
    tls: Arc<ClientConfig>,
    est: SocketAddr,
    gateway: SocketAddr,
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Agent {
    pub fn new(server: &Server, name: &str) -> Self {
        let device = Device::new(&server.factory_line, FACTORY, name);
        let tls = client_config(&trust(&server.root), Some(&device), false);
        Self { device, tls, est: server.address, gateway: server.gateway }
    }

    /// Asks for its configuration.
    pub fn poll(&self) -> u16 {
        exchange(&mut self.open(self.gateway).unwrap(), "GET", "/config", "").unwrap()
    }

    /// Has a certificate issued for a new key.
    pub fn renew(&self) -> u16 {
        self.enrol(&self.device.request().1).unwrap()
    }

    /// Tries to rotate; what comes after the announcement of its key goes wrong. Gives the status of
    /// the enrolment.
    pub fn fails(&self, rotation: &str) -> io::Result<u16> {
        let mut gateway = self.open(self.gateway)?;
        say(&mut gateway, rotation, "CertRotationStarted", None)?;
        let (key, body) = self.device.request();
        let status = self.enrol(&body)?;
        if status == 200 {
            say(&mut gateway, rotation, "Generate new certificate", Some(true))?;
            let pem = to_pem("PUBLIC KEY", key.public_key().der()).map_err(io::Error::other)?;
            let body = json!({ "next_pubkey": pem }).to_string();
            exchange(&mut gateway, "PATCH", "/device", &body)?;
            let step = "Update local configuration with new key";
            say(&mut gateway, rotation, step, Some(false))?;
        } else {
            say(&mut gateway, rotation, "Generate new certificate", Some(false))?;
        }
        say(&mut gateway, rotation, "CertRotationCompleted", Some(true))?;
        Ok(status)
    }

    fn enrol(&self, body: &str) -> io::Result<u16> {
        let mut est = self.open(self.est)?;
        exchange(&mut est, "POST", "/.well-known/est/simplereenroll", body)
    }

    fn open(&self, address: SocketAddr) -> io::Result<Stream> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(tls, tcp))
    }
}

fn say(gateway: &mut Stream, rotation: &str, step: &str, success: Option<bool>) -> io::Result<()> {
    let id = EVENTS.fetch_add(1, Ordering::Relaxed);
    let event = json!([{
        "id": format!("00000000-0000-4000-8000-{id:012}"), "deviceTime": "2026-11-21T05:00:00Z",
        "event": {
            "correlationId": rotation, "success": success, "targetName": "lmp", "version": "290",
            "details": "disk full",
        },
        "eventType": { "id": step, "version": 0 },
    }]);
    exchange(gateway, "POST", "/events", &event.to_string()).map(|_status| ())
}

/// One request, and the status of its answer, which is read to its end.
fn exchange(stream: &mut Stream, method: &str, path: &str, body: &str) -> io::Result<u16> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: fioconfig-client/3\r\n\
         Content-Type: application/pkcs10\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if bytes.len() >= end + 4 + length {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            return status.ok_or_else(|| io::Error::other(head.into_owned()));
        }
    }
}
