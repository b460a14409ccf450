//! How much is read, and that the answer arrives all the same (H-05, H-08).

use std::io;

use super::{CACERTS, ENROLL, PKCS10, REENROLL, assert_refused, chunked, server};
use crate::support::wire::{get_with, post, post_with};
use crate::support::{Device, TestServer, Tls};

const LIMIT: usize = 64 * 1024;

/// A good request, padded with spaces to this many bytes.
fn padded(device: &Device, length: usize) -> Vec<u8> {
    let mut body = device.request().1.into_bytes();
    body.resize(length, b' ');
    body
}

#[tokio::test]
async fn h_08_64_kib_are_read_and_not_one_byte_more() {
    let server = server().await;
    let device = server.device("device-1");
    for in_chunks in [false, true] {
        let framed = |body: &[u8]| {
            if in_chunks {
                chunked(REENROLL, body, true)
            } else {
                post_with(REENROLL, PKCS10, body)
            }
        };
        let fits = server.send(Some(&device), &framed(&padded(&device, LIMIT))).await.unwrap();
        fits.certificate();
        let over = server.send(Some(&device), &framed(&padded(&device, LIMIT + 1))).await.unwrap();
        assert_refused(&over, 413, "body-too-large");
    }
    assert_eq!(server.refusals().await, ["body-too-large"; 2]);
    server.stop().await;
}

/// The last chunk never comes, and the client goes on sending after its answer.
#[tokio::test]
async fn h_08_a_stream_without_end_is_413_while_it_is_being_sent() {
    let server = server().await;
    let device = server.device("device-1");
    for tls in [Tls::tls12(), Tls::tls13()] {
        let mut wire = server.connect(Some(&device), &tls).await.unwrap();
        wire.write(&chunked(REENROLL, &vec![b'A'; LIMIT + 1], false)).await.unwrap();
        let chunk = format!("{:x}\r\n{}\r\n", 4096, "A".repeat(4096));
        for _ in 0..16 {
            // The server may have closed by now.
            let _maybe_refused_early = wire.write(chunk.as_bytes()).await;
        }
        assert_refused(&wire.read_answer().await.unwrap(), 413, "body-too-large");
        assert!(wire.ends_cleanly().await);
    }
    server.stop().await;
}

/// A client that asks first is told so without being asked for its body.
#[tokio::test]
async fn h_08_expect_continue_is_answered_by_the_verdict() {
    let server = server().await;
    let device = server.device("device-1");
    let head = |length: usize| {
        format!(
            "POST {REENROLL} HTTP/1.1\r\nHost: localhost\r\n{PKCS10}Expect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
    let refused = wire.send(head(LIMIT + 1).as_bytes()).await.unwrap();
    assert_refused(&refused, 413, "body-too-large");

    let body = device.request().1;
    let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
    assert_eq!(wire.send(head(body.len()).as_bytes()).await.unwrap().status, 100);
    wire.send(body.as_bytes()).await.unwrap().certificate();
    server.stop().await;
}

/// E-18: nobody's body is read, and they read why.
#[tokio::test]
async fn e_18_the_answer_reaches_a_client_whose_body_is_not_read() {
    let server = server().await;
    let stranger = "A".repeat(512 * 1024);
    let unread: [(Option<&str>, Vec<u8>, u16, &str); 3] = [
        (None, post(ENROLL, &stranger), 401, "client-certificate-required"),
        (Some("device-1"), post_with(ENROLL, "", stranger.as_bytes()), 415, "content-type"),
        (Some("device-2"), post(CACERTS, &stranger), 405, "method-not-allowed"),
    ];
    for (name, request, status, code) in unread {
        let device = name.map(|name| server.device(name));
        for tls in [Tls::tls12(), Tls::tls13()] {
            let mut wire = server.connect(device.as_ref(), &tls).await.unwrap();
            assert_refused(&wire.send(&request).await.unwrap(), status, code);
            assert!(wire.ends_cleanly().await, "{code}");
        }
    }
    server.stop().await;
}

/// Whoever asks and asks and never reads an answer does not keep the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_a_client_that_does_not_read_is_let_go() {
    let server = server().await;
    let mut wire = server.connect(None, &Tls::default()).await.unwrap();
    let greedy = tokio::spawn(async move {
        let requests = get_with(CACERTS, "").repeat(1000);
        while wire.write(&requests).await.is_ok() {}
        wire
    });
    let url = format!("http://{}/metrics", server.server.api_address());
    let connections = || {
        let metrics = std::process::Command::new("curl").args(["-s", &url]).output().unwrap();
        let metrics = String::from_utf8(metrics.stdout).unwrap();
        let line = metrics.lines().find(|line| line.starts_with("estd_connections ")).unwrap();
        line.trim_start_matches("estd_connections ").parse::<i64>().unwrap()
    };
    assert_eq!(connections(), 1);
    let free = async || {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        connections() == 0
    };
    crate::support::eventually("the connection ends", free).await;
    greedy.await.unwrap();
    server.stop().await;
}

/// The peer may go in the middle of anything: one record where something was asked for.
#[tokio::test]
async fn h_08_a_body_that_breaks_off_is_on_record_once() {
    let server = server().await;
    let device = server.device("device-1");
    let whole = post(REENROLL, &device.request().1);
    let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
    wire.write(&whole[..whole.len() - 20]).await.unwrap();
    drop(wire);
    let recorded = async || server.refusals().await == ["body-broken"];
    crate::support::eventually("a record", recorded).await;
    assert_serves(&server, &device).await;
    assert_eq!(server.refusals().await, ["body-broken"]);
    server.stop().await;
}

/// Whatever is wrong with a head, it is the client's fault, never a 500, and nothing is recorded.
#[tokio::test]
async fn i11_broken_heads_are_refused_and_never_by_500() {
    let server = server().await;
    let device = server.device("device-1");
    for (head, status) in broken_heads() {
        let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
        match wire.send(head.as_bytes()).await {
            Ok(answer) => assert_eq!(answer.status, status, "{head:.80}"),
            Err(why) => panic!("{head:.80}: {why}"),
        }
    }
    assert_serves(&server, &device).await;
    assert!(server.refusals().await.is_empty());
    server.stop().await;
}

fn broken_heads() -> Vec<(String, u16)> {
    let header = |line: &str| format!("POST {REENROLL} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n");
    let many = "X: y\r\n".repeat(200);
    vec![
        ("GET x y z\r\n\r\n".to_owned(), 400),
        ("GET /\u{0} HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        (header("No colon"), 400),
        (header("Content-Length: abc"), 400),
        (header("Content-Length: -1"), 400),
        (header("Content-Length: 99999999999999999999999"), 400),
        (header("Content-Length: 1\r\nContent-Length: 2"), 400),
        (header("Transfer-Encoding: rubbish"), 400),
        (header(&format!("X: {}", "y".repeat(100_000))), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(100_000)), 431),
        (header(many.trim_end()), 431),
    ]
}

/// H-05: the client reads to the end of such an answer, too.
#[tokio::test]
async fn h_05_the_answer_to_a_broken_head_ends_in_close_notify() {
    let server = server().await;
    for (head, _) in broken_heads() {
        for tls in [Tls::tls12(), Tls::tls13()] {
            let mut wire = server.connect(None, &tls).await.unwrap();
            wire.send(head.as_bytes()).await.unwrap();
            assert!(wire.ends_cleanly().await, "{head:.80}");
        }
    }
    server.stop().await;
}

/// Requests of HTTP/1.0 name no host, and are answered and closed.
#[tokio::test]
async fn h_05_http_1_0_is_answered_with_a_length_and_closed() {
    let server = server().await;
    let mut wire = server.connect(None, &Tls::default()).await.unwrap();
    let answer = wire.send(format!("GET {CACERTS} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200);
    let length: usize = answer.header("Content-Length").unwrap().parse().unwrap();
    assert_eq!(length, answer.body.len());
    assert!(wire.ends_cleanly().await);
    server.stop().await;
}

/// H-05 for enrolments; and no request is answered after the last.
#[tokio::test]
async fn h_05_an_enrolment_is_the_last_where_the_client_says_so() {
    let server = server().await;
    let device = server.device("device-1");
    let headers = format!("{PKCS10}Connection: close\r\n");
    let last = post_with(REENROLL, &headers, device.request().1.as_bytes());
    let mut wire = server.connect(Some(&device), &Tls::default()).await.unwrap();
    wire.write(&[last, get_with(CACERTS, "")].concat()).await.unwrap();
    wire.read_answer().await.unwrap().certificate();
    let second: io::Result<_> = wire.read_answer().await;
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    server.stop().await;
}

async fn assert_serves(server: &TestServer, device: &Device) {
    server.reenroll(device, &device.request().1).await.certificate();
}
