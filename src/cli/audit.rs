//! `estd audit`.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::Value;

use super::api_client::ApiClient;
use super::{Global, output};
use crate::model::audit::Outcome;

#[derive(Subcommand)]
pub(super) enum Audit {
    /// List the latest decisions, newest first
    List(Wanted),
    /// Check that no row was edited, removed or moved
    Verify,
}

/// Which rows; all conditions must hold.
#[derive(clap::Args)]
pub(super) struct Wanted {
    /// How many
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Only rows numbered below this
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// Only this action, for instance simplereenroll
    #[arg(long)]
    action: Option<String>,
    /// Only what was about this, for instance a device
    #[arg(long)]
    subject: Option<String>,
    /// Only what went so
    #[arg(long, value_parser = PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str)))]
    outcome: Option<String>,
    /// Only what was decided then or later: a date, or a time in RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

impl Wanted {
    fn query(self) -> Vec<(&'static str, String)> {
        let conditions = [
            ("before", self.before.map(|number| number.to_string())),
            ("action", self.action),
            ("subject", self.subject),
            ("outcome", self.outcome),
            ("since", self.since),
        ];
        let conditions = conditions.into_iter().filter_map(|(key, value)| Some((key, value?)));
        conditions.chain([("limit", self.limit.to_string())]).collect()
    }
}

impl Audit {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let api = ApiClient::new(global)?;
        match self {
            Self::List(wanted) => {
                list(global, &api.get("audit", &wanted.query()).await?)?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Verify => verify(global, &api.get("audit/verification", &[]).await?),
        }
    }
}

fn list(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(answer);
    }
    let rows = answer.get("rows").and_then(Value::as_array).cloned().unwrap_or_default();
    let keys = ["number", "at", "actor", "action", "subject", "outcome", "code", "detail"];
    let rows: Vec<_> = rows.iter().map(|row| keys.map(|key| output::field(row, key))).collect();
    let head = ["NUMBER", "AT", "ACTOR", "ACTION", "SUBJECT", "OUTCOME", "CODE", "DETAIL"];
    output::table(head, &rows)
}

fn verify(global: &Global, answer: &Value) -> anyhow::Result<ExitCode> {
    let intact = answer.get("intact") == Some(&Value::Bool(true));
    if global.json {
        output::json(answer)?;
    } else if intact {
        output::line(&format!("Intact: {} rows", output::field(answer, "rows")))?;
    } else {
        output::line(&format!("NOT INTACT: {}", output::field(answer, "fault")))?;
    }
    Ok(if intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
