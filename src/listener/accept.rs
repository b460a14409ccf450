//! The accept loops: bounded in number and in time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::{Request, Response};
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::{Service, ServiceExt};
use tracing::{debug, info, warn};

use super::http::{self, HttpBody};
use super::session::Session;
use super::trust::TlsTrust;
use super::verifier::{DeviceVerifier, Presented};
use crate::clock::UnixTime;
use crate::keys::ActiveSnapshot;
use crate::ledger::Ledger;
use crate::model::audit::{Entry, Outcome};
use crate::model::{FactoryId, Peer, Refusal, ServerPurpose};
use crate::telemetry::Metrics;

/// How many connections a TLS listener has at once, and the API. Together they must leave the process
/// file descriptors for the ledger and for webhooks: `LimitNOFILE` in `deploy/estd.service`. There is
/// no limit for one address: a whole fleet may come by one, of a NAT or a load balancer.
const TLS_CONNECTIONS: usize = 8000;
const PLAIN_CONNECTIONS: usize = 500;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long, and how many bytes, a client may go on sending what will not be read: long enough for
/// it to read the answer, which a closed socket would take from it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1024 * 1024;
/// How long a client may leave what is written to it unread; a device that fetches something large
/// may lose its link, or write to slow flash, meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
const FETCH_WRITE_TIMEOUT: Duration = Duration::from_mins(2);
/// How long the request may take that is under way when a connection has lived long enough: what
/// devices fetch through the gateway may be large, and their links slow.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_mins(2);
const LAST_FETCH_TIMEOUT: Duration = Duration::from_hours(2);
/// How long a failing `accept`, out of file descriptors for instance, is left alone.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// RFC 9266 §2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Serves devices over TLS.
pub struct TlsListener {
    socket: TcpListener,
    tls: Arc<Tls>,
}

/// What every connection of a listener shares.
struct Tls {
    purpose: ServerPurpose,
    trust: ArcSwap<TlsTrust>,
    ledger: Ledger,
    active: Arc<ArcSwap<ActiveSnapshot>>,
    metrics: Arc<Metrics>,
}

/// Serves HTTP without TLS, for the API on the loopback address.
pub struct PlainListener {
    socket: TcpListener,
}

/// Changes the certificates of a listener that is running.
#[derive(Clone)]
pub struct TrustHandle(Arc<Tls>);

impl TrustHandle {
    /// Makes new handshakes use the present snapshot; open connections stay.
    pub fn reload(&self) {
        self.0.trust.store(Arc::new(TlsTrust::new(&self.0.active.load(), self.0.purpose)));
    }
}

impl TlsListener {
    /// Listens on `address`, with the server certificates of a purpose: EST takes clients without a
    /// certificate as well, the device gateway does not.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(
        address: SocketAddr,
        purpose: ServerPurpose,
        ledger: Ledger,
        active: Arc<ArcSwap<ActiveSnapshot>>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let trust = ArcSwap::from_pointee(TlsTrust::new(&active.load(), purpose));
        Ok(Self { socket, tls: Arc::new(Tls { purpose, trust, ledger, active, metrics }) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What reloads its certificates.
    pub fn trust(&self) -> TrustHandle {
        TrustHandle(Arc::clone(&self.tls))
    }

    /// Serves until `drain` says true, then until every connection has had its answer.
    pub async fn serve<S, B>(self, service: S, drain: watch::Receiver<bool>)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: HttpBody + Send + 'static,
    {
        let tls = self.tls;
        accept(self.socket, TLS_CONNECTIONS, drain, move |stream, address, drain| {
            let (tls, service) = (Arc::clone(&tls), service.clone());
            async move {
                let _open = tls.metrics.connection();
                let Some((stream, session)) = tls.handshake(stream, address).await else {
                    return;
                };
                let session = Arc::new(session);
                let with_session = {
                    let session = Arc::clone(&session);
                    service.map_request(move |mut request: Request<Incoming>| {
                        request.extensions_mut().insert(Arc::clone(&session));
                        request
                    })
                };
                let last = tls.last_request();
                let stream = http::serve(stream, with_session, last, drain).await;
                session.sight().await;
                close(stream).await;
            }
        })
        .await;
    }
}

impl PlainListener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `drain` says true, then until every connection has had its answer. Every request
    /// carries the address that it comes from.
    pub async fn serve<S, B>(self, service: S, drain: watch::Receiver<bool>)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: HttpBody + Send + 'static,
    {
        accept(self.socket, PLAIN_CONNECTIONS, drain, move |stream, address, drain| {
            let with_address =
                service.clone().map_request(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(address);
                    request
                });
            async move {
                let last = LAST_REQUEST_TIMEOUT;
                let transport = transport(stream, WRITE_TIMEOUT);
                let mut stream = http::serve(transport, with_address, last, drain).await;
                // The client may be gone already.
                let _closed = timeout(LINGER_TIMEOUT, stream.shutdown()).await;
            }
        })
        .await;
    }
}

/// Accepts up to `limit` connections at once until `drain` says true, then waits for what `connection`
/// made of each stream.
async fn accept<F, C>(
    socket: TcpListener,
    limit: usize,
    mut drain: watch::Receiver<bool>,
    connection: C,
) where
    F: Future<Output = ()> + Send + 'static,
    C: Fn(TcpStream, SocketAddr, watch::Receiver<bool>) -> F,
{
    let places = Arc::new(Semaphore::new(limit));
    let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            _ = drain.wait_for(|drain| *drain) => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = drain.wait_for(|drain| *drain) => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let alive = alive.clone();
                let connection = connection(stream, address, drain.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop((alive, place));
                });
            }
            Err(why) => {
                warn!(error = %why, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop((socket, alive));
    let _never_anything_but_the_end = all_gone.recv().await;
}

impl Tls {
    fn write_timeout(&self) -> Duration {
        match self.purpose {
            ServerPurpose::Est => WRITE_TIMEOUT,
            ServerPurpose::Gateway => FETCH_WRITE_TIMEOUT,
        }
    }

    fn last_request(&self) -> Duration {
        match self.purpose {
            ServerPurpose::Est => LAST_REQUEST_TIMEOUT,
            ServerPurpose::Gateway => LAST_FETCH_TIMEOUT,
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Option<(TlsStream<Transport>, Session)> {
        // Answers are small and whole: they need not wait for more.
        if let Err(why) = stream.set_nodelay(true) {
            debug!(error = %why, "no TCP_NODELAY");
        }
        let presented = Arc::new(OnceLock::new());
        match timeout(HANDSHAKE_TIMEOUT, self.negotiate(stream, &presented)).await {
            Ok(Ok((stream, factory))) => {
                self.metrics.handshake("ok");
                let presented = Arc::into_inner(presented).and_then(OnceLock::into_inner);
                let peer = peer(stream.get_ref().1, address, factory, presented);
                let session = Session::new(peer, self.ledger.clone(), Arc::clone(&self.active));
                return Some((stream, session));
            }
            Ok(Err(why)) => match presented.get() {
                Some(Presented::Rejected { subject, refusal }) => {
                    self.reject(address, subject, refusal).await;
                }
                _ => {
                    self.metrics.handshake("failed");
                    debug!(%address, error = %why, "TLS handshake failed");
                }
            },
            Err(_elapsed) => {
                self.metrics.handshake("timeout");
                debug!(%address, "TLS handshake took too long");
            }
        }
        None
    }

    async fn negotiate(
        &self,
        stream: TcpStream,
        presented: &Arc<OnceLock<Presented>>,
    ) -> io::Result<(TlsStream<Transport>, FactoryId)> {
        let transport = transport(stream, self.write_timeout());
        let start = LazyConfigAcceptor::new(Acceptor::default(), transport).await?;
        let trust = self.trust.load_full();
        let host = start.client_hello().server_name().map(str::to_owned);
        let (factory, certificate) = trust
            .server(host.as_deref())
            .ok_or_else(|| io::Error::other(Refusal::FactoryUnknown))?;
        let verifier = DeviceVerifier::new(trust, Arc::clone(presented));
        let config = server_config(verifier, certificate).map_err(io::Error::other)?;
        Ok((start.into_stream(Arc::new(config)).await?, factory))
    }

    /// Records that a certificate ended a handshake: the client sees no more than a TLS alert.
    async fn reject(&self, address: SocketAddr, subject: &str, refusal: &Refusal) {
        self.metrics.handshake(refusal.code());
        info!(%address, subject, code = refusal.code(), reason = %refusal, "handshake refused");
        let entry = Entry {
            at: UnixTime::now(),
            factory: None,
            actor: address.ip().to_string(),
            action: "handshake".to_owned(),
            subject: subject.to_owned(),
            outcome: Outcome::Refused,
            code: refusal.code().to_owned(),
            detail: refusal.to_string(),
        };
        if let Err(unavailable) = self.ledger.note_stranger(entry).await {
            warn!(reason = %unavailable, "a refused handshake is not on record");
        }
    }
}

/// A connection whose peer must go on reading what is written to it.
type Transport = Pin<Box<TimeoutStream<TcpStream>>>;

fn transport(stream: TcpStream, write_timeout: Duration) -> Transport {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_timeout));
    Box::pin(stream)
}

/// The configuration of one connection: its verifier notes what the client presents.
fn server_config(
    verifier: DeviceVerifier,
    certificate: Arc<SingleCertAndKey>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = verifier.provider();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A device comes back in weeks: tickets would be made for nobody, and a resumed session would
    // not verify the certificate again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn peer(
    connection: &ServerConnection,
    address: SocketAddr,
    host_factory: FactoryId,
    presented: Option<Presented>,
) -> Peer {
    let (factory, certificate) = match presented {
        Some(Presented::Verified(factory, certificate)) => (factory, Some(certificate)),
        _ => (host_factory, None),
    };
    let tls13 = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
    let exporter = || connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).ok();
    Peer { address, factory, certificate, channel_binding: if tls13 { exporter() } else { None } }
}

/// Ends a connection so that the client can read the answer to its end (H-05): close_notify, then
/// nothing more is sent, and what still comes is thrown away for a while.
async fn close(mut stream: TlsStream<Transport>) {
    if let Ok(Ok(())) = timeout(LINGER_TIMEOUT, stream.shutdown()).await {
        let mut rest = stream.into_inner().0.take(LINGER_BYTES);
        let mut nowhere = tokio::io::sink();
        let discard = tokio::io::copy(&mut rest, &mut nowhere);
        // Either way the connection is over.
        let _over = timeout(LINGER_TIMEOUT, discard).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_the_shipped_unit_has_descriptors_for_every_connection() {
        let unit = include_str!("../../deploy/estd.service");
        let limit = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).unwrap();
        // The gateway may hold another one for each of its own, to a server behind it.
        let connections = 3 * TLS_CONNECTIONS + PLAIN_CONNECTIONS;
        assert!(limit.parse::<usize>().unwrap() >= connections + 1000, "{limit}");
    }
}
