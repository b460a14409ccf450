//! Whoever is told of events: a small HTTP server that notes what it is sent and answers as the test
//! says.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::process::eventually;
use crate::support::provider;

/// How the receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    /// It takes the request and says nothing.
    Silence,
    /// Status 200 and a body without end.
    Endless,
    /// To somewhere else.
    Redirect,
}

/// A delivery as it came.
#[derive(Clone, Debug)]
pub struct Delivery {
    head: String,
    pub body: String,
}

pub struct Receiver {
    pub address: SocketAddr,
    scheme: &'static str,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    reply: Arc<Mutex<Reply>>,
}

impl Receiver {
    /// A receiver that answers 204.
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// The same with TLS, by `receiver.pem` and `receiver.key` of this folder.
    pub async fn start_tls(folder: &Path) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join("receiver.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("receiver.key")).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            scheme: if tls.is_some() { "https" } else { "http" },
            deliveries: Arc::default(),
            reply: Arc::new(Mutex::new(Reply::Status(204))),
        };
        let (deliveries, reply) = (Arc::clone(&receiver.deliveries), Arc::clone(&receiver.reply));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (deliveries, reply) = (Arc::clone(&deliveries), Arc::clone(&reply));
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &deliveries, &reply).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(stream, &deliveries, &reply).await,
                            Err(_refused) => None,
                        },
                    }
                });
            }
        });
        receiver
    }

    /// `http://localhost:PORT/hook`.
    pub fn url(&self) -> String {
        format!("{}://localhost:{}/hook?a=b", self.scheme, self.address.port())
    }

    /// From now on it answers so.
    pub fn replies(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// What has come so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap().clone()
    }

    /// Waits until that many deliveries have come.
    pub async fn received(&self, count: usize) -> Vec<Delivery> {
        eventually(&format!("{count} deliveries"), async || {
            let deliveries = self.deliveries();
            (deliveries.len() >= count).then_some(deliveries)
        })
        .await
    }
}

impl Delivery {
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| {
            line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
        });
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head)).split_once(": ").unwrap().1
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The number of the event.
    pub fn number(&self) -> i64 {
        self.json()["id"].as_i64().unwrap()
    }

    /// Whether its signature is by this secret, in hex.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let signature = self.header("estd-signature");
        let (at, tag) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        let key = HEXLOWER.decode(secret.as_bytes()).unwrap();
        let signed = format!("{at}.{}", self.body);
        let tag = HEXLOWER.decode(tag.as_bytes()).unwrap();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes(), &tag).is_ok()
    }

    pub fn request_line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

/// One request and its answer; `None` when the other side has gone.
async fn answer<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: T,
    deliveries: &Mutex<Vec<Delivery>>,
    reply: &Mutex<Reply>,
) -> Option<()> {
    let mut bytes = Vec::new();
    let delivery = loop {
        if let Some(delivery) = whole(&bytes) {
            break delivery;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let reply = *reply.lock().unwrap();
    deliveries.lock().unwrap().push(delivery);
    let head = match reply {
        Reply::Status(status) => format!("HTTP/1.1 {status} so\r\nContent-Length: 0\r\n\r\n"),
        Reply::Silence => return std::future::pending().await,
        Reply::Endless => "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n".to_owned(),
        Reply::Redirect => {
            "HTTP/1.1 307 there\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
    };
    stream.write_all(head.as_bytes()).await.ok()?;
    if reply == Reply::Endless {
        loop {
            stream.write_all(&[b'x'; 8192]).await.ok()?;
        }
    }
    stream.shutdown().await.ok()
}

fn whole(bytes: &[u8]) -> Option<Delivery> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let delivery = Delivery { head: head.to_owned(), body: body.to_owned() };
    let length: usize = delivery.header("content-length").parse().unwrap();
    (body.len() >= length).then_some(delivery)
}
