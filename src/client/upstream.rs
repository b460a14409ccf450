//! Requests that are passed on to a server behind this one, over connections that are kept open.

use std::error::Error;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Request, Response, Uri, Version};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::ClientError;
use super::trust::{tls_config, tls_config_of_host};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request, its body included, may take until the answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);
/// How much of an answer is read ahead of a device that takes it slowly, in bytes.
const BUFFER: usize = 64 * 1024;
/// How many connections that nobody uses are kept, and how long.
const IDLE_CONNECTIONS: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// A server behind this one.
pub struct Upstream<B> {
    scheme: Scheme,
    authority: Authority,
    client: Client<HttpsConnector<HttpConnector>, B>,
}

impl<B> Upstream<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// The server at `http://HOST[:PORT]` or `https://HOST[:PORT]`. One of `https` must have a
    /// certificate of a root that this host trusts.
    ///
    /// # Errors
    /// When the URL is another, or this host trusts no root.
    pub fn new(uri: &Uri) -> Result<Self, ClientError> {
        let usable = |reason| ClientError::Url { url: uri.to_string(), reason };
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(usable("it must be http://HOST[:PORT] or https://HOST[:PORT]"));
        };
        let tls = match scheme.as_str() {
            "https" => tls_config_of_host()?,
            "http" => tls_config(&[], None)?,
            _ => return Err(usable("it must begin with http:// or https://")),
        };
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_nodelay(true);
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.as_ref().clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(BUFFER)
            .build(connector);
        Ok(Self { scheme: scheme.clone(), authority: authority.clone(), client })
    }

    /// Passes a request on, with this path, as a request to the server's own host.
    ///
    /// # Errors
    /// When the server cannot be reached or trusted, or does not begin to answer within five minutes.
    pub async fn pass(
        &self,
        path: PathAndQuery,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, ClientError> {
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        *request.uri_mut() = uri.path_and_query(path).build().map_err(|_| ClientError::Url {
            url: self.authority.to_string(),
            reason: "it has no such path",
        })?;
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().remove(HOST);
        let answered = timeout(ANSWER_TIMEOUT, self.client.request(request)).await;
        Ok(answered.map_err(|_elapsed| ClientError::Timeout)??)
    }
}
