//! `estd device-ca`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::{ApiClient, percent_encode};
use super::{Global, output, read_file};

const PAGE: u32 = 1000;

#[derive(Subcommand)]
pub(super) enum DeviceCa {
    /// List the Device CAs
    List,
    /// Show one Device CA and how many devices depend on it
    Show(Which),
    /// Add a Device CA that the root has signed
    Add {
        /// Its certificate, PEM; a key that waits here makes it online, else it is local
        certificate: Option<PathBuf>,
        /// Make a key for an online Device CA here and print the request for the root to sign
        #[arg(long, conflicts_with = "certificate")]
        online: bool,
        /// Bring back one that was revoked
        #[arg(long, requires = "certificate")]
        again: bool,
    },
    /// Let a Device CA sign nothing and register nobody; devices that are known go on
    Disable(Act),
    /// Undo `disable`
    Enable(Act),
    /// End every connection of its devices, for good; refused while devices depend on it
    Revoke {
        #[command(flatten)]
        act: Act,
        /// Revoke it although exactly this many devices depend on it: they lose their access
        #[arg(long, value_name = "N", default_value_t = 0)]
        strand: u64,
    },
    /// Tell who still depends on a Device CA and keeps it from being revoked
    PhaseOut(Which),
    /// Write the Device CAs that are enabled or disabled as one PEM file, for gateways that read
    /// no more than that (cas.pem)
    Export {
        /// The file; replaced at once and whole if it is there
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
pub(super) struct Which {
    /// The serial number of its certificate, in hex
    serial: String,
}

#[derive(clap::Args)]
pub(super) struct Act {
    /// The serial number of its certificate, in hex
    serial: String,
    /// Why, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
}

impl DeviceCa {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let api = ApiClient::new(global)?;
        match self {
            Self::List => list(global, &api.get("device-cas", &[]).await?),
            Self::Show(Which { serial }) => show(global, &api, &serial).await,
            Self::Add { online: true, .. } => {
                let answer = api.post("device-cas/requests", json!({})).await?;
                if global.json {
                    return output::json(&answer);
                }
                output::line(answer.get("csr").and_then(Value::as_str).unwrap_or("").trim_end())
            }
            Self::Add { certificate: Some(path), again, .. } => {
                let pem = String::from_utf8(read_file(&path)?)
                    .with_context(|| format!("{} is not PEM", path.display()))?;
                let addition = json!({ "certificate": pem, "again": again });
                list(global, &api.post("device-cas", addition).await?)
            }
            Self::Add { certificate: None, .. } => bail!("name a certificate, or --online"),
            Self::Disable(act) => change(global, &api, "disable", &act, 0).await,
            Self::Enable(act) => change(global, &api, "enable", &act, 0).await,
            Self::Revoke { act, strand } => change(global, &api, "revoke", &act, strand).await,
            Self::PhaseOut(Which { serial }) => phase_out(global, &api, &serial).await,
            Self::Export { out } => export(&api, out.as_deref()).await,
        }
    }
}

async fn change(
    global: &Global,
    api: &ApiClient,
    verb: &str,
    act: &Act,
    strand: u64,
) -> anyhow::Result<()> {
    let path = format!("{}/{verb}", path(&act.serial));
    let answer = api.post(&path, json!({ "reason": act.reason, "strand": strand })).await?;
    if global.json {
        return output::json(&answer);
    }
    let (subject, state) = (output::field(&answer, "subject"), output::field(&answer, "state"));
    output::line(&format!("{subject} is {state}"))
}

async fn show(global: &Global, api: &ApiClient, serial: &str) -> anyhow::Result<()> {
    let answer = dependents(api, serial, None, 1).await?;
    if global.json {
        return output::json(&answer);
    }
    let ca = answer.get("device_ca").unwrap_or(&Value::Null);
    for (label, key) in [
        ("Subject", "subject"),
        ("Serial", "serial"),
        ("Kind", "kind"),
        ("State", "state"),
        ("Key", "key_algorithm"),
        ("Key SHA-256", "public_key_sha256"),
        ("From", "not_before"),
        ("Until", "not_after"),
    ] {
        output::line(&format!("{label:<12} {}", output::field(ca, key)))?;
    }
    output::line(&format!("{:<12} {} devices", "Needed by", output::field(&answer, "count")))
}

async fn phase_out(global: &Global, api: &ApiClient, serial: &str) -> anyhow::Result<()> {
    let mut answer = dependents(api, serial, None, PAGE).await?;
    let mut devices = Vec::new();
    loop {
        devices
            .extend(answer.get("devices").and_then(Value::as_array).cloned().unwrap_or_default());
        match answer.get("next").and_then(Value::as_i64) {
            Some(next) => answer = dependents(api, serial, Some(next), PAGE).await?,
            None => break,
        }
    }
    if global.json {
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("devices".to_owned(), devices.into());
        }
        return output::json(&answer);
    }
    let ca = answer.get("device_ca").unwrap_or(&Value::Null);
    let (subject, serial) = (output::field(ca, "subject"), output::field(ca, "serial"));
    let (state, count) = (output::field(ca, "state"), output::field(&answer, "count"));
    output::line(&format!("{subject}, serial {serial}, is {state}."))?;
    if devices.is_empty() {
        return output::line(&format!(
            "No device depends on it: `estd device-ca revoke {serial}` strands nobody."
        ));
    }
    output::line(&format!(
        "{count} devices depend on it; {} of them were not seen for 30 days, and {} were issued a \
         certificate of another Device CA that they have not used yet.",
        output::field(&answer, "silent"),
        output::field(&answer, "unconfirmed"),
    ))?;
    if answer.get("issuing_ca").is_none_or(Value::is_null) {
        output::line(
            "No other Device CA is enabled for issuing: they have nowhere to go (`estd device-ca \
             add --online`).",
        )?;
    }
    match answer.get("rotation").filter(|rotation| !rotation.is_null()) {
        Some(rotation) => output::line(&format!(
            "The rotation {} takes them off it and is {}; its last slot comes {}.",
            output::field(rotation, "id"),
            output::field(rotation, "state"),
            match output::field(rotation, "projected_end").as_str() {
                "-" => "when nobody can say yet",
                end => end,
            },
        ))?,
        None => output::line(&format!(
            "No rotation takes them off it: `estd rotation start --ca {serial}` does."
        ))?,
    }
    let rows: Vec<_> = devices.iter().map(dependent).collect();
    output::table(["DEVICE", "HOLDS", "REPLACEMENT", "LAST SEEN", "UNTIL"], &rows)
}

fn dependent(device: &Value) -> [String; 5] {
    let is = |key| device.get(key) == Some(&Value::Bool(true));
    let holds = if is("current") { "in use" } else { "issued, not seen in use" };
    let replacement = if is("unconfirmed") { "issued, not seen in use" } else { "-" };
    [
        output::field(device, "name"),
        holds.to_owned(),
        replacement.to_owned(),
        output::field(device, "last_seen_at"),
        output::field(device, "expires_at"),
    ]
}

async fn dependents(
    api: &ApiClient,
    serial: &str,
    after: Option<i64>,
    limit: u32,
) -> anyhow::Result<Value> {
    let mut query = vec![("limit", limit.to_string())];
    query.extend(after.map(|after| ("after", after.to_string())));
    api.get(&format!("{}/dependents", path(serial)), &query).await
}

async fn export(api: &ApiClient, out: Option<&Path>) -> anyhow::Result<()> {
    let pem = api.get_text("device-cas/bundle").await?;
    match out {
        Some(path) => output::replace(path, &pem),
        None => output::line(pem.trim_end()),
    }
}

fn path(serial: &str) -> String {
    format!("device-cas/{}", percent_encode(serial))
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
