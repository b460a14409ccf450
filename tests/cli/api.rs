//! The API over plain HTTP: who may use it, how it says no, what machines read.

use serde_json::Value;

use crate::host::{Done, Host};
use crate::on_both_ledgers;
use crate::operator::session;
use crate::process::Process;
use crate::support::Backend;
use crate::support::wire::{get_with, post};

const WRONG: &str = "Authorization: Bearer wrong\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_whoever_has_a_token_may_use_the_api() {
    let (host, _root) = Host::with_factory(Backend::Sqlite).await;
    let server = host.serve().await;
    let token = host.read("data/admin-token");
    let token = token.trim();
    let allowed = [
        format!("Authorization: Bearer {token}\r\n"),
        format!("authorization: bearer {token}\r\n"),
        format!("OSF-TOKEN: {token}\r\n"),
    ];
    for headers in allowed {
        assert_eq!(server.http("GET", "/v1/factories", &headers, "").status, 200, "{headers}");
    }
    let refused = [
        String::new(),
        WRONG.to_owned(),
        "OSF-TOKEN: wrong\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {token}0\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Cookie: {token}\r\n"),
    ];
    let everything = [
        ("GET", "/v1/factories"),
        ("GET", "/v1/device-cas"),
        ("POST", "/v1/device-cas"),
        ("POST", "/v1/device-cas/requests"),
        ("GET", "/v1/devices"),
        ("GET", "/v1/devices/x"),
        ("POST", "/v1/devices/x/allow"),
        ("GET", "/v1/audit"),
        ("GET", "/v1/audit/verification"),
        ("GET", "/v1/nothing"),
    ];
    for headers in &refused {
        for (method, path) in everything {
            assert_error(&server, method, path, headers, 401);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_api_are_json() {
    let host = Host::new(Backend::Sqlite).await;
    let server = host.serve().await;
    let token = format!("OSF-TOKEN: {}\r\n", host.read("data/admin-token").trim());
    for path in ["/", "/nothing", "/v2/devices", "/v1/nothing", "/v1", "/healthz/x"] {
        assert_error(&server, "GET", path, &token, 404);
    }
    for path in ["/v1/device-cas", "/v1/devices", "/v1/devices/x"] {
        assert_error(&server, "GET", path, &token, 404);
    }
    host.request_and_sign();
    host.estd(&["factory", "install", "root.pem", "est-tls.pem"]).success();
    server.follows(&host).await;
    assert_error(&server, "GET", "/v1/devices/x", &token, 404);
    assert_error(&server, "GET", "/v1/devices/a%0Ab", &token, 400);
    assert_error(&server, "GET", "/v1/devices?factory=other", &token, 404);
    for path in ["/v1/audit?limit=x", "/v1/devices?limit=x", "/v1/devices/%ff"] {
        assert_error(&server, "GET", path, &token, 400);
    }
    assert_error(&server, "DELETE", "/v1/devices", &token, 405);
    assert_error(&server, "POST", "/v1/device-cas", &token, 415);
    let headers = format!("{token}Content-Type: application/json\r\n");
    let answer = server.http("POST", "/v1/device-cas", &headers, "{\"certificate\":\"-\"}");
    assert_eq!(answer.status, 400, "{answer:?}");
    server.stop().await;
}

/// Text a person reads, on standard error, and exit code 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_say_why_they_cannot_ask_the_server() {
    let (host, _root) = Host::with_factory(Backend::Sqlite).await;
    let server = host.serve().await;
    let list = ["device", "list"];
    let with_token = |token: &str| {
        let mut command = server.command(&host, &list);
        command.env("ESTD_TOKEN", token);
        Done::of(command)
    };
    with_token("wrong").refused("the token is not known");
    with_token(host.read("data/admin-token").trim()).success();

    let asking = |arguments: &[&str]| {
        let mut command = host.bare_command();
        command.args(arguments).args(list);
        Done::of(command)
    };
    let (url, est_url) = (server.api_url(), format!("http://{}", server.est));
    asking(&["--url", &url])
        .refused("no ESTD_TOKEN, and no admin token in ./estd-data/admin-token");
    let data = ["--data-dir", "data", "--url"];
    asking(&[&data[..], &["https://127.0.0.1:1"]].concat()).refused("must begin with http://");
    asking(&[&data[..], &["not a url"]].concat()).refused("--url not a url");
    let tls = asking(&[&data[..], &[&est_url]].concat());
    tls.refused("the exchange with the server broke off");
    server.stop().await;
    let gone = asking(&[&data[..], &[&url]].concat());
    assert!(gone.stderr.contains("cannot talk to 127.0.0.1:"), "{gone:?}");
    gone.refused("is the server running? (`estd serve`; or say where by --url)");
}

on_both_ledgers! {
    /// Alive from the start, ready once a Factory can be served, without a restart.
    async fn readyz_follows_the_ledger(backend: Backend) {
        let host = Host::new(backend).await;
        let server = host.serve().await;
        let readyz = || server.get("/readyz").status;
        assert_eq!((server.get("/healthz").status, readyz()), (200, 503));
        host.request_and_sign();
        host.estd(&["factory", "install", "root.pem", "tls.pem", "device-ca.pem"]).success();
        server.follows(&host).await;
        assert_eq!(readyz(), 503);
        host.estd(&["factory", "install", "est-tls.pem"]).success();
        server.follows(&host).await;
        assert_eq!((server.get("/healthz").status, readyz()), (200, 200));
        server.stop().await;
    }

    async fn metrics_count_what_happened(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        let (trust, device) = (root.certificate(), line.device("device", "device-1"));
        let mut wire = server.connect(&trust, Some(&device)).await;
        let cacerts = get_with("/.well-known/est/cacerts", "");
        let reenroll = "/.well-known/est/simplereenroll";
        let requests = [cacerts.clone(), cacerts, post(reenroll, &device.request().1)];
        for request in requests {
            assert_eq!(wire.send(&request).await.unwrap().status, 200);
        }
        let mut nobody = server.connect(&trust, None).await;
        let answer = nobody.send(&post(reenroll, &device.request().1)).await.unwrap();
        assert_eq!(answer.status, 401);

        let metrics = server.get("/metrics");
        assert!(metrics.head.contains("application/openmetrics-text"), "{metrics:?}");
        for line in [
            "estd_est_requests_total{operation=\"cacerts\",verdict=\"ok\"} 2",
            "estd_est_requests_total{operation=\"simplereenroll\",verdict=\"ok\"} 1",
            "estd_est_requests_total{operation=\"simplereenroll\",\
             verdict=\"client-certificate-required\"} 1",
            "estd_tls_handshakes_total{outcome=\"ok\"} 2",
        ] {
            assert!(metrics.body.lines().any(|one| one == line), "{line} is not in {metrics:?}");
        }
        assert!(metrics.body.ends_with("# EOF\n"), "{metrics:?}");
        assert!(metrics.body.contains("\nestd_connections 2\n"), "{metrics:?}");
        assert!(metrics.body.contains("\nestd_ledger_batches_total "), "{metrics:?}");
        assert!(!metrics.body.contains("\nestd_ledger_batches_total 0\n"), "{metrics:?}");
        // An alarm counts wherever it rings: here a mere look at the CA certificates.
        session(&server, &root, &line.device("forged", "device-1")).await;
        let metrics = server.get("/metrics").body;
        assert!(metrics.contains("\nestd_alarms_total 1\n"), "{metrics}");
        let end = line.certificate().validity().not_after.0;
        for what in ["root", "device-ca", "est-tls", "tls"] {
            let name = format!("\nestd_earliest_expiry_timestamp_seconds{{what=\"{what}\"}} ");
            let (_, value) = metrics.split_once(&name).unwrap();
            let value: i64 = value.lines().next().unwrap().parse().unwrap();
            // All were made in this minute; the root lives longer.
            let near = if what == "root" { value > end } else { (value - end).abs() < 60 };
            assert!(near, "{what} {value} {end}");
        }
        drop((wire, nobody));
        server.stop().await;
    }
}

/// The status, and the body that fioctl can show.
fn assert_error(server: &Process, method: &str, path: &str, headers: &str, status: u16) {
    let answer = server.http(method, path, headers, "");
    assert_eq!(answer.status, status, "{method} {path} {headers}: {answer:?}");
    assert!(answer.head.to_lowercase().contains("content-type: application/json"), "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let message = body["message"].as_str().unwrap();
    assert!(!message.is_empty() && body["errors"].as_array().is_some(), "{answer:?}");
}
