//! `estd rotation watch`: the progress of a rotation, live.

use std::collections::VecDeque;
use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::sleep;

use super::super::api_client::ApiClient;
use super::super::{Global, output};
use super::{counts, look_at, path, with_reason};

/// How often the server is asked.
const STEP: Duration = Duration::from_secs(1);
/// How many devices of each kind are shown.
const WORST: usize = 3;
/// What the rate looks back on.
const RATE_SPAN: Duration = Duration::from_mins(1);

/// Follows a rotation until it ends: a bar on a terminal, a line for each change in a pipe.
pub(super) async fn watch(global: &Global, api: &ApiClient, id: &str) -> anyhow::Result<ExitCode> {
    let bar = (!global.json && stderr().is_terminal()).then(bar);
    let mut rate = Rate::default();
    let mut told = String::new();
    let status = loop {
        let status = api.get(&path(id), &[]).await?;
        let confirmed = count(&status, "confirmed");
        rate.note(confirmed);
        let line = progress(&status, &rate);
        match &bar {
            Some(bar) => {
                let done = confirmed + count(&status, "failed") + count(&status, "skipped");
                bar.set_length(field(&status, "devices"));
                bar.set_position(done);
                bar.set_message(format!("{line}{}", worst(&status)));
            }
            None => tell(global, &status, &mut told)?,
        }
        if ["finished", "aborted"].contains(&output::field(&status, "state").as_str()) {
            break status;
        }
        sleep(STEP).await;
    };
    if let Some(bar) = bar {
        bar.abandon();
    }
    if !global.json {
        look_at(&status)?;
    }
    let well = output::field(&status, "state") == "finished" && count(&status, "failed") == 0;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints how it stands if that is not what was told last.
fn tell(global: &Global, status: &Value, told: &mut String) -> anyhow::Result<()> {
    let now = format!("{}; {}", with_reason(status), counts(status));
    if now == *told {
        return Ok(());
    }
    *told = now;
    if global.json {
        return output::line(&status.to_string());
    }
    output::line(told)
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
    let bar = ProgressBar::no_length();
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn progress(status: &Value, rate: &Rate) -> String {
    let mut told = format!("{}; {}", with_reason(status), counts(status));
    if let Some(per_minute) = rate.per_minute() {
        told = format!("{told}; {per_minute:.0} confirmed/min");
    }
    match output::field(status, "projected_end").as_str() {
        "-" => told,
        end => format!("{told}; last slot {end}"),
    }
}

/// The devices to look at, each on a line of its own below the bar.
fn worst(status: &Value) -> String {
    let groups = ["failed", "slowest_to_confirm", "slowest_to_ask"];
    let devices = groups.iter().filter_map(|key| status.get(*key)?.as_array());
    let lines = devices.flat_map(|devices| devices.iter().take(WORST)).map(|device| {
        let said = ["name", "state", "reason", "detail"].map(|key| output::field(device, key));
        let since = output::field(device, "since");
        let said: Vec<_> = said.into_iter().filter(|said| said != "-").collect();
        format!("\n  {} since {since}", said.join(" "))
    });
    lines.collect()
}

fn count(status: &Value, state: &str) -> u64 {
    status.get("counts").map_or(0, |counts| field(counts, state))
}

fn field(object: &Value, key: &str) -> u64 {
    object.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// How many devices were confirmed when, of late.
#[derive(Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn note(&mut self, confirmed: u64) {
        let now = Instant::now();
        self.0.push_back((now, confirmed));
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_SPAN) {
            self.0.pop_front();
        }
    }

    fn per_minute(&self) -> Option<f64> {
        let ((start, first), (end, last)) = (self.0.front()?, self.0.back()?);
        let seconds = end.duration_since(*start).as_secs_f64();
        let confirmed = u32::try_from(last.saturating_sub(*first)).ok()?;
        (seconds > 1.0).then(|| f64::from(confirmed) * 60.0 / seconds)
    }
}
