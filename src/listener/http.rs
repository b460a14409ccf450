//! One HTTP/1.1 connection over whatever carries it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower::Service;
use tower::util::BoxCloneService;
use tracing::debug;

/// How long a request's head may take, and an idle connection stay open.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection may live; a request that is under way then is the last.
const LIFETIME: Duration = Duration::from_mins(10);
/// Request lines and headers beyond this are refused with 431.
const HEAD_LIMIT: usize = 16 * 1024;

/// What a service answers with.
pub trait HttpBody:
    Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
{
}

impl<B> HttpBody for B where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
{
}

/// Serves requests until the client, `drain` or an error ends the connection; gives the transport
/// back, its closing left to do: a client whose request broke has its answer to read as well.
pub(super) async fn serve<T, S, B>(
    transport: T,
    service: S,
    last_request: Duration,
    mut drain: watch::Receiver<bool>,
) -> T
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody + 'static,
{
    let service = TowerToHyperService::new(BoxCloneService::new(service));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LIMIT)
        // libest compares header names by case (H-02).
        .title_case_headers(true)
        .serve_connection(TokioIo::new(transport), service);
    let draining = {
        let mut draining = pin!(async move {
            tokio::select! {
                _ = drain.wait_for(|drain| *drain) => {}
                () = sleep(LIFETIME) => {}
            }
        });
        let mut finished = poll_fn(|cx| connection.poll_without_shutdown(cx));
        tokio::select! {
            ended = &mut finished => {
                note(ended);
                false
            }
            () = &mut draining => true,
        }
    };
    if draining {
        std::pin::Pin::new(&mut connection).graceful_shutdown();
        let last = poll_fn(|cx| connection.poll_without_shutdown(cx));
        match timeout(last_request, last).await {
            Ok(ended) => note(ended),
            Err(_elapsed) => debug!("a connection did not come to its end"),
        }
    }
    connection.into_parts().io.into_inner()
}

fn note(ended: hyper::Result<()>) {
    if let Err(why) = ended {
        debug!(error = %why, "a connection broke");
    }
}
