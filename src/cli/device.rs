//! `estd device`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::{ApiClient, percent_encode};
use super::client::first;
use super::{Global, output};
use crate::pki;

/// How many certificates the API takes at once.
const REPORT: usize = 100;

#[derive(Subcommand)]
pub(super) enum Device {
    /// List the devices and their current credentials
    List(Wanted),
    /// Tell the story of one device
    Show {
        /// Its name: the common name of its subject
        name: String,
    },
    /// Let a device come back once with a certificate that is unknown, was replaced or denied.
    /// Without --certificate whoever comes first in its name is let in
    Allow {
        /// Its name: the common name of its subject
        name: String,
        /// Only with the certificate of this SHA-256, as the alarm in `estd audit list` shows it
        #[arg(long, value_name = "SHA256")]
        certificate: Option<String>,
    },
    /// Withdraw what `allow` gave, if it was not used yet
    Disallow {
        /// Its name: the common name of its subject
        name: String,
    },
    /// Say that devices were seen elsewhere, at a gateway that is not ours, with these certificates:
    /// it counts like a session here
    Seen {
        /// Their certificates, PEM; of a chain the first counts
        #[arg(required = true)]
        certificates: Vec<PathBuf>,
        /// Where they connected from
        #[arg(long, value_name = "IP[:PORT]")]
        address: Option<String>,
    },
    /// Refuse a device from now on, with every certificate that it has
    Deny {
        /// Its name: the common name of its subject
        name: String,
    },
}

impl Device {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let api = ApiClient::new(global)?;
        match self {
            Self::List(wanted) => list(global, &api, &wanted).await,
            Self::Show { name } => {
                let path = format!("devices/{}", percent_encode(&name));
                show(global, &api.get(&path, &[]).await?)
            }
            Self::Allow { name, certificate } => {
                let path = format!("devices/{}/allow", percent_encode(&name));
                let answer = api.post(&path, json!({ "certificate": certificate })).await?;
                if global.json {
                    return output::json(&answer);
                }
                output::line(match certificate {
                    Some(_) => "The device may come back once with that certificate.",
                    None => {
                        "The device may come back once with whatever certificate it has. So may \
                         whoever has its Device CA's key: `estd device disallow` withdraws it."
                    }
                })
            }
            Self::Disallow { name } => {
                let path = format!("devices/{}/allow", percent_encode(&name));
                let answer = api.delete(&path).await?;
                if global.json {
                    return output::json(&answer);
                }
                output::line("The device may come back with a credential of its own only.")
            }
            Self::Seen { certificates, address } => {
                seen(global, &api, &certificates, address.as_deref()).await
            }
            Self::Deny { name } => {
                let path = format!("devices/{}/deny", percent_encode(&name));
                let answer = api.post(&path, json!({})).await?;
                if global.json {
                    return output::json(&answer);
                }
                output::line(&format!(
                    "The device is refused from now on. `estd device allow {name}` lets it back."
                ))
            }
        }
    }
}

/// Reports certificates, as many at once as the API takes; fails if one of them is refused.
async fn seen(
    global: &Global,
    api: &ApiClient,
    files: &[PathBuf],
    address: Option<&str>,
) -> anyhow::Result<()> {
    let read = |path: &PathBuf| {
        let certificate = first(path)?;
        Ok(pki::to_pem("CERTIFICATE", certificate.der())?)
    };
    let pems = files.iter().map(read).collect::<anyhow::Result<Vec<String>>>()?;
    let mut sightings = Vec::new();
    for certificates in pems.chunks(REPORT) {
        let body = json!({ "certificates": certificates, "address": address });
        let answer = api.post("sightings", body).await?;
        let list = answer.get("sightings").and_then(Value::as_array).cloned();
        sightings.extend(list.unwrap_or_default());
    }
    let is_refused = |sighting: &&Value| sighting.get("code").is_some();
    let refused = sightings.iter().filter(is_refused).count();
    let rows: Vec<_> = sightings.iter().map(sighting).collect();
    if global.json {
        output::json(&json!({ "sightings": sightings }))?;
    } else {
        output::table(["DEVICE", "VERDICT"], &rows)?;
    }
    ensure!(refused == 0, "{refused} of {} certificates are refused", rows.len());
    Ok(())
}

fn sighting(sighting: &Value) -> [String; 2] {
    let field = |key| output::field(sighting, key);
    let verdict = match sighting.get("code") {
        Some(_) => format!("{}: {}", field("code"), field("message")),
        None => field("verdict"),
    };
    [field("device"), verdict]
}

/// Which devices; all conditions must hold.
#[derive(clap::Args)]
pub(super) struct Wanted {
    /// Whose certificate in use is of the Device CA with this serial number
    #[arg(long, value_name = "SERIAL")]
    ca: Option<String>,
    /// Whose certificate in use ends before this: a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    expires_before: Option<String>,
    /// Whose certificate in use has a key of this kind, for instance P-256
    #[arg(long, value_name = "KIND")]
    key_algorithm: Option<String>,
    /// That were not seen since: a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    silent_since: Option<String>,
    /// In this group
    #[arg(long)]
    group: Option<String>,
    /// That were issued a certificate that they have not used yet
    #[arg(long)]
    pending: bool,
    /// Write CSV instead of a table
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

impl Wanted {
    fn query(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("device_ca", &self.ca),
            ("expires_before", &self.expires_before),
            ("key_algorithm", &self.key_algorithm),
            ("silent_since", &self.silent_since),
            ("group", &self.group),
        ];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text.clone()?)));
        texts.chain([("pending", self.pending.to_string())]).collect()
    }
}

async fn list(global: &Global, api: &ApiClient, wanted: &Wanted) -> anyhow::Result<()> {
    let mut devices = Vec::new();
    let mut after = String::new();
    loop {
        let mut query = wanted.query();
        query.extend([("limit", "1000".to_owned()), ("after", after.clone())]);
        let page = api.get("devices", &query).await?;
        devices.extend(page.get("devices").and_then(Value::as_array).cloned().unwrap_or_default());
        match page.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    if global.json {
        return output::json(&json!({ "devices": devices }));
    }
    if wanted.csv {
        return csv(&devices);
    }
    let keys = ["name", "device_ca", "expires_at", "pending", "last_seen_at"];
    let rows: Vec<_> =
        devices.iter().map(|device| keys.map(|key| output::field(device, key))).collect();
    output::table(["DEVICE", "DEVICE CA", "UNTIL", "PENDING", "LAST SEEN"], &rows)
}

/// Everything that is known of each device, in the order of the API's words.
fn csv(devices: &[Value]) -> anyhow::Result<()> {
    const KEYS: [&str; 11] = [
        "name",
        "alias",
        "group",
        "denied",
        "registered_at",
        "last_seen_at",
        "device_ca",
        "device_ca_serial",
        "key_algorithm",
        "expires_at",
        "pending",
    ];
    output::csv(&KEYS, devices)
}

fn show(global: &Global, story: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(story);
    }
    output::line(&format!("Device      {}", output::field(story, "name")))?;
    for (title, key) in [("Alias", "alias"), ("Group", "group"), ("Hardware", "hardware_id")] {
        if story.get(key).is_some_and(Value::is_string) {
            output::line(&format!("{title:<10}  {}", output::field(story, key)))?;
        }
    }
    output::line(&format!("Registered  {}", output::field(story, "registered_at")))?;
    output::line(&format!("Last seen   {}", output::field(story, "last_seen_at")))?;
    if story.get("denied_at").is_some_and(Value::is_string) {
        output::line(&format!("Denied      {}", output::field(story, "denied_at")))?;
    }
    if story.get("next_key").is_some_and(Value::is_string) {
        let key = output::field(story, "next_key");
        output::line(&format!("Switches    to the key {key}, not seen in use yet"))?;
    }
    if story.get("allowed_once") == Some(&Value::Bool(true)) {
        output::line(&match story.get("allowed_certificate").and_then(Value::as_str) {
            Some(one) => format!("May come back once with the certificate {one}"),
            None => "May come back once with whatever certificate it has".to_owned(),
        })?;
    }
    let credentials = story.get("credentials").and_then(Value::as_array).cloned();
    let keys = [
        "state",
        "serial",
        "device_ca",
        "key_algorithm",
        "issued_by",
        "recorded_at",
        "first_used_at",
        "not_after",
    ];
    let rows: Vec<_> = credentials
        .unwrap_or_default()
        .iter()
        .map(|credential| keys.map(|key| output::field(credential, key)))
        .collect();
    let head =
        ["STATE", "SERIAL", "DEVICE CA", "KEY", "ISSUED BY", "RECORDED", "FIRST USED", "UNTIL"];
    output::table(head, &rows)?;
    let rotations = story.get("rotations").and_then(Value::as_array).cloned().unwrap_or_default();
    if !rotations.is_empty() {
        let keys = ["rotation", "state", "since", "reason", "detail"];
        let rows: Vec<_> =
            rotations.iter().map(|one| keys.map(|key| output::field(one, key))).collect();
        output::line("")?;
        output::table(["ROTATION", "STATE", "SINCE", "WHY", "MORE"], &rows)?;
    }
    let events = story.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
    if events.is_empty() {
        return Ok(());
    }
    let keys = ["rotation", "step", "success", "details", "device_time"];
    let rows: Vec<_> = events.iter().map(|one| keys.map(|key| output::field(one, key))).collect();
    output::line("\nWhat the device says, which proves nothing:")?;
    output::table(["ROTATION", "STEP", "WELL", "DETAILS", "BY ITS CLOCK"], &rows)
}
