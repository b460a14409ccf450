//! One HTTP/1.1 exchange over a connection that is open.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{DATE, HeaderMap, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{ClientError, Endpoint};
use crate::clock::UnixTime;

const CONNECT_TIMEOUT: Duration = Duration::from_mins(1);
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The answer if its status says success.
    ///
    /// # Errors
    /// [`ClientError::Status`] otherwise.
    pub fn success(self) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(ClientError::Status {
            status: self.status.as_u16(),
            reason: String::from_utf8_lossy(&self.body).trim().chars().take(2000).collect(),
            retry_after: self.retry_after(),
        })
    }

    /// In how many seconds to ask again, if it says so: in seconds, or as a date (RFC 9110 §10.2.3).
    pub fn retry_after(&self) -> Option<u64> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        if let Ok(seconds) = text.parse() {
            return Some(seconds);
        }
        let date = date(text)?;
        Some(u64::try_from(date.0.saturating_sub(UnixTime::now().0)).unwrap_or(0))
    }

    /// What time it is by the server's clock, if it says so.
    pub fn date(&self) -> Option<UnixTime> {
        date(self.headers.get(DATE)?.to_str().ok()?)
    }
}

/// A date of HTTP (RFC 9110 §5.6.7).
fn date(text: &str) -> Option<UnixTime> {
    Some(UnixTime(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second()))
}

/// A connection that is open for one exchange after the other.
pub struct HttpConnection {
    requests: SendRequest<Full<Bytes>>,
    /// What drives it; it tells why it has ended.
    driver: Option<JoinHandle<Result<(), hyper::Error>>>,
}

/// Speaks HTTP on an open transport.
pub(super) async fn open<T>(transport: T) -> Result<HttpConnection, ClientError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (requests, connection) = http1::handshake(TokioIo::new(transport)).await?;
    Ok(HttpConnection { requests, driver: Some(tokio::spawn(connection)) })
}

/// Speaks HTTP, without TLS, to a server.
///
/// # Errors
/// When it cannot be reached.
pub async fn open_plain(endpoint: &Endpoint) -> Result<HttpConnection, ClientError> {
    open(endpoint.connect(CONNECT_TIMEOUT).await?).await
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When the exchange breaks off, takes too long, or the answer is too large.
pub async fn exchange(
    http: &mut HttpConnection,
    request: Request<Full<Bytes>>,
) -> Result<Answer, ClientError> {
    let answered = async {
        match send(&mut http.requests, request).await {
            Err(ClientError::Exchange(why)) => Err(http.cause(why).await),
            other => other,
        }
    };
    timeout(ANSWER_TIMEOUT, answered).await.map_err(|_elapsed| ClientError::Timeout)?
}

async fn send(
    requests: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, ClientError> {
    requests.ready().await?;
    let (head, body) = requests.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|why| match why
        .downcast::<hyper::Error>()
    {
        Ok(why) => ClientError::Exchange(*why),
        Err(_) => ClientError::AnswerTooLarge(ANSWER_LIMIT),
    })?;
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
}

impl HttpConnection {
    /// Sends the only request and gives the answer, its body still to come.
    pub(super) async fn begin(
        mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        match self.requests.send_request(request).await {
            Err(why) => Err(self.cause(why).await),
            Ok(answer) => Ok(answer),
        }
    }

    /// Why an exchange broke off: of a connection that had ended before it, by a TLS alert for
    /// instance, it tells only that it has ended.
    async fn cause(&mut self, why: hyper::Error) -> ClientError {
        let tells_nothing = why.is_closed() || why.is_canceled();
        let Some(driver) = self.driver.take().filter(|_| tells_nothing) else {
            return why.into();
        };
        match driver.await {
            Ok(Err(cause)) => cause.into(),
            _ => why.into(),
        }
    }
}
