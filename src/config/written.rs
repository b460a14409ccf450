//! Configuration as it is written. An absent key is `None`; an unknown one is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::SecretSource;
use crate::model;
use crate::telemetry::LogFormat;

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) ledger: Ledger,
    pub(super) keys: Keys,
    pub(super) est: Est,
    pub(super) gateway: Gateway,
    pub(super) api: Api,
    pub(super) export: Export,
    pub(super) rotation: Rotation,
    pub(super) log: Log,
    #[serde(skip)]
    pub(super) secrets: Secrets,
}

/// What never stands in the file.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) key_encryption_key: Option<SecretSource>,
    pub(super) pkcs11_pin: Option<SecretSource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ledger {
    pub(super) url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Keys {
    pub(super) pkcs11: Option<Pkcs11>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pkcs11 {
    pub(super) module: Option<PathBuf>,
    pub(super) token: Option<String>,
    pub(super) pin_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Est {
    pub(super) listen: Option<String>,
    pub(super) public_port: Option<u16>,
    pub(super) registration_authorities: Option<Vec<String>>,
    pub(super) profile: Profile,
    pub(super) labels: BTreeMap<String, Profile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Gateway {
    pub(super) listen: Option<String>,
    pub(super) upstream: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Api {
    pub(super) listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Export {
    pub(super) folder: Option<PathBuf>,
    pub(super) hook: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rotation {
    pub(super) per_minute: Option<u32>,
    pub(super) canary: Option<u32>,
    pub(super) patience_hours: Option<u32>,
    pub(super) pkey_ids: Option<String>,
    pub(super) cert_ids: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) format: Option<LogFormat>,
    pub(super) filter: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Profile {
    pub(super) answer: Option<AnswerStyle>,
    pub(super) validity_days: Option<i64>,
    pub(super) keys: Option<Vec<KeyKind>>,
    pub(super) require_challenge_password: Option<bool>,
    pub(super) approval: Option<Approval>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AnswerStyle {
    Rfc7030,
    Fioconfig,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Approval {
    Automatic,
    Manual,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeyKind {
    P256,
    P384,
    Rsa,
    Ed25519,
}

impl From<AnswerStyle> for model::AnswerStyle {
    fn from(written: AnswerStyle) -> Self {
        match written {
            AnswerStyle::Rfc7030 => Self::Rfc7030,
            AnswerStyle::Fioconfig => Self::Fioconfig,
        }
    }
}

impl From<Approval> for model::Approval {
    fn from(written: Approval) -> Self {
        match written {
            Approval::Automatic => Self::Automatic,
            Approval::Manual => Self::Manual,
        }
    }
}

impl From<KeyKind> for model::KeyKind {
    fn from(written: KeyKind) -> Self {
        match written {
            KeyKind::P256 => Self::P256,
            KeyKind::P384 => Self::P384,
            KeyKind::Rsa => Self::Rsa,
            KeyKind::Ed25519 => Self::Ed25519,
        }
    }
}

/// What the environment and flags say, over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overrides {
    /// The configuration file [default: estd.toml in this folder, if there is one]
    #[arg(long, env = "ESTD_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of keys, the admin token and the embedded ledger [default: ./estd-data]
    #[arg(long, env = "ESTD_DATA_DIR", global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The ledger: sqlite:PATH or postgres://USER@HOST/NAME [default: sqlite in the data folder]
    #[arg(
        long,
        env = "ESTD_LEDGER_URL",
        global = true,
        value_name = "URL",
        hide_env_values = true
    )]
    pub ledger_url: Option<String>,
}

/// What `serve` takes beside [`Overrides`].
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeOverrides {
    /// Where EST listens [default: 0.0.0.0:8443]
    #[arg(long, env = "ESTD_EST_LISTEN", value_name = "ADDRESS:PORT")]
    pub est_listen: Option<String>,
    /// Where the device gateway listens [default: 0.0.0.0:8444]
    #[arg(long, env = "ESTD_GATEWAY_LISTEN", value_name = "ADDRESS:PORT")]
    pub gateway_listen: Option<String>,
    /// The server behind the device gateway, for what is not its own [default: none]
    #[arg(long, env = "ESTD_GATEWAY_UPSTREAM", value_name = "URL")]
    pub gateway_upstream: Option<String>,
    /// Where the API listens, without TLS [default: 127.0.0.1:8080]
    #[arg(long, env = "ESTD_API_LISTEN", value_name = "ADDRESS:PORT")]
    pub api_listen: Option<String>,
    /// What is logged [default: info]
    #[arg(long, env = "ESTD_LOG_FILTER", value_name = "FILTER")]
    pub log_filter: Option<String>,
}

impl Secrets {
    fn of_this_process() -> Self {
        let of = SecretSource::of_this_process;
        Self {
            key_encryption_key: of("ESTD_KEY_ENCRYPTION_KEY", "key-encryption-key"),
            pkcs11_pin: of("ESTD_PKCS11_PIN", "pkcs11-pin"),
        }
    }
}

const DEFAULT_FILE: &str = "estd.toml";

impl Written {
    /// Reads the file, if there is one, and puts the environment and flags over it.
    ///
    /// # Errors
    /// When a file that was named is not there, or a file cannot be read.
    pub fn read(overrides: &Overrides, serve: &ServeOverrides) -> anyhow::Result<Self> {
        let mut written = match &overrides.config {
            Some(path) => Self::read_file(path)?,
            None if Path::new(DEFAULT_FILE).exists() => Self::read_file(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        let over = |key: &mut Option<String>, value: &Option<String>| {
            if value.is_some() {
                key.clone_from(value);
            }
        };
        over(&mut written.ledger.url, &overrides.ledger_url);
        over(&mut written.est.listen, &serve.est_listen);
        over(&mut written.gateway.listen, &serve.gateway_listen);
        over(&mut written.gateway.upstream, &serve.gateway_upstream);
        over(&mut written.api.listen, &serve.api_listen);
        over(&mut written.log.filter, &serve.log_filter);
        if overrides.data_dir.is_some() {
            written.data_dir.clone_from(&overrides.data_dir);
        }
        written.secrets = Secrets::of_this_process();
        Ok(written)
    }

    fn read_file(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the configuration file {}", path.display()))?;
        toml::from_str(&text)
            .map_err(|why| anyhow::anyhow!("{}", without_values(&text, &why)))
            .with_context(|| format!("the configuration file {}", path.display()))
    }
}

/// What is wrong, and where, without the value that stands there: it may hold the ledger's password.
fn without_values(text: &str, why: &toml::de::Error) -> String {
    let start = why.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count();
    let key = text.lines().nth(line).unwrap_or_default();
    let key = key.split('=').next().unwrap_or_default().trim();
    format!("line {}, {key}: {}", line + 1, why.message())
}
