//! `estd rotation start`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::super::api_client::ApiClient;
use super::super::{Global, output};
use super::watch;

#[derive(clap::Args)]
pub(in crate::cli) struct Start {
    #[command(flatten)]
    wanted: Wanted,
    /// Its id; devices compare it with the last one that they have done [default: certs-UNIXTIME]
    #[arg(long)]
    id: Option<String>,
    /// Why, for people and the audit log
    #[arg(long, default_value = "")]
    reason: String,
    /// The Device CA that shall issue: its serial number [default: whichever issues]
    #[arg(long, value_name = "SERIAL")]
    target: Option<String>,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    stop: Threshold,
    /// How long a device may take to ask, and again to be seen with its new certificate, in hours
    /// [default: 168]
    #[arg(long, value_name = "HOURS")]
    patience: Option<u32>,
    /// The EST label that fioconfig devices are sent to
    #[arg(long)]
    label: Option<String>,
    /// Start nothing; tell which devices it would take
    #[arg(long)]
    dry_run: bool,
    /// Follow it until it ends
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
}

/// Which devices; all that is said must hold.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Wanted {
    /// All devices
    #[arg(long, conflicts_with_all = ["ca", "group", "expires_before", "key_algorithm", "device", "devices_from"])]
    all: bool,
    /// The devices that depend on the Device CA with this serial number: to phase it out
    #[arg(long, value_name = "SERIAL")]
    ca: Option<String>,
    /// The devices in this group
    #[arg(long)]
    group: Option<String>,
    /// The devices whose certificate in use ends before this: a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    expires_before: Option<String>,
    /// The devices whose certificate in use has a key of this kind, for instance P-256
    #[arg(long, value_name = "KIND")]
    key_algorithm: Option<String>,
    /// This device; may be said several times
    #[arg(long, value_name = "NAME")]
    device: Vec<String>,
    /// The devices named in a file, one a line; - reads standard input
    #[arg(long, value_name = "FILE")]
    devices_from: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Pace {
    /// How many devices get their slot in a minute [default: 60, or what the server says]
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// How many devices go first; the others wait until all of these have switched
    #[arg(long, value_name = "N")]
    canary: Option<u32>,
    /// The hours of the day in which slots come, in UTC: 22:00-04:00
    #[arg(long, value_name = "HH:MM-HH:MM")]
    window: Option<String>,
    /// No slot comes before this: a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    begin: Option<String>,
    /// No slot comes after this
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(clap::Args)]
struct Threshold {
    /// Pause when more than this share of the last devices failed [default: 10]
    #[arg(long, value_name = "PERCENT", conflicts_with = "never_stop")]
    stop_percent: Option<u8>,
    /// How many devices that looks back on [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "never_stop")]
    stop_last: Option<u32>,
    /// Never pause by itself
    #[arg(long)]
    never_stop: bool,
}

impl Start {
    pub(super) async fn run(self, global: &Global, api: &ApiClient) -> anyhow::Result<ExitCode> {
        let answer = api.post("rotations", self.asked()?).await?;
        if self.dry_run {
            print_dry_run(global, &answer)?;
            return Ok(ExitCode::SUCCESS);
        }
        let id = output::field(&answer, "id");
        if self.watch {
            return watch::watch(global, api, &id).await;
        }
        if global.json {
            output::json(&answer)?;
            return Ok(ExitCode::SUCCESS);
        }
        let devices = output::field(&answer, "devices");
        let so_far = if output::field(&answer, "state") == "preparing" { " so far" } else { "" };
        output::line(&format!("{id} has started: {devices} devices{so_far}."))?;
        output::line(&format!("Follow it by `estd rotation watch {id}`."))?;
        Ok(ExitCode::SUCCESS)
    }

    fn asked(&self) -> anyhow::Result<Value> {
        Ok(said([
            ("id", self.id.clone().into()),
            ("reason", self.reason.clone().into()),
            ("select", self.wanted.said()?),
            ("target", self.target.clone().into()),
            ("pace", self.pace.said()),
            ("stop", self.stop.said()),
            ("patience_hours", self.patience.into()),
            ("fioconfig", said([("label", self.label.clone().into())])),
            ("dry_run", self.dry_run.into()),
        ]))
    }
}

impl Wanted {
    fn said(&self) -> anyhow::Result<Value> {
        let mut devices = self.device.clone();
        if let Some(file) = &self.devices_from {
            devices.extend(names(file)?);
        }
        // An empty file names no device, which is not the same as naming none.
        let named = !devices.is_empty() || self.devices_from.is_some();
        Ok(said([
            ("all", self.all.then_some(true).into()),
            ("device_ca", self.ca.clone().into()),
            ("group", self.group.clone().into()),
            ("expires_before", self.expires_before.clone().into()),
            ("key_algorithm", self.key_algorithm.clone().into()),
            ("devices", named.then_some(devices).into()),
        ]))
    }
}

impl Pace {
    fn said(&self) -> Value {
        said([
            ("per_minute", self.per_minute.into()),
            ("canary", self.canary.into()),
            ("window", self.window.clone().into()),
            ("begin", self.begin.clone().into()),
            ("until", self.until.clone().into()),
        ])
    }
}

impl Threshold {
    /// `Null` where nothing was said: the server's own rule.
    fn said(&self) -> Value {
        let rule = said([
            ("never", self.never_stop.then_some(true).into()),
            ("percent", self.stop_percent.into()),
            ("last", self.stop_last.into()),
        ]);
        if rule == json!({}) { Value::Null } else { rule }
    }
}

/// An object of what was said.
fn said<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let said = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(said.map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

fn names(file: &Path) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    }
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(names.map(str::to_owned).collect())
}

fn print_dry_run(global: &Global, run: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(run);
    }
    output::line(&format!("{} devices would be in it.", output::field(run, "devices")))?;
    for (key, why) in [
        ("held", "are in another rotation and would be left out"),
        ("on_target", "use a certificate of the target already and would be left out"),
    ] {
        match output::field(run, key).as_str() {
            "0" => {}
            count => output::line(&format!("{count} {why}."))?,
        }
    }
    let some = run.get("some").and_then(Value::as_array).into_iter().flatten();
    for device in some.filter_map(Value::as_str) {
        output::line(&format!("  {}", device.escape_default()))?;
    }
    Ok(())
}
