//! How a rotation's cost grows with the fleet: its start, the gathering of its devices, its status and a
//! device's own window, for a small and a large fleet of the same run.
//!
//! `cargo bench --bench rotation [-- DEVICES]`; 1,000,000 devices without an argument.

#![allow(missing_docs, reason = "a benchmark has no users")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::config::{Config, Written};
use estd::factory::{self, Authority};
use estd::keys::KeyStore;
use estd::ledger::{Ledger, NewFactory, NewRotation, Started, Wanted};
use estd::model::rotation::{
    FioconfigSettings, Pace, Plan, RotationName, RotationState, Selection,
};
use estd::model::{FactoryId, FactoryName, HostName};
use estd::pki::Fingerprint;
use estd::serve::{make_data_dir, open_ledger};
use sqlx::AssertSqlSafe;

const SMALL: u32 = 1000;
const LARGE: u32 = 1_000_000;
/// How often what is quick is measured.
const TIMES: u32 = 200;

/// What was measured for one fleet.
struct Figures {
    start: Duration,
    gathered: Duration,
    status: Duration,
    window: Duration,
}

fn main() {
    let said = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let large = said.unwrap_or(LARGE);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (small, grown) = runtime.block_on(async { (measure(SMALL).await, measure(large).await) });
    println!("{:<38} {SMALL:>12} {large:>12} {:>8}", "devices", "ratio");
    for (what, of) in [
        ("start of a rotation, answered after", (|f| f.start) as fn(&Figures) -> Duration),
        ("all its devices gathered after", |f| f.gathered),
        ("its status", |f| f.status),
        ("the window of one device", |f| f.window),
    ] {
        let (one, other) = (of(&small), of(&grown));
        let ratio = other.as_secs_f64() / one.as_secs_f64();
        println!("{what:<38} {:>12} {:>12} {ratio:>8.1}", shown(one), shown(other));
    }
}

fn shown(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ 0..10_000 => format!("{micros} us"),
        micros => format!("{} ms", micros / 1000),
    }
}

async fn measure(devices: u32) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::from_written(Written::default()).unwrap();
    config.data_dir = folder.path().join("data");
    config.ledger = format!("sqlite:{}", folder.path().join("ledger").display());
    make_data_dir(&config.data_dir).unwrap();
    let ledger = open_ledger(&config).await.unwrap();
    let factory = make_factory(&ledger, &config).await;
    make_fleet(&config.ledger, devices).await;

    let begin = Instant::now();
    let new = rotation(factory);
    let name = new.name.clone();
    let Ok(Started::New(started)) = ledger.start_rotation(new, "bench").await else {
        panic!("the rotation did not start");
    };
    let start = begin.elapsed();
    let mut gathering = started.state == RotationState::Preparing;
    while gathering {
        ledger.advance_rotation(started.id).await.unwrap();
        let now = ledger.rotation(factory, &name).await.unwrap().unwrap();
        gathering = now.state == RotationState::Preparing;
    }
    let gathered = begin.elapsed();

    let begin = Instant::now();
    for _ in 0..TIMES {
        let now = ledger.rotation(factory, &name).await.unwrap().unwrap();
        assert_eq!(now.counts.waiting, i64::from(devices));
    }
    let status = begin.elapsed() / TIMES;
    let begin = Instant::now();
    for number in 1..=TIMES {
        let id = i64::from(number * (devices / TIMES));
        let sha256 = Fingerprint::from_bytes(format!("{id:032}").as_bytes()).unwrap();
        let serial = format!("{id:016}");
        let slot = ledger.slot_of(factory, sha256, serial.as_bytes()).await.unwrap();
        let (rotation, slot) = slot.unwrap();
        assert!(rotation.window(&slot, UnixTime::now()).is_some());
    }
    let window = begin.elapsed() / TIMES;
    ledger.close().await;
    Figures { start, gathered, status, window }
}

fn rotation(factory: FactoryId) -> NewRotation {
    let pace = Pace { per_minute: 600, canary: 0, window: None, begin: None, until: None };
    let plan = Plan {
        selection: Selection::default(),
        pace,
        stop: None,
        patience: 3600,
        validity: 0,
        fioconfig: FioconfigSettings::default(),
        reason: String::new(),
    };
    NewRotation {
        factory,
        name: RotationName::parse("certs-1").unwrap(),
        plan,
        wanted: Wanted::default(),
        target: None,
        request: None,
    }
}

async fn make_factory(ledger: &Ledger, config: &Config) -> FactoryId {
    let random = SystemRandom::new();
    let key_store = KeyStore::open(ledger, config).await.unwrap();
    let name = FactoryName::parse("factory").unwrap();
    let root = Authority::root(&name, UnixTime::now(), &random).unwrap();
    let host = HostName::parse("localhost").unwrap();
    let (est_host, gateway_host) = (host.clone(), host);
    let new = NewFactory { name, est_host, gateway_host, any_organizational_unit: false };
    factory::init(ledger, &key_store, new, &root, &random, "bench").await.unwrap();
    ledger.factories().await.unwrap().pop().unwrap().factory.id
}

/// Rows as the ledger would have them; the certificates themselves matter to nothing that is measured.
async fn make_fleet(ledger: &str, devices: u32) {
    let pool = sqlx::SqlitePool::connect(ledger).await.unwrap();
    for sql in [
        "UPDATE ledger_head SET last_id = 10000000".to_owned(),
        format!(
            "INSERT INTO device (id, factory_id, name, allowed_once, registered_at, last_seen_at) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {devices}) \
             SELECT n.i, factory.id, printf('%036d', n.i), 0, 1, n.i % 86400 FROM n, factory"
        ),
        "INSERT INTO credential (id, device_id, device_ca_id, state, sha256, public_key_sha256, \
         certificate, recorded_at, serial, key_algorithm, not_after) \
         SELECT id + 5000000, id, (SELECT MIN(id) FROM device_ca), 'current', \
         CAST(printf('%032d', id) AS BLOB), zeroblob(32), zeroblob(500), 1, \
         CAST(printf('%016d', id) AS BLOB), 'P-256', 1 FROM device"
            .to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    }
    pool.close().await;
}
