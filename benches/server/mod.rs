//! The server under measurement: a Factory in a folder on disk, and `estd serve` as a child.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use aws_lc_rs::rand::{self, SystemRandom};
use data_encoding::HEXLOWER;
use estd::clock::UnixTime;
use estd::config::{Config, Written};
use estd::factory::{self, Authority, Installing};
use estd::keys::KeyStore;
use estd::ledger::{Ledger, NewFactory};
use estd::model::{FactoryName, HostName};
use estd::pki::Certificate;
use estd::serve::make_data_dir;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

pub const FACTORY: &str = "factory";
pub const HOST: &str = "localhost";

/// What Linux counts CPU time in, for programs: `USER_HZ`, the same on every architecture in use.
const TICK: Duration = Duration::from_millis(10);
const START_TRIES: u32 = 500;
const START_PAUSE: Duration = Duration::from_millis(20);

/// Where the ledger is.
pub enum Database {
    Sqlite,
    /// In a new database on this server.
    Postgres(String),
}

pub struct Server {
    pub address: SocketAddr,
    pub gateway: SocketAddr,
    pub root: Certificate,
    pub factory_line: Authority,
    pub api: SocketAddr,
    process: Process,
    folder: TempDir,
}

/// A child that ends with its owner.
struct Process(Child);

/// What a server has used so far.
#[derive(Clone, Copy)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    /// Transactions committed.
    pub batches: u64,
}

impl Usage {
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            batches: self.batches - earlier.batches,
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        })
    }
}

impl Server {
    /// Makes a Factory whose devices come from a local Device CA, and serves it.
    pub fn start(database: &Database, log_filter: &str) -> Self {
        // Below target/, not in /tmp, which may be in memory.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = folder.path().join("data");
        make_data_dir(&data).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (url, root, factory_line) = runtime.block_on(async {
            let url = match database {
                Database::Sqlite => format!("sqlite:{}", data.join("ledger.sqlite").display()),
                Database::Postgres(server) => create_database(server).await,
            };
            let (root, line) = make_factory(&url, &data).await;
            (url, root, line)
        });

        let log = folder.path().join("log");
        let process = Command::new(env!("CARGO_BIN_EXE_estd"))
            .args(["serve", "--est-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"])
            .args(["--gateway-listen", "127.0.0.1:0"])
            .args(["--ledger-url", &url, "--log-filter", log_filter, "--data-dir"])
            .arg(&data)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut process = Process(process);
        let [address, gateway, api] = addresses(&log, &mut process.0);
        let root = root.certificate().clone();
        Self { address, gateway, root, factory_line, api, process, folder }
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn usage(&self) -> Usage {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The program's name comes first, in parentheses: proc(5) counts from 1, this from 3.
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |field: usize| TICK * fields[field - 3].parse::<u32>().unwrap();
        Usage { user: ticks(14), system: ticks(15), batches: self.batches() }
    }

    /// The bytes of everything that it has written.
    pub fn disk(&self) -> u64 {
        let files = fs::read_dir(self.folder.path().join("data")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    /// The token of its administrator.
    pub fn token(&self) -> String {
        let token = fs::read_to_string(self.folder.path().join("data/admin-token")).unwrap();
        token.trim().to_owned()
    }

    /// Asks the API, as its administrator; gives the answer whole.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let token = self.token();
        let mut stream = TcpStream::connect(self.api).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             OSF-TOKEN: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            token,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn batches(&self) -> u64 {
        let answer = self.ask("GET", "/metrics", "");
        let name = "estd_ledger_batches_total ";
        let line = answer.lines().find_map(|line| line.strip_prefix(name)).expect(&answer);
        line.parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing more is asked of it, and its folder goes with it. It may have ended by itself.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// The addresses of EST, of the gateway and of the API, as the server's log tells them once it is up.
fn addresses(log: &Path, process: &mut Child) -> [SocketAddr; 3] {
    for _ in 0..START_TRIES {
        let text = fs::read_to_string(log).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let told = ["est", "gateway", "api"].map(|name| line[name].as_str());
            if let [Some(est), Some(gateway), Some(api)] = told {
                return [est, gateway, api].map(|address| address.parse().unwrap());
            }
        }
        let ended = process.try_wait().unwrap();
        assert!(ended.is_none(), "the server has ended: {text}");
        thread::sleep(START_PAUSE);
    }
    panic!("the server does not say that it is up");
}

async fn make_factory(url: &str, data: &Path) -> (Authority, Authority) {
    let (random, now) = (SystemRandom::new(), UnixTime::now());
    let ledger = Ledger::open(url).await.unwrap();
    let mut config = Config::from_written(Written::default()).unwrap();
    config.data_dir = data.to_owned();
    let key = KeyStore::open(&ledger, &config).await.unwrap();
    let name = FactoryName::parse(FACTORY).unwrap();
    let new = NewFactory {
        name: name.clone(),
        est_host: HostName::parse(HOST).unwrap(),
        gateway_host: HostName::parse(HOST).unwrap(),
        any_organizational_unit: false,
    };
    let root = Authority::root(&name, now, &random).unwrap();
    factory::init(&ledger, &key, new, &root, &random, "bench").await.unwrap();
    let line = root.device_ca(&name, "factory line", now, &random).unwrap();
    let trust = ledger.factories().await.unwrap().pop().unwrap();
    let certificates = [line.certificate().clone()];
    let installing = Installing::DeviceCas;
    factory::install(&ledger, &trust.factory, &certificates, installing, "bench").await.unwrap();
    ledger.close().await;
    (root, line)
}

async fn create_database(server: &str) -> String {
    let mut number = [0; 8];
    rand::fill(&mut number).unwrap();
    let name = format!("bench_{}", HEXLOWER.encode(&number));
    let pool = sqlx::PgPool::connect(server).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&pool).await.unwrap();
    pool.close().await;
    let (place, query) = server.split_once('?').unwrap_or((server, ""));
    let (host, _) = place.rsplit_once('/').expect("postgres://HOST/NAME");
    format!("{host}/{name}?{query}")
}
