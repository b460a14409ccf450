//! A whole re-enrolment on a new TLS 1.3 connection with a client certificate, durable record
//! included: what it costs the server in CPU time, as a ratio to the cryptography in it.
//!
//! ```text
//! cargo bench --bench reenrolment
//! cargo bench --bench reenrolment -- --help
//! ```
//!
//! The server is a process of its own, `estd serve` as it is released, so that its CPU time is what
//! the kernel counts for it; the devices are threads of this one.

#![allow(missing_docs, reason = "a benchmark has no users")]
#![allow(unreachable_pub, dead_code, reason = "floor/ and device.rs are shared with others")]
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
mod fleet;
#[path = "../floor/mod.rs"]
mod floor;
mod handshake;
#[path = "../server/mod.rs"]
mod server;

use std::time::{Duration, Instant};

use clap::Parser;

use fleet::{Exchange, Member};
use handshake::Floor;
use server::{Database, Server, Usage};

#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Args {
    /// How many re-enrolments to measure at each concurrency; each is a device of its own
    #[arg(default_value_t = 2000)]
    count: usize,
    /// How many devices talk to the server at once
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    concurrency: Vec<usize>,
    /// Measure on PostgreSQL too, in a new database on this server, which stays there
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Measure on PostgreSQL only
    #[arg(long, requires = "postgres")]
    skip_sqlite: bool,
    /// Let the devices offer X25519MLKEM768 first; the floor stays X25519
    #[arg(long)]
    post_quantum: bool,
    /// Measure simplereenroll alone, for a profiler to look at
    #[arg(long)]
    only_reenrolment: bool,
    /// What the server logs; estd::serve=info must be in it, which tells its addresses
    #[arg(long, default_value = "info")]
    log_filter: String,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let alone = Floor::measure();
    let floor = Floor::measure_on_every_core();
    println!("floor, in memory, median, in µs:           busy   alone");
    let print = |what, part: fn(&Floor) -> Duration| {
        println!("  {what:<38} {:>6} {:>7}", micros(part(&floor)), micros(part(&alone)));
    };
    print("handshake, TLS 1.3, X25519, mutual", |floor| floor.mutual);
    print("request verified, certificate signed", |floor| floor.signatures);
    print("re-enrolment", Floor::reenrolment);
    print("(handshake without client certificate)", |floor| floor.anonymous);
    println!("busy: every core does the same at once, as while the server is measured");
    if !args.skip_sqlite {
        measure(&args, &Database::Sqlite, &floor);
    }
    if let Some(url) = &args.postgres {
        measure(&args, &Database::Postgres(url.clone()), &floor);
    }
}

fn measure(args: &Args, database: &Database, floor: &Floor) {
    let server = Server::start(database, &args.log_filter);
    println!("\n{database}, {} of each, server pid {}:", args.count, server.pid());
    println!(
        "{:<32} {:>7} {:>8} {:>7} {:>7} {:>6} {:>8} {:>7}",
        "on a new TLS 1.3 connection",
        "at once",
        "CPU µs",
        "user",
        "system",
        "ratio",
        "wall/s",
        "a batch"
    );
    for &at_once in &args.concurrency {
        let devices = fleet::devices(&server, args.count, args.post_quantum);
        // Their first contact registers them.
        fleet::run(&server, &devices, at_once, Exchange::CaCertificates);
        eprintln!("{} devices are registered", args.count);

        let row = |what, least, members: &[Member], exchange| {
            let (usage, wall) = run(&server, members, at_once, exchange);
            print_row(what, at_once, args.count, &usage, wall, least);
        };
        if !args.only_reenrolment {
            let strangers = fleet::strangers(&server, args.count, args.post_quantum);
            let cacerts = Exchange::CaCertificates;
            row("cacerts, no client certificate", floor.anonymous, &strangers, cacerts);
            row("cacerts, mutual, contact noted", floor.mutual, &devices, cacerts);
        }
        row("simplereenroll", floor.reenrolment(), &devices, Exchange::Reenrolment);
    }
}

/// What the server used while every member had its exchange, and how long that took.
fn run(
    server: &Server,
    members: &[Member],
    at_once: usize,
    exchange: Exchange,
) -> (Usage, Duration) {
    let before = server.usage();
    let start = Instant::now();
    let answers = fleet::run(server, members, at_once, exchange);
    let wall = start.elapsed();
    let used = server.usage().since(&before);
    fleet::check(members, exchange, &answers);
    (used, wall)
}

fn print_row(
    what: &str,
    at_once: usize,
    count: usize,
    usage: &Usage,
    wall: Duration,
    least: Duration,
) {
    let each = |cpu: Duration| cpu.div_f64(count as f64);
    let cpu = each(usage.user + usage.system);
    let batch = match usage.batches {
        0 => "-".to_owned(),
        batches => format!("{:.1}", count as f64 / batches as f64),
    };
    println!(
        "{what:<32} {at_once:>7} {:>8} {:>7} {:>7} {:>6.2} {:>8.0} {batch:>7}",
        micros(cpu),
        micros(each(usage.user)),
        micros(each(usage.system)),
        cpu.as_secs_f64() / least.as_secs_f64(),
        count as f64 / wall.as_secs_f64(),
    );
}

fn micros(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1e6)
}
