//! A host of its own for each test: a folder, a ledger, and the program run in it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use estd::ledger::Ledger;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;

use crate::offline_root::OfflineRoot;
use crate::process::Process;
use crate::support::{Backend, FACTORY, HOST, fresh_postgres};

/// Where the program runs. Relative file names are below its folder.
pub struct Host {
    folder: TempDir,
    pub ledger_url: String,
    /// What the program finds in its environment.
    pub environment: Vec<(&'static str, String)>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What an offline root signs for a Factory, in the order of the requests' names.
pub const SIGNED: [&str; 3] = ["est-tls", "tls", "device-ca"];

impl Host {
    pub async fn new(backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger_url = match backend {
            Backend::Sqlite => format!("sqlite:{}", folder.path().join("ledger").display()),
            Backend::Postgres => fresh_postgres().await,
        };
        Self { folder, ledger_url, environment: Vec::new() }
    }

    /// A host whose Factory is set up by an offline root, files `root.pem` and those of [`SIGNED`].
    pub async fn with_factory(backend: Backend) -> (Self, OfflineRoot) {
        let host = Self::new(backend).await;
        let root = host.set_up();
        (host, root)
    }

    /// Sets the Factory up by an offline root, as [`Self::with_factory`] does.
    pub fn set_up(&self) -> OfflineRoot {
        let root = self.request_and_sign();
        let install = ["factory", "install", "root.pem", "est-tls.pem", "tls.pem", "device-ca.pem"];
        self.estd(&install).success();
        root
    }

    /// Requests everything for a Factory and lets a new offline root sign it.
    pub fn request_and_sign(&self) -> OfflineRoot {
        self.estd(&CSR).success();
        let root = OfflineRoot::new(self.path(), "root", "/CN=Factory-CA/OU=factory");
        for name in SIGNED {
            root.sign(&format!("{name}.csr"), &format!("{name}.pem"), &[]);
        }
        root
    }

    /// Serves, and enables the Device CA of a factory line: files `line.pem` and `line.key`.
    pub async fn serve_line(&self, root: &OfflineRoot) -> (OfflineRoot, Process) {
        let line = root.device_ca("line", &[]);
        let server = self.serve().await;
        server.estd(self, &["device-ca", "add", "line.pem"]).success();
        server.follows(self).await;
        (line, server)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    /// Writes a file that nobody else may read.
    pub fn write_secret(&self, name: &str, contents: impl AsRef<[u8]>) {
        self.write(name, contents);
        self.set_mode(name, 0o600);
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.file(name), Permissions::from_mode(mode)).unwrap();
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), contents).unwrap();
    }

    /// The program with this host's folder and ledger, and nothing of this process's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare_command();
        command.args(["--data-dir", "data", "--ledger-url", &self.ledger_url]).args(arguments);
        command
    }

    /// The program in this host's folder, without any flag.
    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estd"));
        command.current_dir(self.path()).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn estd(&self, arguments: &[&str]) -> Done {
        Done::of(self.command(arguments))
    }

    /// Starts the server on free ports.
    pub async fn serve(&self) -> Process {
        Process::start(self, &[]).await
    }

    /// The ledger, beside whatever else has it open.
    pub async fn ledger(&self) -> Ledger {
        Ledger::open(&self.ledger_url).await.unwrap()
    }

    /// Runs SQL on the ledger, beside the program.
    pub async fn sql(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.ledger_url.starts_with("sqlite:") {
            let pool = sqlx::SqlitePool::connect(&self.ledger_url).await.unwrap();
            pool.execute(sql).await.unwrap();
        } else {
            let pool = sqlx::PgPool::connect(&self.ledger_url).await.unwrap();
            pool.execute(sql).await.unwrap();
        }
    }

    /// The number that a query of the ledger gives.
    pub async fn number(&self, sql: &'static str) -> i64 {
        if self.ledger_url.starts_with("sqlite:") {
            let pool = sqlx::SqlitePool::connect(&self.ledger_url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap()
        } else {
            let pool = sqlx::PgPool::connect(&self.ledger_url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap()
        }
    }
}

/// What requests everything for the Factory.
pub const CSR: [&str; 6] = ["factory", "csr", "--name", FACTORY, "--est-host", HOST];

impl Done {
    pub fn of(mut command: Command) -> Self {
        command.output().unwrap().into()
    }

    /// What it printed; panics unless it succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(!self.stderr.contains("estd:"), "{self:?}");
        self.stdout
    }

    /// What it printed, as JSON; panics unless it succeeded.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.success();
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"))
    }

    /// Panics unless it failed by exit code 1 with this reason, and nothing else to see.
    #[track_caller]
    pub fn refused(self, reason: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        let one_message = self.stderr.starts_with("estd: ") && !self.stderr.contains("panicked");
        assert!(one_message && self.stderr.contains(reason), "{reason:?} is not in {self:?}");
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
