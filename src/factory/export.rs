//! What gateways that are not ours read from files: the Device CAs that are trusted, and the CRLs of
//! what is refused here. A command tells the gateway when they have changed.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
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
use crate::pki::{Fingerprint, Malformed, to_pem};
use crate::telemetry::Metrics;

/// How often it is looked whether there is anything new.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long the command may take.
const HOOK_TIMEOUT: Duration = Duration::from_mins(1);
/// After how many looks a command that failed is tried again.
const HOOK_PAUSE: u32 = 12;
/// How much of what a failed command says is logged, in bytes.
const SAID_LIMIT: usize = 1000;
/// Gateways that run as others read these files.
const MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// What is in each file.
type Written = BTreeMap<PathBuf, Fingerprint>;

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
    #[error("the CRLs of {0} cannot be made anew; the last ones go on")]
    Stale(String),
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
        let (mut written, mut told, mut pause) = (Written::new(), None, 0_u32);
        let mut wrong = String::new();
        loop {
            let before = written.clone();
            let failed = self.write_all(&mut written).await;
            // Once, and not every five seconds.
            if !failed.is_empty() && failed != wrong {
                error!(error = failed, "files for other gateways cannot be written");
            }
            wrong = failed;
            if written != before {
                pause = 0;
            }
            // Nobody knows what a process before this one has told.
            if told.as_ref() != Some(&written) && pause == 0 {
                if self.tell().await {
                    told = Some(written.clone());
                }
                pause = HOOK_PAUSE;
            }
            pause = pause.saturating_sub(1);
            self.metrics.export_is_wrong(told.as_ref() != Some(&written) || !wrong.is_empty());
            tokio::select! {
                () = sleep(INTERVAL) => {}
                _ = drain.wait_for(|drain| *drain) => return,
            }
        }
    }

    /// What goes wrong with one Factory, or one file, keeps no other; all of it in words.
    async fn write_all(&self, written: &mut Written) -> String {
        let active = self.active.load_full();
        let mut wrong = Vec::new();
        for trust in &active.snapshot().factories {
            let cas = self.write_cas(trust, written);
            let lists = self.write_lists(trust, written).await;
            wrong.extend([cas, lists].into_iter().filter_map(Result::err));
        }
        wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn write_cas(&self, trust: &FactoryTrust, written: &mut Written) -> Result<(), ExportError> {
        replace_if_other(self.folder(trust)?.join("cas.pem"), &bundle(trust)?, written)
    }

    async fn write_lists(
        &self,
        trust: &FactoryTrust,
        written: &mut Written,
    ) -> Result<(), ExportError> {
        let of = |source| {
            let factory = trust.factory.name.to_string();
            ExportError::RevocationLists { factory, source }
        };
        let lists = self.revocation_lists.of_factory(trust).await.map_err(of)?;
        let pem: Result<String, _> = lists.iter().map(|der| to_pem("X509 CRL", der)).collect();
        replace_if_other(self.folder(trust)?.join("crls.pem"), &pem?, written)?;
        if self.revocation_lists.stale(trust).await {
            return Err(ExportError::Stale(trust.factory.name.to_string()));
        }
        Ok(())
    }

    /// The folder of a Factory. Gateways run as others, whatever this server's umask is.
    fn folder(&self, trust: &FactoryTrust) -> Result<PathBuf, ExportError> {
        let path = self.to.folder.join(trust.factory.name.as_str());
        let made = fs::create_dir_all(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(FOLDER_MODE)));
        made.map_err(|source| ExportError::File { path: path.clone(), source })?;
        Ok(path)
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
        let Err(failed) = run(command).await else {
            info!(program, "told of new files for other gateways");
            return true;
        };
        error!(program, error = failed, "export.hook failed; it is tried again in a minute");
        false
    }
}

/// Runs a command to its end. What it says goes to a file: a child of it that goes on holds nobody up.
async fn run(mut command: Command) -> Result<(), String> {
    let said = tempfile::tempfile().map_err(|why| why.to_string())?;
    let into = said.try_clone().map_err(|why| why.to_string())?;
    command.stdout(Stdio::null()).stderr(into);
    let mut child = command.spawn().map_err(|why| why.to_string())?;
    match timeout(HOOK_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{status}: {:?}", beginning(said))),
        Ok(Err(why)) => Err(why.to_string()),
        Err(_elapsed) => Err(format!("it took longer than {} s", HOOK_TIMEOUT.as_secs())),
    }
}

fn beginning(mut said: File) -> String {
    let mut bytes = vec![0; SAID_LIMIT];
    let count = said.rewind().and_then(|()| said.read(&mut bytes)).unwrap_or_default();
    bytes.truncate(count);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A file that would be empty is not made; one that is there says that there is nothing any more.
fn replace_if_other(
    path: PathBuf,
    contents: &str,
    written: &mut Written,
) -> Result<(), ExportError> {
    let there = fs::read(&path).ok();
    if there.is_none() && contents.is_empty() {
        return Ok(());
    }
    if there.is_none_or(|there| there != contents.as_bytes()) {
        let replaced = files::replace(&path, contents.as_bytes(), MODE);
        replaced.map_err(|source| ExportError::File { path: path.clone(), source })?;
    }
    written.insert(path, Fingerprint::of(contents.as_bytes()));
    Ok(())
}
