//! How long a gateway that is not ours waits for `/v1/authz`, on a connection that it keeps open, as a
//! ratio to an answer that needs nothing.
//!
//! ```text
//! cargo bench --bench authz
//! cargo bench --bench authz -- --help
//! ```

#![allow(missing_docs, reason = "a benchmark has no users")]
#![allow(unreachable_pub, dead_code, reason = "the server is shared with others")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

#[path = "../tests/support/device.rs"]
mod device;
#[path = "server/mod.rs"]
mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use estd::pki::to_pem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use device::Device;
use server::{Database, FACTORY, Server};

#[derive(Parser)]
struct Args {
    /// How many devices are asked about, one after the other
    #[arg(default_value_t = 2000)]
    devices: usize,
    /// How often each is asked about
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// How many connections the gateway keeps
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    connections: Vec<usize>,
    /// On PostgreSQL instead, in a new database on this server, which stays there
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let database = args.postgres.clone().map_or(Database::Sqlite, Database::Postgres);
    let server = Server::start(&database, "warn,estd::serve=info");
    let token = server.token();
    let request = |number: usize| {
        let device = Device::new(&server.factory_line, FACTORY, &format!("device-{number}"));
        let pem = to_pem("CERTIFICATE", device.certificate.der()).unwrap();
        let escaped = utf8_percent_encode(&pem, NON_ALPHANUMERIC);
        format!(
            "GET /v1/authz HTTP/1.1\r\nHost: localhost\r\nOSF-TOKEN: {token}\r\n\
             X-Client-Cert: {escaped}\r\n\r\n"
        )
    };
    let requests: Vec<String> = (0..args.devices).map(request).collect();
    let nothing = vec!["GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(); args.devices];
    println!("{database}, {} devices, µs", args.devices);
    println!("{:<24} {:>11} {:>7} {:>7} {:>7}", "", "connections", "half", "p99", "ratio");
    let registered = ask(&server, &requests, 1);
    print("first contact", 1, &registered, &registered);
    for &connections in &args.connections {
        let least = rounds(&args, || ask(&server, &nothing, connections));
        print("/healthz", connections, &least, &least);
        let warm = rounds(&args, || ask(&server, &requests, connections));
        print("/v1/authz", connections, &warm, &least);
    }
}

fn rounds(args: &Args, mut round: impl FnMut() -> Vec<Duration>) -> Vec<Duration> {
    (0..args.rounds).flat_map(|_| round()).collect()
}

/// Asks all of it over that many connections, each of them one after the other.
fn ask(server: &Server, requests: &[String], connections: usize) -> Vec<Duration> {
    thread::scope(|scope| {
        let parts = requests.chunks(requests.len().div_ceil(connections));
        let threads: Vec<_> = parts
            .map(|part| {
                let mut stream = TcpStream::connect(server.api).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut asked = move |one: &String| exchange(&mut stream, one);
                scope.spawn(move || part.iter().map(&mut asked).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|one| one.join().unwrap()).collect()
    })
}

fn exchange(stream: &mut TcpStream, request: &str) -> Duration {
    let start = Instant::now();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return start.elapsed();
        }
    }
}

fn print(what: &str, connections: usize, all: &[Duration], least: &[Duration]) {
    let at = |all: &[Duration], share: usize| {
        let mut all = all.to_vec();
        all.sort_unstable();
        all[all.len() * share / 100]
    };
    let ratio = at(all, 99).as_secs_f64() / at(least, 99).as_secs_f64();
    println!(
        "{what:<24} {connections:>11} {:>7} {:>7} {ratio:>7.1}",
        at(all, 50).as_micros(),
        at(all, 99).as_micros()
    );
}
