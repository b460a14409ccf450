//! `estd request`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::ApiClient;
use super::{Global, output};

#[derive(Subcommand)]
pub(super) enum Request {
    /// List the requests that wait or were decided
    List,
    /// Say yes: the device gets its certificate when it asks again
    Approve {
        /// Its id
        id: i64,
    },
    /// Say no: the device is refused when it asks again
    Reject {
        /// Its id
        id: i64,
    },
}

impl Request {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let api = ApiClient::new(global)?;
        let answer = match self {
            Self::List => api.get("held-requests", &[]).await?,
            Self::Approve { id } => {
                api.post(&format!("held-requests/{id}/approve"), json!({})).await?
            }
            Self::Reject { id } => {
                api.post(&format!("held-requests/{id}/reject"), json!({})).await?
            }
        };
        if global.json {
            return output::json(&answer);
        }
        let held = answer.get("held_requests").and_then(Value::as_array).cloned();
        let keys = ["id", "device", "operation", "key_algorithm", "request_sha256", "state"];
        let rows: Vec<_> = held
            .unwrap_or_default()
            .iter()
            .map(|request| keys.map(|key| output::field(request, key)))
            .collect();
        output::table(["ID", "DEVICE", "OPERATION", "KEY", "REQUEST", "STATE"], &rows)
    }
}
