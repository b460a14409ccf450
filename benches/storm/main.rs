//! A retry storm: thousands of devices that fail at a step after their certificate and begin anew every
//! ten seconds, each time with a new key, as the real agent does; and how healthy devices fare beside.
//!
//! ```text
//! cargo bench --bench storm
//! cargo bench --bench storm -- --help
//! ```
//!
//! The server is a process of its own, `estd serve` as it is released; the devices are threads of this
//! one, on the same machine, and what they cost is not the server's.

#![allow(missing_docs, reason = "a benchmark has no users")]
#![allow(
    unreachable_pub,
    dead_code,
    reason = "the server and the handshakes are shared with others"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking"
)]

#[path = "../../tests/support/device.rs"]
mod device;
#[path = "../floor/mod.rs"]
mod floor;
#[path = "../reenrolment/handshake.rs"]
mod handshake;
#[path = "../server/mod.rs"]
mod server;
mod wire;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

use server::{Database, Server};
use wire::Agent;

/// How soon the agent begins anew: its unit's RestartSec.
const RETRY: Duration = Duration::from_secs(10);
const ROTATION: &str = "certs-1669058841";

#[derive(Parser)]
struct Args {
    /// How many devices fail for ever
    #[arg(default_value_t = 10_000)]
    failing: usize,
    /// How many healthy ones there are beside; one after the other polls and re-enrols
    #[arg(long, default_value_t = 2000)]
    healthy: usize,
    /// How many times what happens is looked at
    #[arg(long, default_value_t = 10)]
    looks: u32,
    /// How many seconds lie between two looks
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many failing devices talk to the server at once
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// On PostgreSQL instead, in a new database on this server, which stays there
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the threads count, until it is looked at.
#[derive(Default)]
struct Counts {
    tries: AtomicU64,
    issued: AtomicU64,
    put_off: AtomicU64,
    broken: AtomicU64,
    polls: Mutex<Vec<Duration>>,
    renewals: Mutex<Vec<Duration>>,
}

/// Half and 99 of 100 took no longer.
struct Latency {
    half: Duration,
    most: Duration,
}

fn main() {
    let args = Args::parse();
    let database = args.postgres.clone().map_or(Database::Sqlite, Database::Postgres);
    let server = Server::start(&database, "warn,estd::serve=info");
    let failing = agents(&server, "failing", args.failing);
    let healthy = agents(&server, "healthy", args.healthy);
    println!("{database}, server pid {}", server.pid());
    for part in [&failing, &healthy] {
        in_parts(part, 8, |agent| assert_eq!(agent.poll(), 204));
    }
    println!("{} failing and {} healthy devices are registered", failing.len(), healthy.len());
    rotate(&server, failing.len() + healthy.len());

    let (counts, over, storming) =
        (Counts::default(), AtomicBool::new(false), AtomicBool::new(false));
    println!(
        "{:>8} {:>9} {:>8} {:>8} {:>7} {:>9} | {:>9} {:>9} {:>6} | {:>9} {:>9} {:>6} | {:>8}",
        "seconds",
        "retries/s",
        "issued",
        "put off",
        "broken",
        "CPU cores",
        "poll p50",
        "p99 µs",
        "ratio",
        "renew p50",
        "p99 µs",
        "ratio",
        "MB"
    );
    thread::scope(|scope| {
        for part in failing.chunks(failing.len().div_ceil(args.at_once).max(1)) {
            scope.spawn(|| storm(part, &counts, &storming, &over));
        }
        scope.spawn(|| live(&healthy, &counts, &over));
        let mut quiet = None;
        for look in 0..=args.looks {
            let (before, start) = (server.usage(), Instant::now());
            thread::sleep(Duration::from_secs(args.seconds));
            let usage = server.usage().since(&before);
            let cores = (usage.user + usage.system).as_secs_f64() / start.elapsed().as_secs_f64();
            let seen = (latency(&counts.polls), latency(&counts.renewals));
            let quiet = quiet.get_or_insert((seen.0.most, seen.1.most));
            print_row(look, &args, &counts, cores, &seen, quiet, server.disk());
            storming.store(true, Ordering::Relaxed);
        }
        over.store(true, Ordering::Relaxed);
    });
    let shown = server.ask("GET", &format!("/v1/rotations/{ROTATION}"), "");
    let shown: Value = serde_json::from_str(shown.split_once("\r\n\r\n").unwrap().1).unwrap();
    println!("the rotation: {} {}", shown["state"], shown["counts"]);
}

fn agents(server: &Server, kind: &str, count: usize) -> Vec<Agent> {
    (0..count).map(|number| Agent::new(server, &format!("{kind}-{number}"))).collect()
}

fn in_parts(agents: &[Agent], parts: usize, act: impl Fn(&Agent) + Sync) {
    thread::scope(|scope| {
        for part in agents.chunks(agents.len().div_ceil(parts).max(1)) {
            scope.spawn(|| part.iter().for_each(&act));
        }
    });
}

fn rotate(server: &Server, count: usize) {
    let serial = server.factory_line.certificate().serial().to_string();
    let asked = json!({
        "id": ROTATION, "select": { "device_ca": serial }, "pace": { "per_minute": 300_000 },
        "stop": { "never": true },
    });
    let answer = server.ask("POST", "/v1/rotations", &asked.to_string());
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let offered = format!("\"offered\":{count}");
    while !server.ask("GET", &format!("/v1/rotations/{ROTATION}"), "").contains(&offered) {
        thread::sleep(Duration::from_millis(100));
    }
}

/// Each device of the part begins anew every ten seconds, or as soon after as can be.
fn storm(part: &[Agent], counts: &Counts, storming: &AtomicBool, over: &AtomicBool) {
    while !storming.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
    let start = Instant::now();
    for round in 0.. {
        for (number, agent) in part.iter().enumerate() {
            let share = number as f64 / part.len() as f64;
            let due = start + RETRY.mul_f64(f64::from(round) + share);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if over.load(Ordering::Relaxed) {
                return;
            }
            counts.tries.fetch_add(1, Ordering::Relaxed);
            let came_to = match agent.fails(ROTATION) {
                Ok(200) => &counts.issued,
                Ok(429) => &counts.put_off,
                _ => &counts.broken,
            };
            came_to.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One device after the other polls, then has a certificate issued.
fn live(agents: &[Agent], counts: &Counts, over: &AtomicBool) {
    for agent in agents.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let start = Instant::now();
        assert_eq!(agent.poll(), 200);
        counts.polls.lock().unwrap().push(start.elapsed());
        let start = Instant::now();
        assert_eq!(agent.renew(), 200);
        counts.renewals.lock().unwrap().push(start.elapsed());
        thread::sleep(Duration::from_millis(10));
    }
}

fn latency(all: &Mutex<Vec<Duration>>) -> Latency {
    let mut all = std::mem::take(&mut *all.lock().unwrap());
    all.sort_unstable();
    let at = |share: usize| all.get(all.len() * share / 100).copied().unwrap_or_default();
    Latency { half: at(50), most: at(99) }
}

fn print_row(
    look: u32,
    args: &Args,
    counts: &Counts,
    cores: f64,
    (polls, renewals): &(Latency, Latency),
    quiet: &(Duration, Duration),
    disk: u64,
) {
    let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
    let rate = take(&counts.tries) as f64 / args.seconds as f64;
    let ratio = |now: Duration, quiet: Duration| now.as_secs_f64() / quiet.as_secs_f64();
    println!(
        "{:>8} {rate:>9.0} {:>8} {:>8} {:>7} {cores:>9.2} | {:>9} {:>9} {:>6.1} | {:>9} {:>9} {:>6.1} | {:>8.0}",
        u64::from(look) * args.seconds,
        take(&counts.issued),
        take(&counts.put_off),
        take(&counts.broken),
        polls.half.as_micros(),
        polls.most.as_micros(),
        ratio(polls.most, quiet.0),
        renewals.half.as_micros(),
        renewals.most.as_micros(),
        ratio(renewals.most, quiet.1),
        disk as f64 / 1e6,
    );
}
