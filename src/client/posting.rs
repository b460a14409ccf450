//! Posts JSON to a server that is not ours: nothing but the status of its answer matters, no redirect
//! is followed, and every exchange has a connection of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use rustls::ClientConfig;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{ClientError, Endpoint, HostRoots, HttpConnection, http};

const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer's body is read, and for how long, so that small ones end without a reset.
const IGNORED_BODY: usize = 4096;
const IGNORED_TIMEOUT: Duration = Duration::from_millis(500);

/// Posts to one URL.
pub struct Poster {
    uri: Uri,
    endpoint: Endpoint,
    /// For `https`.
    tls: Option<Arc<ClientConfig>>,
}

impl Poster {
    /// What posts to `uri`, of scheme `http` or `https`. A server of `https` must have a certificate
    /// of one of these roots.
    ///
    /// # Errors
    /// When the URL cannot be used, or needs roots and there are none.
    pub fn new(uri: &Uri, roots: Option<HostRoots>) -> Result<Self, ClientError> {
        let usable = |reason| ClientError::Url { url: uri.to_string(), reason };
        let (port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => (443, Some(roots.ok_or(ClientError::NoRoots)?.0)),
            _ => return Err(usable("it must begin with http:// or https://")),
        };
        Ok(Self { endpoint: Endpoint::of(uri, port)?, uri: uri.clone(), tls })
    }

    /// Posts JSON with these headers beside and gives the answer's status.
    ///
    /// # Errors
    /// When the server cannot be reached or trusted, or does not answer within ten seconds.
    pub async fn post(
        &self,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<StatusCode, ClientError> {
        let request = self.request(headers, body)?;
        let exchange = async { self.exchange(request).await };
        let answer =
            timeout(TIMEOUT, exchange).await.map_err(|_elapsed| ClientError::Timeout)??;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), IGNORED_BODY).collect();
        let _ignored = timeout(IGNORED_TIMEOUT, body).await;
        Ok(status)
    }

    fn request(
        &self,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path)
            .header(HOST, self.endpoint.authority())
            .header(USER_AGENT, concat!("estd/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.body(Full::from(Bytes::from(body))).map_err(|_| ClientError::Url {
            url: self.uri.to_string(),
            reason: "it cannot be requested",
        })
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.open().await?.begin(request).await
    }

    async fn open(&self) -> Result<HttpConnection, ClientError> {
        let stream = self.endpoint.connect(TIMEOUT).await?;
        let Some(tls) = &self.tls else { return http::open(stream).await };
        let name = self.endpoint.server_name()?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        http::open(stream.map_err(|why| self.failed(why))?).await
    }

    fn failed(&self, source: io::Error) -> ClientError {
        let host = self.endpoint.to_string();
        let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(reason @ rustls::Error::InvalidCertificate(_)) => {
                ClientError::Untrusted { host, reason: reason.clone() }
            }
            _ => ClientError::Connection { host, source },
        }
    }
}
