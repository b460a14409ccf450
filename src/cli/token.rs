//! `estd token`.

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::api_client::{ApiClient, percent_encode};
use super::{Global, output};
use crate::model::Role;

#[derive(Subcommand)]
pub(super) enum Token {
    /// Make a token and print it, once; `--factory` binds it to one Factory
    Create {
        /// Who the audit log names for what is done with it
        name: String,
        /// What its bearer may do: read; run the fleet too; or everything
        #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::as_str)))]
        role: String,
        /// How long it is good for; without this, until it is revoked
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        days: Option<u32>,
    },
    /// List the tokens, revoked ones too
    List,
    /// End a token, at once and for good
    Revoke {
        /// Its name
        name: String,
    },
}

impl Token {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let api = ApiClient::new(global)?;
        match self {
            Self::Create { name, role, days } => {
                let body = json!({ "name": name, "role": role, "days": days });
                created(global, &api.post("tokens", body).await?)
            }
            Self::List => list(global, &api.get("tokens", &[]).await?),
            Self::Revoke { name } => {
                let answer = api.delete(&format!("tokens/{}", percent_encode(&name))).await?;
                if global.json {
                    return output::json(&answer);
                }
                output::line(&format!("The token {name} is revoked."))
            }
        }
    }
}

/// The token alone goes to standard output, for scripts to take.
fn created(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(answer);
    }
    let [name, role] = ["name", "role"].map(|key| output::field(answer, key));
    let until = match output::field(answer, "expires_at").as_str() {
        "-" => "until it is revoked".to_owned(),
        end => format!("until {end}"),
    };
    eprintln!("The token {name}: role {role}, {}, {until}.", scope(answer));
    eprintln!("It is shown this once: keep it.");
    output::line(&output::field(answer, "token"))
}

fn list(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(answer);
    }
    let tokens = answer.get("tokens").and_then(Value::as_array).cloned().unwrap_or_default();
    let row = |token: &Value| {
        let [name, role, state, by, created, until] =
            ["name", "role", "state", "created_by", "created_at", "expires_at"]
                .map(|key| output::field(token, key));
        [name, role, scope(token), state, by, created, until]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    output::table(["NAME", "ROLE", "GOOD FOR", "STATE", "MADE BY", "MADE", "UNTIL"], &rows)
}

/// Where a token is good, so that nobody takes one for every Factory for less than it is.
fn scope(token: &Value) -> String {
    match output::field(token, "factory").as_str() {
        "-" => "every Factory".to_owned(),
        name => format!("Factory {name}"),
    }
}
