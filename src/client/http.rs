//! One HTTP/1.1 exchange over a connection that is open.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ClientError;
use crate::clock::UnixTime;

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
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second();
        Some(u64::try_from(date.saturating_sub(UnixTime::now().0)).unwrap_or(0))
    }
}

/// Speaks HTTP on an open transport.
pub(super) async fn open<T>(transport: T) -> Result<SendRequest<Full<Bytes>>, ClientError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
    // Its errors reach the exchange that they interrupt.
    tokio::spawn(connection);
    Ok(sender)
}

/// Speaks HTTP, without TLS, to `host` (a name or address with its port).
///
/// # Errors
/// When the server cannot be reached.
pub async fn open_plain(host: &str) -> Result<SendRequest<Full<Bytes>>, ClientError> {
    let stream = TcpStream::connect(host)
        .await
        .map_err(|source| ClientError::Connection { host: host.to_owned(), source })?;
    open(stream).await
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When the exchange breaks off, takes too long, or the answer is too large.
pub async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, ClientError> {
    let answered = async {
        sender.ready().await?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|why| {
            match why.downcast::<hyper::Error>() {
                Ok(why) => ClientError::Exchange(*why),
                Err(_) => ClientError::AnswerTooLarge(ANSWER_LIMIT),
            }
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    timeout(ANSWER_TIMEOUT, answered).await.map_err(|_elapsed| ClientError::Timeout)?
}
