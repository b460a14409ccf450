//! EST over one TLS connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::http::{self, Answer, HttpConnection};
use super::trust::tls_config;
use super::{ClientError, Endpoint, exchange};
use crate::pki::{Certificate, CertificationRequest, from_est_text, read_certs_only, to_est_text};

const DEFAULT_PATH: &str = "/.well-known/est";
const ENROLL_STATUS_PATH: &str = "/.well-known/brski/enrollstatus";
const HTTPS_PORT: u16 = 443;
const CONNECT_TIMEOUT: Duration = Duration::from_mins(1);
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// A certificate and its private key, in DER of any kind that TLS can use.
pub struct Identity {
    /// The certificate.
    pub certificate: Certificate,
    /// The private key.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.certificate.subject())
    }
}

/// A client of one EST server.
#[derive(Clone)]
pub struct EstClient {
    endpoint: Endpoint,
    connect_to: Option<std::net::SocketAddr>,
    path: String,
    tls: Arc<ClientConfig>,
}

/// A connection that is open.
pub struct Connection {
    client: EstClient,
    http: HttpConnection,
    channel_binding: Option<[u8; 32]>,
}

impl EstClient {
    /// A client of the server at `url` (`https://HOST[:PORT][/.well-known/est[/LABEL]]`) that trusts
    /// `roots` alone.
    ///
    /// # Errors
    /// When the URL, a root or the identity cannot be used.
    pub fn new(
        url: &str,
        roots: &[Certificate],
        identity: Option<&Identity>,
    ) -> Result<Self, ClientError> {
        let usable = |reason| ClientError::Url { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| usable("it cannot be parsed"))?;
        if uri.scheme_str() != Some("https") {
            return Err(usable("it must begin with https://"));
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            endpoint: Endpoint::of(&uri, HTTPS_PORT)?,
            connect_to: None,
            path: if path.is_empty() { DEFAULT_PATH.to_owned() } else { path.to_owned() },
            tls: tls_config(roots, identity)?,
        })
    }

    /// Connects to this address instead of looking the host up.
    #[must_use]
    pub fn connect_to(mut self, address: std::net::SocketAddr) -> Self {
        self.connect_to = Some(address);
        self
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When the server cannot be reached or authenticated, or takes too long.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let opened = timeout(CONNECT_TIMEOUT, self.open()).await;
        opened.map_err(|_elapsed| ClientError::Timeout)?
    }

    async fn open(&self) -> Result<Connection, ClientError> {
        let failed = |source| ClientError::Connection { host: self.endpoint.to_string(), source };
        let stream = match self.connect_to {
            Some(address) => TcpStream::connect(address).await.map_err(failed)?,
            None => self.endpoint.connect(CONNECT_TIMEOUT).await?,
        };
        stream.set_nodelay(true).map_err(failed)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream =
            connector.connect(self.endpoint.server_name()?, stream).await.map_err(failed)?;
        let connection = stream.get_ref().1;
        let tls13 = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let exported =
            || connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).ok();
        let channel_binding = if tls13 { exported() } else { None };
        let http = http::open(stream).await?;
        Ok(Connection { client: self.clone(), http, channel_binding })
    }
}

impl Connection {
    /// The `tls-exporter` of this connection (RFC 9266), whose base64 a request may carry as its
    /// challengePassword; `None` below TLS 1.3.
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        self.channel_binding
    }

    /// The CA certificates (RFC 7030 §4.1).
    ///
    /// # Errors
    /// When the server does not hand them out.
    pub async fn cacerts(&mut self) -> Result<Vec<Certificate>, ClientError> {
        let answer = self.send(Method::GET, "cacerts", None).await?.success()?;
        Ok(read_certs_only(&from_est_text(&answer.body)?)?)
    }

    /// A first certificate for a DER request (RFC 7030 §4.2.1).
    ///
    /// # Errors
    /// When the server refuses it, or answers something else.
    pub async fn enroll(&mut self, request: &[u8]) -> Result<Certificate, ClientError> {
        self.issue("simpleenroll", request).await
    }

    /// A new certificate for a DER request (RFC 7030 §4.2.2).
    ///
    /// # Errors
    /// When the server refuses it, or answers something else.
    pub async fn reenroll(&mut self, request: &[u8]) -> Result<Certificate, ClientError> {
        self.issue("simplereenroll", request).await
    }

    async fn issue(&mut self, operation: &str, request: &[u8]) -> Result<Certificate, ClientError> {
        let body = to_est_text(request);
        let answer = self.send(Method::POST, operation, Some(body)).await?.success()?;
        if answer.status == StatusCode::ACCEPTED {
            return Err(ClientError::Waiting { retry_after: answer.retry_after() });
        }
        let certificates = read_certs_only(&from_est_text(&answer.body)?)?;
        // A server may add its CA certificates, in any order.
        let key = CertificationRequest::from_der(request)?;
        let mut certificates = certificates.into_iter();
        certificates
            .find(|one| one.public_key() == key.public_key())
            .ok_or(ClientError::NoCertificate)
    }

    /// Says that an enrolment went well (RFC 8995 §5.9.4): a session that the server has accepted.
    /// One that knows nothing of this has accepted it as well.
    ///
    /// # Errors
    /// When the server refuses the certificate of this session, or cannot answer now.
    pub async fn say_enrolled(&mut self) -> Result<(), ClientError> {
        self.say(json!({ "version": 1, "status": true })).await
    }

    /// Says that an enrolment went wrong, and why, in a session with the certificate of before.
    ///
    /// # Errors
    /// As of [`Self::say_enrolled`].
    pub async fn say_failed(&mut self, reason: &str) -> Result<(), ClientError> {
        self.say(json!({ "version": 1, "status": false, "reason": reason })).await
    }

    async fn say(&mut self, status: Value) -> Result<(), ClientError> {
        let body = Some(("application/json", status.to_string()));
        match self.send_to(Method::POST, ENROLL_STATUS_PATH, body).await?.success() {
            Err(ClientError::Status { status: 404 | 405 | 415 | 501, .. }) | Ok(_) => Ok(()),
            Err(why) => Err(why),
        }
    }

    pub(super) async fn send(
        &mut self,
        method: Method,
        operation: &str,
        body: Option<String>,
    ) -> Result<Answer, ClientError> {
        let path = format!("{}/{operation}", self.client.path);
        self.send_to(method, &path, body.map(|body| ("application/pkcs10", body))).await
    }

    async fn send_to(
        &mut self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
    ) -> Result<Answer, ClientError> {
        let unusable =
            |_| ClientError::Url { url: path.to_owned(), reason: "its path cannot be requested" };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.client.endpoint.authority());
        if let Some((content_type, _)) = body {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let body = body.map(|(_, text)| text).unwrap_or_default();
        let request = request.body(Full::from(Bytes::from(body))).map_err(unusable)?;
        exchange(&mut self.http, request).await
    }
}
