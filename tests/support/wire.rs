//! Bytes over TLS: requests as they are written here, answers as they come, header case and all.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use estd::pki::{Certificate, from_est_text, read_certs_only};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Device, HOST, TestServer, provider};

static TLS12_ONLY: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
static TLS13_ONLY: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// How a client does TLS.
#[derive(Clone)]
pub struct Tls {
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// Sent after the client's own certificate.
    pub extra_chain: Vec<Certificate>,
    pub server_name: &'static str,
}

impl Default for Tls {
    fn default() -> Self {
        Self { versions: rustls::ALL_VERSIONS, extra_chain: Vec::new(), server_name: HOST }
    }
}

impl Tls {
    pub fn tls12() -> Self {
        Self { versions: &TLS12_ONLY, ..Self::default() }
    }

    pub fn tls13() -> Self {
        Self { versions: &TLS13_ONLY, ..Self::default() }
    }
}

/// A connection that is open.
pub struct Wire {
    stream: TlsStream<TcpStream>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers, as bytes came.
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the server ended TLS by close_notify after it, if it ended the connection at all.
    pub closed_cleanly: bool,
}

impl Answer {
    /// The value of a header by its exact name, case and all.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            (key == name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The one certificate of an enrolment's answer; panics if it is anything else.
    pub fn certificate(&self) -> Certificate {
        assert!((200..300).contains(&self.status), "{} {}", self.head, self.text());
        let mut all = self.certificates();
        assert_eq!(all.len(), 1, "only the issued certificate (E-38)");
        all.remove(0)
    }

    pub fn certificates(&self) -> Vec<Certificate> {
        read_certs_only(&from_est_text(&self.body).unwrap()).unwrap()
    }
}

impl Wire {
    pub async fn connect(
        address: SocketAddr,
        root: &Certificate,
        device: Option<&Device>,
        tls: &Tls,
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(root.der().to_vec())).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(tls.versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match device {
            None => builder.with_no_client_auth(),
            Some(device) => {
                let chain = std::iter::once(&device.certificate).chain(&tls.extra_chain);
                let chain = chain.map(|one| CertificateDer::from(one.der().to_vec())).collect();
                let pem = device.key.to_pem().unwrap();
                let key = <PrivateKeyDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
                    pem.as_bytes(),
                );
                builder.with_client_auth_cert(chain, key.unwrap()).unwrap()
            }
        };
        let stream = TcpStream::connect(address).await?;
        // The request would wait for the other end's delayed acknowledgement of the handshake.
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(tls.server_name).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Self { stream })
    }

    /// The base64 of the tls-exporter (RFC 9266).
    pub fn channel_binding(&self) -> String {
        let label = b"EXPORTER-Channel-Binding";
        let exporter =
            self.stream.get_ref().1.export_keying_material([0; 32], label, Some(&[])).unwrap();
        BASE64.encode(&exporter)
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Sends a request as it stands and reads its answer to its Content-Length. A broken connection
    /// is an error.
    pub async fn send(&mut self, request: &[u8]) -> io::Result<Answer> {
        // A server that refuses early closes while this is still writing; its answer counts.
        let _maybe_refused_early = self.write(request).await;
        self.read_answer().await
    }

    pub async fn read_answer(&mut self) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            self.read_more(&mut bytes).await?;
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.split("\r\n").find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
        });
        let mut body = bytes[head_end + 4..].to_vec();
        while body.len() < length.unwrap_or(0) {
            self.read_more(&mut body).await?;
        }
        Ok(Answer { status, head, body, closed_cleanly: false })
    }

    /// Reads until the server ends the connection: true if it did so by close_notify.
    pub async fn ends_cleanly(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest);
        let end = tokio::time::timeout(Duration::from_secs(20), end).await;
        matches!(end, Ok(Ok(_)))
    }

    async fn read_more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer);
        let read = tokio::time::timeout(Duration::from_secs(30), read).await;
        match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

/// A POST of an EST body.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    post_with(path, "Content-Type: application/pkcs10\r\n", body.as_bytes())
}

/// A POST with these header lines (each ending in CR LF) beside Host and Content-Length.
pub fn post_with(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A GET with these header lines (each ending in CR LF) beside Host.
pub fn get_with(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{headers}\r\n").into_bytes()
}

impl TestServer {
    pub async fn connect(&self, device: Option<&Device>, tls: &Tls) -> io::Result<Wire> {
        let address = self.server.est_address();
        Wire::connect(address, self.root.certificate(), device, tls).await
    }

    /// One request on a connection of its own.
    pub async fn send(&self, device: Option<&Device>, request: &[u8]) -> io::Result<Answer> {
        self.connect(device, &Tls::default()).await?.send(request).await
    }

    pub async fn get(&self, device: Option<&Device>, path: &str) -> Answer {
        self.send(device, &get_with(path, "")).await.unwrap()
    }

    pub async fn enroll(&self, device: &Device, body: &str) -> Answer {
        self.send(Some(device), &post("/.well-known/est/simpleenroll", body)).await.unwrap()
    }

    pub async fn reenroll(&self, device: &Device, body: &str) -> Answer {
        self.send(Some(device), &post("/.well-known/est/simplereenroll", body)).await.unwrap()
    }

    /// Opens a session as the device, which is then recorded, and ends it.
    pub async fn session(&self, device: &Device) {
        assert_eq!(self.get(Some(device), "/.well-known/est/cacerts").await.status, 200);
    }

    /// Re-enrols with a new key and gives the device as it will be after its switch.
    pub async fn rotate(&self, device: &Device) -> Device {
        let (key, body) = device.request();
        let certificate = self.reenroll(device, &body).await.certificate();
        Device::switched(certificate, key)
    }
}
