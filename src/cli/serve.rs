//! `estd serve`.

use std::path::Path;

use anyhow::{Context, bail};
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
            return check(config, global.json).await;
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

/// Says what the configuration means, if it can be used. Nothing is made.
async fn check(config: Config, json: bool) -> anyhow::Result<()> {
    let checked = async {
        check_token(&config).await?;
        check_export(&config)
    };
    if let Err(why) = checked.await {
        bail!("the configuration cannot be used:\n  {why:#}");
    }
    let labels: Vec<&str> = config.profiles.labelled.keys().map(Label::as_str).collect();
    if json {
        return output::json(&json!({
            "data_dir": config.data_dir,
            "est.listen": config.est_listen,
            "gateway.listen": config.gateway_listen,
            "gateway.upstream": config.gateway_upstream.map(|uri| uri.to_string()),
            "export.folder": config.export.map(|export| export.folder),
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
    if let Some(export) = &config.export {
        output::line(&format!("export.folder  {}", export.folder.display()))?;
    }
    output::line(&format!("api.listen  {}", config.api_listen))?;
    output::line(&format!("est.labels  {}", labels.join(", ")))?;
    if let Some(pkcs11) = &config.pkcs11 {
        output::line(&format!("keys.pkcs11 {:?}: logged in", pkcs11.token))?;
    }
    Ok(())
}

/// Logs in to the token, if there is one.
async fn check_token(config: &Config) -> anyhow::Result<()> {
    let Some(pkcs11) = &config.pkcs11 else { return Ok(()) };
    Ok(Token::new(pkcs11.clone()).check().await?)
}

/// Writes into the folder of files for other gateways, or where it will be made.
fn check_export(config: &Config) -> anyhow::Result<()> {
    let Some(export) = &config.export else { return Ok(()) };
    let there = export.folder.ancestors().find(|path| path.exists());
    let tried = tempfile::tempfile_in(there.unwrap_or(Path::new(".")));
    tried.with_context(|| format!("export.folder: {}", export.folder.display()))?;
    Ok(())
}
