//! What gateways that are not ours read from files: the Device CAs that are trusted, and the CRLs of
//! what is refused here. A command tells the gateway when they have changed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use super::{RevocationListError, RevocationLists};
use crate::config::ExportTo;
use crate::files;
use crate::keys::ActiveSnapshot;
use crate::model::FactoryTrust;
use crate::pki::{Malformed, to_pem};
use crate::telemetry::Metrics;

/// How often it is looked whether there is anything new.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long the command may take.
const HOOK_TIMEOUT: Duration = Duration::from_mins(1);
/// After how many looks a command that failed is tried again.
const HOOK_PAUSE: u32 = 12;
/// How much of what a failed command says is logged, in characters.
const SAID_LIMIT: usize = 1000;
/// Gateways that run as others read these files.
const MODE: u32 = 0o644;

/// Keeps the files those of the ledger.
pub struct Export {
    /// Where to.
    pub to: ExportTo,
    /// The snapshot in use.
    pub active: Arc<ArcSwap<ActiveSnapshot>>,
    /// What makes CRLs.
    pub revocation_lists: Arc<RevocationLists>,
    /// Where it is counted that something goes wrong.
    pub metrics: Arc<Metrics>,
}

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the CRLs of {factory}: {source}")]
    RevocationLists { factory: String, source: RevocationListError },
    #[error(transparent)]
    Encoding(#[from] Malformed),
}

/// The Device CAs of a Factory that are not revoked, in PEM.
///
/// # Errors
/// When one cannot be encoded.
pub fn bundle(trust: &FactoryTrust) -> Result<String, Malformed> {
    trust.trusted_cas().map(|ca| to_pem("CERTIFICATE", ca.certificate.der())).collect()
}

impl Export {
    /// Goes on until `drain` says true.
    pub async fn keep_going(self, mut drain: watch::Receiver<bool>) {
        // Nobody knows what a process before this one has told the gateway.
        let (mut untold, mut pause) = (true, 0_u32);
        let mut wrong = String::new();
        loop {
            match self.write_all().await {
                Ok(changed) => {
                    if changed {
                        (untold, pause) = (true, 0);
                    }
                    wrong.clear();
                }
                // Once, and not every five seconds.
                Err(why) if why.to_string() != wrong => {
                    wrong = why.to_string();
                    error!(error = wrong, "files for other gateways cannot be written");
                }
                Err(_as_before) => {}
            }
            if untold && pause == 0 {
                untold = !self.tell().await;
                pause = HOOK_PAUSE;
            }
            pause = pause.saturating_sub(1);
            self.metrics.export_is_wrong(untold || !wrong.is_empty());
            tokio::select! {
                () = sleep(INTERVAL) => {}
                _ = drain.wait_for(|drain| *drain) => return,
            }
        }
    }

    /// Whether anything has changed. What goes wrong with one Factory does not keep the others.
    async fn write_all(&self) -> Result<bool, ExportError> {
        let active = self.active.load_full();
        let (mut changed, mut failed) = (false, None);
        for trust in &active.snapshot().factories {
            match self.write(trust).await {
                Ok(one) => changed |= one,
                Err(why) => failed = Some(why),
            }
        }
        // Whatever was written is told, before the failure is.
        match failed {
            Some(why) if !changed => Err(why),
            _ => Ok(changed),
        }
    }

    async fn write(&self, trust: &FactoryTrust) -> Result<bool, ExportError> {
        let factory = trust.factory.name.as_str();
        let folder = self.to.folder.join(factory);
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&folder);
        made.map_err(|source| ExportError::File { path: folder.clone(), source })?;
        let cas = replace_if_other(&folder.join("cas.pem"), &bundle(trust)?)?;
        let lists = self.revocation_lists.of_factory(trust).await.map_err(|source| {
            ExportError::RevocationLists { factory: factory.to_owned(), source }
        })?;
        let lists: Result<String, _> = lists.iter().map(|der| to_pem("X509 CRL", der)).collect();
        Ok(replace_if_other(&folder.join("crls.pem"), &lists?)? || cas)
    }

    /// Runs the command; whether it went well.
    async fn tell(&self) -> bool {
        let [program, arguments @ ..] = self.to.hook.as_slice() else { return true };
        let mut command = Command::new(program);
        // The environment of a server has secrets in it.
        command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        for name in ["PATH", "HOME", "LANG"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.env("ESTD_EXPORT", &self.to.folder);
        let failed = match timeout(HOOK_TIMEOUT, command.output()).await {
            Ok(Ok(done)) if done.status.success() => {
                info!(program, "told of new files for other gateways");
                return true;
            }
            Ok(Ok(done)) => {
                let said: String =
                    String::from_utf8_lossy(&done.stderr).chars().take(SAID_LIMIT).collect();
                format!("{}: {said:?}", done.status)
            }
            Ok(Err(why)) => why.to_string(),
            Err(_elapsed) => "it took longer than a minute".to_owned(),
        };
        error!(program, error = failed, "export.hook failed; it is tried again in a minute");
        false
    }
}

fn replace_if_other(path: &Path, contents: &str) -> Result<bool, ExportError> {
    if fs::read(path).is_ok_and(|there| there == contents.as_bytes()) {
        return Ok(false);
    }
    let replaced = files::replace(path, contents.as_bytes(), MODE);
    replaced.map_err(|source| ExportError::File { path: path.to_owned(), source })?;
    Ok(true)
}
