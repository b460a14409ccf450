//! `estd audit`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::api_client::ApiClient;
use super::{Global, output};

#[derive(Subcommand)]
pub(super) enum Audit {
    /// List the latest decisions, newest first
    List {
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Only rows numbered below this
        #[arg(long, value_name = "NUMBER")]
        before: Option<i64>,
    },
    /// Check that no row was edited, removed or moved
    Verify,
}

impl Audit {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let api = ApiClient::new(global)?;
        match self {
            Self::List { limit, before } => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(before.map(|before| ("before", before.to_string())));
                list(global, &api.get("audit", &query).await?)?;
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
