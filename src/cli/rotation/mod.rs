//! `estd rotation`.

mod start;
mod watch;

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::{ApiClient, percent_encode};
use super::{Global, output};

#[derive(Subcommand)]
pub(super) enum Rotation {
    /// Start a rotation, or with --dry-run tell which devices it would take
    Start(Box<start::Start>),
    /// List the rotations, the latest first
    List,
    /// Tell how a rotation stands, with the devices to look at
    Show {
        /// Its id
        id: String,
    },
    /// Follow a rotation until it ends: a bar on a terminal, a line for each change in a pipe. Succeeds
    /// if it finishes and no device has failed
    Watch {
        /// Its id
        id: String,
    },
    /// Give out no more slots for now
    Pause(Act),
    /// Go on after a pause, also after one that the rotation made by itself
    Resume {
        #[command(flatten)]
        act: Act,
        /// Wait no more for canaries that are still under way
        #[arg(long)]
        past_canaries: bool,
    },
    /// End a rotation. What its devices were given stays good
    Abort(Act),
    /// Give the devices that failed another slot
    Retry(Act),
    /// Write its devices with their states as CSV, or with --json as JSON
    Export {
        /// Its id
        id: String,
        /// Only the devices in this state
        #[arg(long)]
        state: Option<String>,
        /// Instead, the file that starts the rotation on fioconfig devices, as fioctl would send it
        #[arg(long, conflicts_with = "state")]
        fioconfig: bool,
    },
}

#[derive(clap::Args)]
pub(super) struct Act {
    /// The rotation's id
    id: String,
    /// Why, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
}

impl Rotation {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let api = ApiClient::new(global)?;
        let done = match self {
            Self::Start(start) => return start.run(global, &api).await,
            Self::Watch { id } => return watch::watch(global, &api, &id).await,
            Self::List => list(global, &api).await,
            Self::Show { id } => show(global, &api.get(&path(&id), &[]).await?),
            Self::Pause(act) => act.run(global, &api, "pause", None).await,
            Self::Resume { act, past_canaries } => {
                act.run(global, &api, "resume", Some(("past_canaries", past_canaries))).await
            }
            Self::Abort(act) => act.run(global, &api, "abort", None).await,
            Self::Retry(act) => act.run(global, &api, "retry", None).await,
            Self::Export { id, fioconfig: true, .. } => {
                output::json(&api.get(&format!("{}/fioconfig", path(&id)), &[]).await?)
            }
            Self::Export { id, state, .. } => export(global, &api, &id, state).await,
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

impl Act {
    async fn run(
        self,
        global: &Global,
        api: &ApiClient,
        act: &str,
        how: Option<(&str, bool)>,
    ) -> anyhow::Result<()> {
        let path = format!("{}/{act}", path(&self.id));
        let said = how.map(|(key, said)| (key, Value::Bool(said)));
        let said = said.into_iter().chain([("reason", Value::String(self.reason))]);
        let body = said.map(|(key, value)| (key.to_owned(), value)).collect();
        let rotation = api.post(&path, Value::Object(body)).await?;
        if global.json {
            return output::json(&rotation);
        }
        output::line(&format!("{} is {}.", self.id, output::field(&rotation, "state")))
    }
}

fn path(id: &str) -> String {
    format!("rotations/{}", percent_encode(id))
}

async fn list(global: &Global, api: &ApiClient) -> anyhow::Result<()> {
    let mut rotations = Vec::new();
    let mut before = None;
    loop {
        let query: Vec<_> =
            before.iter().map(|before: &i64| ("before", before.to_string())).collect();
        let page = api.get("rotations", &query).await?;
        rotations
            .extend(page.get("rotations").and_then(Value::as_array).cloned().unwrap_or_default());
        before = page.get("next").and_then(Value::as_i64);
        if before.is_none() {
            break;
        }
    }
    if global.json {
        return output::json(&json!({ "rotations": rotations }));
    }
    let row = |rotation: &Value| {
        let counts = rotation.get("counts").unwrap_or(&Value::Null);
        [
            output::field(rotation, "id"),
            output::field(rotation, "state"),
            output::field(rotation, "devices"),
            output::field(counts, "confirmed"),
            output::field(counts, "failed"),
            output::field(rotation, "created_at"),
            output::field(rotation, "reason"),
        ]
    };
    let rows: Vec<_> = rotations.iter().map(row).collect();
    output::table(["ROTATION", "STATE", "DEVICES", "CONFIRMED", "FAILED", "STARTED", "WHY"], &rows)
}

fn show(global: &Global, status: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(status);
    }
    let line = |title: &str, text: &str| output::line(&format!("{title:<10}  {text}"));
    line("Rotation", &output::field(status, "id"))?;
    line("State", &with_reason(status))?;
    line("Devices", &format!("{}: {}", output::field(status, "devices"), counts(status)))?;
    line("Selection", &said(status, "selection"))?;
    line("Pace", &said(status, "pace"))?;
    line("Target", &output::field(status, "target"))?;
    line(
        "Started",
        &format!(
            "{} by {}",
            output::field(status, "created_at"),
            output::field(status, "created_by")
        ),
    )?;
    line("Last slot", &output::field(status, "projected_end"))?;
    look_at(status)
}

/// The devices to look at.
fn look_at(status: &Value) -> anyhow::Result<()> {
    let groups = ["slowest_to_ask", "slowest_to_confirm", "failed"];
    let devices = groups.iter().filter_map(|key| status.get(*key)?.as_array()).flatten();
    let keys = ["name", "state", "since", "last_seen_at", "reason", "detail"];
    let rows: Vec<_> = devices.map(|one| keys.map(|key| output::field(one, key))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output::table(["DEVICE", "STATE", "SINCE", "LAST SEEN", "WHY", "DETAIL"], &rows)
}

fn with_reason(rotation: &Value) -> String {
    let (state, reason) =
        (output::field(rotation, "state"), output::field(rotation, "state_reason"));
    if reason.is_empty() { state } else { format!("{state}: {reason}") }
}

/// `3 waiting, 1 offered, …`, without what there is none of.
fn counts(rotation: &Value) -> String {
    let states = ["waiting", "offered", "issued", "confirmed", "failed", "skipped"];
    let count = |state| Some((state, rotation.get("counts")?.get(state)?.as_i64()?));
    let counts = states.into_iter().filter_map(count).filter(|(_, count)| *count > 0);
    counts.map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

/// What was said in an object: `key value, key value`.
fn said(rotation: &Value, key: &str) -> String {
    let Some(object) = rotation.get(key).and_then(Value::as_object) else {
        return "-".to_owned();
    };
    let keys = object.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key);
    let whole = Value::Object(object.clone());
    let said: Vec<_> = keys
        .map(|key| format!("{} {}", key.replace('_', " "), output::field(&whole, key)))
        .collect();
    if said.is_empty() { "all devices".to_owned() } else { said.join(", ") }
}

async fn export(
    global: &Global,
    api: &ApiClient,
    id: &str,
    state: Option<String>,
) -> anyhow::Result<()> {
    let mut devices = Vec::new();
    let mut after = None;
    loop {
        let mut query = vec![("limit", "1000".to_owned())];
        query.extend(state.iter().map(|state| ("state", state.clone())));
        query.extend(after.iter().map(|after: &String| ("after", after.clone())));
        let page = api.get(&format!("{}/devices", path(id)), &query).await?;
        devices.extend(page.get("devices").and_then(Value::as_array).cloned().unwrap_or_default());
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    if global.json {
        return output::json(&json!({ "devices": devices }));
    }
    let keys = ["name", "ordinal", "state", "since", "reason", "detail", "last_seen_at"];
    output::csv(&keys, &devices)
}
