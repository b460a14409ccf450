//! What is not the gateway's own goes to the server behind it, with who asks in headers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, LOCATION};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::agent::{NEW, config, event, say, send};
use crate::on_both_ledgers;
use crate::support::fioctl::Fioctl;
use crate::support::{Backend, Device, FACTORY, TestServer, eventually};

const LARGE: usize = 10 * 1024 * 1024;

/// A server that says what it was asked.
struct Behind {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Behind {
    async fn start(address: &str) -> Self {
        let socket = TcpListener::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let service = Router::new().fallback(move |request: Request| {
            count.fetch_add(1, Ordering::Relaxed);
            told(request)
        });
        let serving = tokio::spawn(async move { axum::serve(socket, service).await.unwrap() });
        Self { address, asked, serving }
    }
}

async fn told(request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/large" {
        return Body::from(vec![b'x'; LARGE]).into_response();
    }
    if head.uri.path() == "/elsewhere" {
        return (axum::http::StatusCode::FOUND, [(LOCATION, "/there")]).into_response();
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes())))
    };
    let headers: serde_json::Map<_, _> = head.headers.iter().map(header).collect();
    let told = json!({
        "method": head.method.as_str(), "uri": head.uri.to_string(), "headers": headers,
        "body": body.len(),
    });
    ([(CONNECTION, "x-secret"), ("x-secret".parse().unwrap(), "y")], axum::Json(told))
        .into_response()
}

async fn with_upstream(backend: Backend, address: SocketAddr) -> TestServer {
    TestServer::start_with(backend, &format!("[gateway]\nupstream = 'http://{address}'")).await
}

async fn asks(
    server: &TestServer,
    device: &Device,
    what: (&str, &str),
    headers: &str,
    body: &str,
) -> Value {
    let answer = send(server, device, what, headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("X-Secret"), None, "it is about the connection");
    serde_json::from_str(answer.text()).unwrap()
}

on_both_ledgers! {
    async fn what_is_not_the_gateways_own_goes_to_the_server_behind_it(backend: Backend) {
        let behind = Behind::start("127.0.0.1:0").await;
        let server = with_upstream(backend, behind.address).await;
        let device = server.device("device-1");
        let spoofed = "Estd-Device: victim\r\nEstd_Factory: other\r\nestd-anything: x\r\n\
                       X-Client-Cert: x\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n\
                       X-Real-IP: 192.0.2.1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: x\r\n\
                       Upgrade: websocket\r\nX-Kept: yes\r\n";
        let what = ("PUT", "//repo/a%2Fb?x=%20y");
        let told = asks(&server, &device, what, spoofed, &"b".repeat(1024 * 1024)).await;
        assert_eq!(told["method"], "PUT");
        assert_eq!(told["uri"], "//repo/a%2Fb?x=%20y", "as it was asked");
        assert_eq!(told["body"], 1024 * 1024);
        let mut headers = told["headers"].as_object().unwrap().clone();
        let mut header = |name: &str| headers.remove(name).map(|value| value.as_str().unwrap().to_owned());
        assert_eq!(header("estd-device").unwrap(), "device-1");
        assert_eq!(header("estd-factory").unwrap(), FACTORY);
        let fingerprint = device.certificate.fingerprint().to_string();
        assert_eq!(header("estd-certificate-sha256").unwrap(), fingerprint);
        let escaped = header("x-client-cert").unwrap();
        let pem = percent_encoding::percent_decode_str(&escaped).decode_utf8().unwrap();
        assert_eq!(pem, estd::pki::to_pem("CERTIFICATE", device.certificate.der()).unwrap());
        assert_eq!(header("x-forwarded-for").unwrap(), "127.0.0.1");
        assert_eq!(header("x-forwarded-proto").unwrap(), "https");
        assert_eq!(header("x-forwarded-host").unwrap(), "localhost");
        assert_eq!(header("host").unwrap(), behind.address.to_string());
        assert_eq!(header("content-length").unwrap(), "1048576");
        assert_eq!(header("x-kept").unwrap(), "yes");
        assert!(headers.is_empty(), "what the device says of itself: {headers:?}");

        let large = send(&server, &device, ("GET", "/large"), "", "").await;
        assert_eq!(large.body.len(), LARGE);
        let elsewhere = send(&server, &device, ("GET", "/elsewhere"), "", "").await;
        assert_eq!((elsewhere.status, elsewhere.header("Location")), (302, Some("/there")));
        server.stop().await;
    }

    /// Devices tell of their updates where they tell of their rotations.
    async fn events_of_no_rotation_are_kept_and_passed_on(backend: Backend) {
        let behind = Behind::start("127.0.0.1:0").await;
        let server = with_upstream(backend, behind.address).await;
        let device = server.device("device-1");
        config(&server, &device, NEW).await;
        let plan = json!({ "id": "certs-1", "select": { "all": true } });
        Fioctl::new(&server).post("/v1/rotations", &plan).await.json(201);
        eventually("it is in the rotation", async || {
            !server.story("device-1").await.rotations.is_empty()
        })
        .await;
        let step = event("1", "certs-1", "Lock device configuration on server", Some(true));
        assert_eq!(say(&server, &device, &json!([step])).await.status, 200);
        assert_eq!(behind.asked.load(Ordering::Relaxed), 0);
        let update = event("2", "update-1", "EcuDownloadStarted", None);
        let body = json!([step, update]).to_string();
        let told = asks(&server, &device, ("POST", "/events"), "", &body).await;
        assert_eq!((&told["uri"], &told["body"]), (&json!("/events"), &json!(body.len())));
        assert_eq!(server.story("device-1").await.events.len(), 2);
        server.stop().await;
    }

    async fn only_whom_the_ledger_accepts_comes_through(backend: Backend) {
        let behind = Behind::start("127.0.0.1:0").await;
        let server = with_upstream(backend, behind.address).await;
        let old = server.device("device-1");
        asks(&server, &old, ("GET", "/x"), "", "").await;
        let new = server.rotate(&old).await;
        asks(&server, &new, ("GET", "/x"), "", "").await;
        for refused in [&old, &server.device("device-1")] {
            assert_eq!(send(&server, refused, ("GET", "/x"), "", "").await.status, 403);
        }
        assert_eq!(send(&server, &new, ("POST", "/config"), "", "").await.status, 405);
        assert_eq!(config(&server, &new, NEW).await.status, 204);
        assert_eq!(behind.asked.load(Ordering::Relaxed), 2);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_a_502_until_it_is_back() {
    let behind = Behind::start("127.0.0.1:0").await;
    let server = with_upstream(Backend::Sqlite, behind.address).await;
    let device = server.device("device-1");
    asks(&server, &device, ("GET", "/x"), "", "").await;
    behind.serving.abort();
    assert!(behind.serving.await.unwrap_err().is_cancelled());
    eventually("the server behind to be away", async || {
        let answer = send(&server, &device, ("GET", "/x"), "", "").await;
        answer.status == 502 && answer.text().ends_with("(upstream-unreachable)\n")
    })
    .await;
    assert_eq!(config(&server, &device, NEW).await.status, 204, "the rest goes on");
    let back = Behind::start(&behind.address.to_string()).await;
    asks(&server, &device, ("GET", "/x"), "", "").await;
    drop(back);
    server.stop().await;
}
