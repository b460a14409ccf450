//! `estd bootstrap-ca`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::{ApiClient, percent_encode};
use super::{Global, output, read_file};

#[derive(Subcommand)]
pub(super) enum BootstrapCa {
    /// List the bootstrap CAs
    List,
    /// Let devices with a certificate of this CA, their manufacturer's for instance, enrol once
    Add {
        /// Its certificate, PEM
        certificate: PathBuf,
    },
    /// Let no more devices come by this CA; those that came have certificates of their own
    Remove {
        /// The SHA-256 of its public key, as `list` shows it
        key: String,
    },
}

impl BootstrapCa {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let api = ApiClient::new(global)?;
        let answer = match self {
            Self::List => api.get("bootstrap-cas", &[]).await?,
            Self::Add { certificate } => {
                let pem = String::from_utf8(read_file(&certificate)?)
                    .with_context(|| format!("{} is not PEM", certificate.display()))?;
                api.post("bootstrap-cas", json!({ "certificate": pem })).await?
            }
            Self::Remove { key } => {
                api.delete(&format!("bootstrap-cas/{}", percent_encode(&key))).await?
            }
        };
        list(global, &answer)
    }
}

fn list(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(answer);
    }
    let cas = answer.get("bootstrap_cas").and_then(Value::as_array).cloned().unwrap_or_default();
    let keys = ["subject", "public_key_sha256", "not_after"];
    let rows: Vec<_> = cas.iter().map(|ca| keys.map(|key| output::field(ca, key))).collect();
    output::table(["SUBJECT", "KEY SHA-256", "UNTIL"], &rows)
}
