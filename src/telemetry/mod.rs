//! What the server tells about itself: logs and metrics. Never a key, a token or a whole request.

mod metrics;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use metrics::{Metrics, Reading, Verdict};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error("log.filter: {0}")]
    Filter(#[from] ParseError),
    /// Something else logs already.
    #[error("logging is set up already: {0}")]
    Taken(#[from] TryInitError),
}

/// Starts logging to standard error. `filter` is as the crate `tracing-subscriber` reads it, for
/// instance `info` or `estd=debug`.
///
/// # Errors
/// When the filter is none, or logging is set up already.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let terminal = io::stderr().is_terminal();
    match format {
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
        LogFormat::Auto if !terminal => lines.json().flatten_event(true).finish().try_init()?,
        LogFormat::Text | LogFormat::Auto => lines.with_ansi(terminal).finish().try_init()?,
    }
    Ok(())
}
