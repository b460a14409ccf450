//! `estd keys`: opens the ledger itself, whether a server runs on it or not.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{ACTOR, Global, output};
use crate::config::ServeOverrides;
use crate::keys::{Rewrapped, rewrap};
use crate::serve::open_ledger;

#[derive(Subcommand)]
pub(super) enum Keys {
    /// Encrypt every private key, and every webhook's secret, in the ledger under a new key-encryption key
    Rewrap {
        /// The file of the new key, made if it is not there [default: a new key takes the place of
        /// the data folder's]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

impl Keys {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let Self::Rewrap { to } = self;
        let config = global.config(&ServeOverrides::default())?;
        let ledger = open_ledger(&config).await?;
        let done = rewrap(&ledger, &config.key_encryption(), to.as_deref(), ACTOR).await;
        ledger.close().await;
        let Rewrapped { keys, webhook_secrets, key_file } = done?;
        if global.json {
            return output::json(&json!({
                "rewrapped": keys,
                "webhook_secrets": webhook_secrets,
                "key_file": key_file,
            }));
        }
        let path = key_file.display();
        let secrets = match webhook_secrets {
            0 => String::new(),
            1 => ", the secret of 1 webhook".to_owned(),
            count => format!(", the secrets of {count} webhooks"),
        };
        output::line(&format!("Rewrapped: {keys} private keys{secrets}, under the key in {path}"))?;
        if key_file != config.key_file() {
            output::line("Give that key to every server of this ledger, where the old one was.")?;
        }
        output::line("Restart every server of this ledger: until then it can make no key.")
    }
}
