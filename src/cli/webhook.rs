//! `estd webhook`.

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::api_client::{ApiClient, percent_encode};
use super::{Global, output};
use crate::model::EventKind;

#[derive(Subcommand)]
pub(super) enum Webhook {
    /// Have what happens posted to a URL, and print the secret of the signatures, once; `--factory`
    /// binds it to the events of one Factory
    Add {
        /// What to call it
        name: String,
        /// Where to post to: http:// or https://
        #[arg(value_name = "URL")]
        target: String,
        /// Only these events; may be given several times
        #[arg(
            long = "event",
            value_name = "EVENT",
            value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str))
        )]
        events: Vec<String>,
    },
    /// List the webhooks, with what waits for each and why
    List,
    /// The events that nobody took in any attempt
    DeadLetters {
        /// The webhook
        name: String,
    },
    /// Deliver those again, and try what waits now
    Redeliver {
        /// The webhook
        name: String,
    },
    /// Post no more, and forget what waits
    Remove {
        /// The webhook
        name: String,
    },
}

impl Webhook {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let api = ApiClient::new(global)?;
        match self {
            Self::Add { name, target, events } => {
                let body = json!({ "name": name, "url": target, "events": events });
                added(global, &api.post("webhooks", body).await?)
            }
            Self::List => list(global, &api.get("webhooks", &[]).await?),
            Self::DeadLetters { name } => {
                let path = format!("webhooks/{}/dead-letters", percent_encode(&name));
                dead_letters(global, &api.get(&path, &[]).await?)
            }
            Self::Redeliver { name } => {
                let path = format!("webhooks/{}/redeliver", percent_encode(&name));
                let answer = api.post(&path, json!({})).await?;
                let count = output::field(&answer, "redelivering");
                told(global, &answer, &format!("Dead letters that are delivered again: {count}"))
            }
            Self::Remove { name } => {
                let answer = api.delete(&format!("webhooks/{}", percent_encode(&name))).await?;
                told(global, &answer, &format!("The webhook {name} is removed."))
            }
        }
    }
}

fn told(global: &Global, answer: &Value, text: &str) -> anyhow::Result<()> {
    if global.json { output::json(answer) } else { output::line(text) }
}

/// The secret alone goes to standard output, for scripts to take.
fn added(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(answer);
    }
    let [name, url] = ["name", "url"].map(|key| output::field(answer, key));
    eprintln!("The webhook {name}: {} of {}, to {url}.", events(answer), scope(answer));
    eprintln!("Its secret is shown this once: give it to whoever verifies the signatures.");
    output::line(&output::field(answer, "secret"))
}

fn list(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(answer);
    }
    let row = |webhook: &Value| {
        let [name, url, pending, since, dead, error] =
            ["name", "url", "pending", "pending_since", "dead_letters", "last_error"]
                .map(|key| output::field(webhook, key));
        [name, scope(webhook), events(webhook), pending, since, dead, url, error]
    };
    let rows: Vec<_> = rows_of(answer, "webhooks").iter().map(row).collect();
    let head = ["NAME", "EVENTS OF", "EVENTS", "WAITING", "SINCE", "DEAD", "URL", "LAST ERROR"];
    output::table(head, &rows)
}

fn dead_letters(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json {
        return output::json(answer);
    }
    let row = |letter: &Value| {
        ["number", "at", "action", "subject", "given_up_at", "error"]
            .map(|key| output::field(letter, key))
    };
    let rows: Vec<_> = rows_of(answer, "dead_letters").iter().map(row).collect();
    output::table(["NUMBER", "AT", "ACTION", "SUBJECT", "GIVEN UP", "ERROR"], &rows)
}

fn rows_of(answer: &Value, key: &str) -> Vec<Value> {
    answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn events(webhook: &Value) -> String {
    let words = rows_of(webhook, "events");
    let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
    if words.is_empty() { "all events".to_owned() } else { words.join(", ") }
}

fn scope(webhook: &Value) -> String {
    match output::field(webhook, "factory").as_str() {
        "-" => "every Factory".to_owned(),
        name => format!("Factory {name}"),
    }
}
