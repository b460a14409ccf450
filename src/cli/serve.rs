//! `estd serve`.

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

use super::{Global, output};
use crate::config::{Config, ServeOverrides};
use crate::keys::Token;
use crate::model::Label;
use crate::serve::Server;
use crate::telemetry;

#[derive(clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    overrides: ServeOverrides,
    /// Only say whether the configuration can be used, and what it means
    #[arg(long)]
    check: bool,
}

impl Serve {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let config = global.config(&self.overrides)?;
        if self.check {
            check_token(&config).await?;
            let labels: Vec<&str> = config.profiles.labelled.keys().map(Label::as_str).collect();
            if global.json {
                return output::json(&json!({
                    "data_dir": config.data_dir,
                    "est.listen": config.est_listen,
                    "gateway.listen": config.gateway_listen,
                    "gateway.upstream": config.gateway_upstream.map(|uri| uri.to_string()),
                    "api.listen": config.api_listen,
                    "est.labels": labels,
                    "keys.pkcs11.token": config.pkcs11.map(|pkcs11| pkcs11.token),
                }));
            }
            output::line("The configuration can be used.")?;
            output::line(&format!("data_dir    {}", config.data_dir.display()))?;
            output::line(&format!("est.listen  {}", config.est_listen))?;
            output::line(&format!("gateway.listen  {}", config.gateway_listen))?;
            if let Some(upstream) = &config.gateway_upstream {
                output::line(&format!("gateway.upstream  {upstream}"))?;
            }
            output::line(&format!("api.listen  {}", config.api_listen))?;
            output::line(&format!("est.labels  {}", labels.join(", ")))?;
            if let Some(pkcs11) = &config.pkcs11 {
                output::line(&format!("keys.pkcs11 {:?}: logged in", pkcs11.token))?;
            }
            return Ok(());
        }
        telemetry::start_logging(config.log_format, &config.log_filter)?;
        // Before the start, so that a signal that comes early is not lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let server = Server::start(config).await?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => if let Err(why) = server.reload().await {
                    error!(error = format!("{why:#}"), "cannot reload; what was in use stays");
                },
            }
        }
        server.stop().await;
        Ok(())
    }
}

/// Logs in to the token, if there is one.
async fn check_token(config: &Config) -> anyhow::Result<()> {
    let Some(pkcs11) = &config.pkcs11 else { return Ok(()) };
    let checked = Token::new(pkcs11.clone()).check().await;
    checked.map_err(|why| anyhow::anyhow!("the configuration cannot be used:\n  {why}"))
}
