//! `estd factory`: the first-time set-up opens the ledger itself; `show` asks the server.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aws_lc_rs::rand::SystemRandom;
use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::ApiClient;
use super::{ACTOR, Global, output, read_file};
use crate::clock::UnixTime;
use crate::config::ServeOverrides;
use crate::factory::{
    self, Authority, InitError, Installed, Installing, RequestedKey, pending_requests, request_keys,
};
use crate::keys::KeyStore;
use crate::ledger::{ChangeError, Ledger, NewFactory};
use crate::model::{self, FactoryName, HostName, ServerPurpose};
use crate::pki::{self, Certificate};
use crate::serve::{make_data_dir, open_ledger};

#[derive(Subcommand)]
pub(super) enum Factory {
    /// Register a Factory without a PKI; fioctl, or `csr` and `install`, or `init`, give it one
    Add {
        /// The Factory's name: the OU of its devices' subjects
        name: String,
        /// The DNS name under which devices reach the EST listener
        #[arg(long, value_name = "HOST")]
        est_host: String,
        /// The DNS name of the device gateway [default: the EST host]
        #[arg(long, value_name = "HOST")]
        gateway_host: Option<String>,
        /// Accept devices whose subject has another OU than the Factory's name
        #[arg(long)]
        any_ou: bool,
    },
    /// Make a development Factory: a root of its own signs everything at once
    Init {
        #[command(flatten)]
        new: New,
        /// Where the root's key goes; it is kept nowhere else
        #[arg(long, value_name = "FILE", default_value = "root.key")]
        root_key: PathBuf,
        /// Where the root's certificate goes, for devices and operators to trust
        #[arg(long, value_name = "FILE", default_value = "root.pem")]
        root: PathBuf,
    },
    /// Make keys and write the requests for an offline root to sign: est-tls.csr, tls.csr,
    /// device-ca.csr
    Csr {
        #[command(flatten)]
        new: New,
        /// Only these, to renew the certificates of a Factory that is set up
        #[arg(long, value_name = "WHAT", value_delimiter = ',')]
        only: Vec<Requested>,
        /// Where the requests go
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        out: PathBuf,
    },
    /// Take in the root and what it has signed, in any order, all or nothing
    Install {
        /// PEM files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The Factory, where there are several
        #[arg(long)]
        name: Option<String>,
    },
    /// Show the Factories of the running server
    Show,
}

/// A Factory to be made.
#[derive(clap::Args)]
pub(super) struct New {
    /// The Factory's name: the OU of its devices' subjects
    #[arg(long)]
    name: String,
    /// The DNS name under which devices reach the EST listener; a Factory that was added before
    /// has it already
    #[arg(long, value_name = "HOST")]
    est_host: Option<String>,
    /// The DNS name of the device gateway [default: the EST host]
    #[arg(long, value_name = "HOST")]
    gateway_host: Option<String>,
    /// Accept devices whose subject has another OU than the Factory's name
    #[arg(long)]
    any_ou: bool,
}

/// What can be requested.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Requested {
    EstTls,
    Tls,
    DeviceCa,
}

impl From<Requested> for RequestedKey {
    fn from(requested: Requested) -> Self {
        match requested {
            Requested::EstTls => Self::Server(ServerPurpose::Est),
            Requested::Tls => Self::Server(ServerPurpose::Gateway),
            Requested::DeviceCa => Self::DeviceCa,
        }
    }
}

/// What the set-up commands work on.
struct SetUp {
    ledger: Ledger,
    key_store: KeyStore,
}

impl Factory {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Add { name, est_host, gateway_host, any_ou } => {
                let new = json!({
                    "name": name, "est_host": est_host,
                    "gateway_host": gateway_host.as_ref().unwrap_or(&est_host),
                    "any_organizational_unit": any_ou,
                });
                let answer = ApiClient::new(global)?.post("factories", new).await?;
                if global.json {
                    return output::json(&answer);
                }
                output::line(&format!(
                    "The Factory {name} is registered and has no PKI yet: fioctl gives it one, or \
                     `estd factory csr --name {name}`"
                ))
            }
            Self::Init { new, root_key, root } => init(global, &new, &root_key, &root).await,
            Self::Csr { new, only, out } => {
                let set_up = SetUp::open(global).await?;
                let requests = set_up.request(&new, &only).await;
                set_up.ledger.close().await;
                std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
                let mut paths = Vec::new();
                for request in requests? {
                    let path = out.join(format!("{}.csr", request.key.as_str()));
                    std::fs::write(&path, &request.pem)
                        .with_context(|| path.display().to_string())?;
                    paths.push(path.display().to_string());
                }
                if global.json {
                    return output::json(&json!({ "requests": paths }));
                }
                output::line(&paths.join("\n"))
            }
            Self::Install { files, name } => {
                let mut certificates = Vec::new();
                for file in &files {
                    let read = Certificate::from_pem(&read_file(file)?);
                    certificates.extend(read.with_context(|| file.display().to_string())?);
                }
                let set_up = SetUp::open(global).await?;
                let name = name.or_else(|| global.factory.clone());
                let installed = set_up.install(&certificates, name.as_deref()).await;
                set_up.ledger.close().await;
                let Installed { new, waiting } = installed?;
                let missing: Vec<&str> = waiting.into_iter().map(RequestedKey::as_str).collect();
                if global.json {
                    return output::json(&json!({ "installed": new, "missing": missing }));
                }
                output::line(&format!("Installed: {new} of {}", certificates.len()))?;
                if missing.is_empty() {
                    return output::line("Nothing is missing: `estd serve` serves this Factory.");
                }
                output::line(&format!("Still waiting for the root: {}", missing.join(", ")))
            }
            Self::Show => show(global).await,
        }
    }
}

impl New {
    /// The Factory as the arguments have it, or as it was added before.
    fn parse(&self, known: Option<&model::Factory>) -> anyhow::Result<NewFactory> {
        let host = |given: Option<&String>, known: Option<&HostName>, flag: &'static str| {
            let given = given.map(|given| HostName::parse(given)).transpose().context(flag)?;
            match (given, known) {
                (Some(given), Some(known)) if given != *known => {
                    bail!("{flag}: the Factory {} was added with {known}", self.name)
                }
                (given, known) => Ok(given.or_else(|| known.cloned())),
            }
        };
        if self.any_ou && known.is_some_and(|known| !known.any_organizational_unit) {
            bail!("--any-ou: the Factory {} was added without it", self.name);
        }
        let known_est = known.map(|known| &known.est_host);
        let est_host = host(self.est_host.as_ref(), known_est, "--est-host")?
            .with_context(|| format!("--est-host: there is no Factory {} yet", self.name))?;
        let known_gateway = known.map(|known| &known.gateway_host);
        let gateway_host = host(self.gateway_host.as_ref(), known_gateway, "--gateway-host")?;
        Ok(NewFactory {
            name: FactoryName::parse(&self.name).context("--name")?,
            gateway_host: gateway_host.unwrap_or_else(|| est_host.clone()),
            est_host,
            any_organizational_unit: self.any_ou,
        })
    }
}

impl SetUp {
    async fn open(global: &Global) -> anyhow::Result<Self> {
        let config = global.config(&ServeOverrides::default())?;
        make_data_dir(&config.data_dir)?;
        let ledger = open_ledger(&config).await?;
        let key_store = KeyStore::open(&ledger, &config).await?;
        Ok(Self { ledger, key_store })
    }

    async fn request(
        &self,
        new: &New,
        only: &[Requested],
    ) -> anyhow::Result<Vec<factory::PendingRequest>> {
        let name = &new.name;
        let known = self.find(name).await?;
        let parsed = new.parse(known.as_ref())?;
        let factory = match known {
            Some(known) if known.root.is_some() && only.is_empty() => bail!(
                "the Factory {name} is set up already: `--only est-tls,tls` requests new server \
                 certificates, `estd device-ca add --online` another Device CA"
            ),
            Some(known) => known,
            None => {
                self.ledger.add_factory(parsed, ACTOR).await?;
                self.only(Some(name)).await?
            }
        };
        let wanted: Vec<RequestedKey> = match only {
            [] => RequestedKey::ALL.to_vec(),
            only => only.iter().copied().map(Into::into).collect(),
        };
        let random = SystemRandom::new();
        request_keys(&self.ledger, &self.key_store, &factory, &wanted, &random, ACTOR).await?;
        let pending = pending_requests(&self.ledger, &factory).await?;
        Ok(pending.into_iter().filter(|request| wanted.contains(&request.key)).collect())
    }

    async fn install(
        &self,
        certificates: &[Certificate],
        name: Option<&str>,
    ) -> anyhow::Result<Installed> {
        let factory = self.only(name).await?;
        let installing = Installing::SetUp;
        Ok(factory::install(&self.ledger, &factory, certificates, installing, ACTOR).await?)
    }

    async fn find(&self, name: &str) -> anyhow::Result<Option<model::Factory>> {
        let all = self.ledger.factories().await?.into_iter().map(|trust| trust.factory);
        Ok(all.into_iter().find(|factory| factory.name.as_str() == name))
    }

    /// The Factory of that name, or the only one.
    async fn only(&self, name: Option<&str>) -> anyhow::Result<model::Factory> {
        let mut factories: Vec<_> =
            self.ledger.factories().await?.into_iter().map(|trust| trust.factory).collect();
        if let Some(name) = name {
            factories.retain(|factory| factory.name.as_str() == name);
        }
        match (factories.pop(), factories.is_empty()) {
            (None, _) => bail!("there is no such Factory: `estd factory csr` or `init` makes one"),
            (Some(only), true) => Ok(only),
            (Some(_), false) => bail!("there are several Factories: name one by --name"),
        }
    }
}

async fn init(global: &Global, new: &New, root_key: &Path, root: &Path) -> anyhow::Result<()> {
    output::must_be_new(&[root_key, root])?;
    let random = SystemRandom::new();
    let set_up = SetUp::open(global).await?;
    let parsed = new.parse(set_up.find(&new.name).await?.as_ref())?;
    let authority = Authority::root(&parsed.name, UnixTime::now(), &random)?;
    // On disk before anything depends on it: the key is nowhere else.
    output::write_secret(root_key, &authority.key().to_pem()?)?;
    let SetUp { ledger, key_store } = set_up;
    let pem = pki::to_pem("CERTIFICATE", authority.certificate().der())?;
    if let Err(why) = output::write_new(root, &pem) {
        std::fs::remove_file(root_key)?;
        return Err(why);
    }
    let made = factory::init(&ledger, &key_store, parsed, &authority, &random, ACTOR).await;
    ledger.close().await;
    if let Err(InitError::Change(ChangeError::Refused(_))) = &made {
        // Nothing was made with this root. After any other failure something may have been.
        std::fs::remove_file(root_key)?;
        std::fs::remove_file(root)?;
    }
    made?;
    let (root, key) = (root.display().to_string(), root_key.display().to_string());
    if global.json {
        return output::json(&json!({ "factory": new.name, "root": root, "root_key": key }));
    }
    output::line(&format!("The Factory {} is ready.", new.name))?;
    output::line(&format!("  {root}  the root, for devices to trust"))?;
    output::line(&format!("  {key}  the root's key: keep it offline, it is yours"))
}

async fn show(global: &Global) -> anyhow::Result<()> {
    let answer = ApiClient::new(global)?.get("factories", &[]).await?;
    if global.json {
        return output::json(&answer);
    }
    let factories = answer.get("factories").and_then(Value::as_array).cloned().unwrap_or_default();
    if factories.is_empty() {
        return output::line("There is no Factory yet: `estd factory init` or `csr` makes one.");
    }
    for factory in factories {
        let (name, est) = (output::field(&factory, "name"), output::field(&factory, "est_host"));
        output::line(&format!("Factory {name}, EST host {est}"))?;
        let mut rows = Vec::new();
        for (key, what) in [("root", "root"), ("est_tls", "est-tls"), ("tls", "tls")] {
            rows.push(row(what, factory.get(key).unwrap_or(&Value::Null), "-"));
        }
        let cas = factory.get("device_cas").and_then(Value::as_array).cloned();
        for ca in cas.unwrap_or_default() {
            rows.push(row("device-ca", &ca, &output::field(&ca, "state")));
        }
        output::table(["CERTIFICATE", "SUBJECT", "SERIAL", "KEY", "UNTIL", "STATE"], &rows)?;
    }
    Ok(())
}

fn row(what: &str, certificate: &Value, state: &str) -> [String; 6] {
    let field = |key| output::field(certificate, key);
    let state = if certificate.is_null() { "missing" } else { state };
    [
        what.to_owned(),
        field("subject"),
        field("serial"),
        field("key_algorithm"),
        field("not_after"),
        state.to_owned(),
    ]
}
