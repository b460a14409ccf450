//! `estd device-ca`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::ApiClient;
use super::{Global, output, read_file};

#[derive(Subcommand)]
pub(super) enum DeviceCa {
    /// List the Device CAs
    List,
    /// Add a Device CA that the root has signed
    Add {
        /// Its certificate, PEM; a key that waits here makes it online, else it is local
        certificate: Option<PathBuf>,
        /// Make a key for an online Device CA here and print the request for the root to sign
        #[arg(long, conflicts_with = "certificate")]
        online: bool,
    },
}

impl DeviceCa {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let api = ApiClient::new(global)?;
        match self {
            Self::List => list(global, &api.get("device-cas", &[]).await?),
            Self::Add { online: true, .. } => {
                let answer = api.post("device-cas/requests", json!({})).await?;
                if global.json {
                    return output::json(&answer);
                }
                output::line(answer.get("csr").and_then(Value::as_str).unwrap_or("").trim_end())
            }
            Self::Add { certificate: Some(path), .. } => {
                let pem = String::from_utf8(read_file(&path)?)
                    .with_context(|| format!("{} is not PEM", path.display()))?;
                list(global, &api.post("device-cas", json!({ "certificate": pem })).await?)
            }
            Self::Add { certificate: None, .. } => bail!("name a certificate, or --online"),
        }
    }
}

fn list(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(answer);
    }
    let cas = answer.get("device_cas").and_then(Value::as_array).cloned().unwrap_or_default();
    let keys = ["subject", "serial", "kind", "key_algorithm", "not_before", "not_after", "state"];
    let rows: Vec<_> = cas.iter().map(|ca| keys.map(|key| output::field(ca, key))).collect();
    output::table(["SUBJECT", "SERIAL", "KIND", "KEY", "FROM", "UNTIL", "STATE"], &rows)
}
