//! The demo: a Factory, a server and a fleet of simulated devices in a temporary folder, all of it
//! real but the devices' age. A factory line's local Device CA signed them; they rotate to the
//! server's online Device CA.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write, stderr};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::rand::{self, SystemRandom};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::ctrl_c;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::client::{ClientError, EstClient, Identity};
use crate::clock::UnixTime;
use crate::config::{Config, Written};
use crate::factory::{self, Authority, Installing};
use crate::keys::{KeyStore, SigningKey};
use crate::ledger::{InventoryFilter, NewFactory};
use crate::model::{CredentialState, DeviceName, FactoryId, FactoryName, HostName};
use crate::pki::{Certificate, Fingerprint, UnsignedRequest};
use crate::serve::{Server, make_data_dir, open_ledger};

const FACTORY: &str = "demo-factory";
const HOST: &str = "est.demo.internal";
const ACTOR: &str = "demo";
/// How many devices talk to the server at once.
const AT_ONCE: usize = 16;
const PAGE: u32 = 1000;

/// Everything that the demo has made.
struct Demo {
    server: Server,
    root: Certificate,
    factory_line: Authority,
    factory: FactoryId,
    random: SystemRandom,
}

/// A simulated device and what it holds.
struct Device {
    name: DeviceName,
    certificate: Certificate,
    key: SigningKey,
}

/// Runs the demo with this many devices, and cleans up after it.
///
/// # Errors
/// When any step does not go as it should.
pub async fn run(devices: u32) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let demo = Demo::start(folder.path()).await?;
    let told = tokio::select! {
        told = demo.tell(devices) => told,
        _ = ctrl_c() => Err(anyhow::anyhow!("interrupted; everything is cleaned up")),
    };
    demo.server.stop().await;
    told?;
    say("\nThe server has stopped and its folder is gone. Next: README.md, \"Five minutes\".")?;
    Ok(())
}

impl Demo {
    async fn start(folder: &std::path::Path) -> anyhow::Result<Self> {
        let mut config = Config::from_written(Written::default())
            .map_err(|errors| anyhow::anyhow!("the defaults: {errors:?}"))?;
        config.data_dir = folder.join("estd-data");
        config.ledger = format!("sqlite:{}", config.data_dir.join("ledger.sqlite").display());
        config.est_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.api_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        make_data_dir(&config.data_dir)?;
        let random = SystemRandom::new();
        let name = FactoryName::parse(FACTORY)?;
        let new = NewFactory {
            name: name.clone(),
            est_host: HostName::parse(HOST)?,
            gateway_host: HostName::parse(HOST)?,
            any_organizational_unit: false,
        };

        let ledger = open_ledger(&config).await?;
        let key_store = KeyStore::open(&ledger, &config).await?;
        let now = UnixTime::now();
        let root = Authority::root(&name, now, &random)?;
        factory::init(&ledger, &key_store, new, &root, &random, ACTOR).await?;
        let factory_line = root.device_ca(&name, "factory line 1", now, &random)?;
        let trust = ledger.factories().await?.pop().context("no Factory")?;
        let line = [factory_line.certificate().clone()];
        factory::install(&ledger, &trust.factory, &line, Installing::DeviceCas, ACTOR).await?;
        ledger.close().await;

        Ok(Self {
            server: Server::start(config).await?,
            root: root.certificate().clone(),
            factory_line,
            factory: trust.factory.id,
            random,
        })
    }

    async fn tell(&self, count: u32) -> anyhow::Result<()> {
        say(&format!("A Factory with its server, EST on https://{}\n", self.server.est_address()))?;

        say(&format!("1. {count} devices leave the factory line and connect for the first time."))?;
        let devices: anyhow::Result<Vec<Device>> = (0..count).map(|_| self.make_device()).collect();
        let devices = self.each(devices?, "registered", Step::Connect).await?;
        self.print_ledger().await?;

        say("2. Every device makes a new key and re-enrols over mutual TLS.")?;
        let old = devices.first().context("no device")?;
        let (name, old) = (old.name.clone(), old.certificate.fingerprint());
        let devices = self.each(devices, "re-enrolled", Step::Reenrol).await?;
        say("   Issued is not switched: the ledger calls the new certificates pending.")?;
        self.print_ledger().await?;

        say("3. Every device connects with its new certificate: that proves that it switched.")?;
        self.each(devices, "switched", Step::Connect).await?;
        self.print_ledger().await?;

        say("4. The story of one device:")?;
        self.print_story(&name).await?;
        ensure!(self.is_superseded(&name, old).await?, "the old certificate is still current");

        say("5. Somebody who stole the factory line's key forges a certificate for it:")?;
        self.forge(&name).await?;

        match self.server.ledger().verify_audit().await? {
            Ok(rows) => say(&format!("6. The audit log has {rows} rows; its chain is intact."))?,
            Err(fault) => bail!(fault),
        }
        Ok(())
    }

    fn make_device(&self) -> anyhow::Result<Device> {
        let mut uuid = [0_u8; 16];
        rand::fill(&mut uuid).ok().context("no randomness")?;
        let hex = data_encoding::HEXLOWER.encode(&uuid);
        let mut name = String::new();
        for (index, digit) in hex.chars().enumerate() {
            if [8, 12, 16, 20].contains(&index) {
                name.push('-');
            }
            name.push(digit);
        }
        let name = DeviceName::parse(&name)?;
        self.certify(name)
    }

    /// What the factory line does for a device: a key and a first certificate.
    fn certify(&self, name: DeviceName) -> anyhow::Result<Device> {
        let key = SigningKey::generate(&self.random)?;
        let factory = FactoryName::parse(FACTORY)?;
        let (now, line) = (UnixTime::now(), &self.factory_line);
        let certificate =
            line.certify_device(&factory, &name, key.public_key(), now, &self.random)?;
        Ok(Device { name, certificate, key })
    }

    /// Lets every device do `step`, some at once, with a progress bar.
    async fn each(
        &self,
        devices: Vec<Device>,
        done: &str,
        step: Step,
    ) -> anyhow::Result<Vec<Device>> {
        let bar = progress_bar(devices.len(), done)?;
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for device in devices {
            let (places, server) = (Arc::clone(&places), self.server.est_address());
            let root = self.root.clone();
            tasks.spawn(async move {
                let _place = places.acquire().await?;
                step.run(device, server, &root).await
            });
        }
        let mut devices = Vec::new();
        while let Some(finished) = tasks.join_next().await {
            devices.push(finished??);
            bar.inc(1);
        }
        bar.finish_and_clear();
        say(&format!("   {} of {} {done}", devices.len(), devices.len()))?;
        Ok(devices)
    }

    async fn print_ledger(&self) -> anyhow::Result<()> {
        let mut counts: BTreeMap<String, (usize, i64)> = BTreeMap::new();
        let (all, mut after) = (InventoryFilter::default(), String::new());
        loop {
            let page = self.server.ledger().devices(self.factory, &all, &after, PAGE).await?;
            for device in &page.devices {
                let ca = device.device_ca.clone().unwrap_or_default();
                let count = counts.entry(ca).or_default();
                count.0 += 1;
                count.1 += device.pending;
            }
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        say(&format!(
            "\n   {:<52} {:>8} {:>8}",
            "DEVICE CA OF THE CERTIFICATE IN USE", "DEVICES", "PENDING"
        ))?;
        for (ca, (current, pending)) in counts {
            say(&format!("   {ca:<52} {current:>8} {pending:>8}"))?;
        }
        say("")?;
        Ok(())
    }

    async fn print_story(&self, name: &DeviceName) -> anyhow::Result<()> {
        let story = self.server.ledger().device(self.factory, name).await?;
        let story = story.context("the device is unknown")?;
        say(&format!("\n   {}", story.name))?;
        for credential in &story.credentials {
            let first_used =
                credential.first_used_at.map_or("never".to_owned(), |at| at.to_string());
            say(&format!(
                "   {:<10}  issued by {:<52}  recorded {}  first used {first_used}",
                credential.state, credential.device_ca, credential.recorded_at
            ))?;
        }
        say("")?;
        Ok(())
    }

    async fn is_superseded(&self, name: &DeviceName, sha256: Fingerprint) -> anyhow::Result<bool> {
        let story = self.server.ledger().device(self.factory, name).await?;
        let credentials = story.map(|story| story.credentials).unwrap_or_default();
        let old = credentials.iter().find(|one| one.sha256 == sha256.to_string());
        Ok(old.is_some_and(|old| old.state == CredentialState::Superseded.as_str()))
    }

    async fn forge(&self, name: &DeviceName) -> anyhow::Result<()> {
        let forged = self.certify(name.clone())?;
        let server = self.server.est_address();
        let refused = Step::Reenrol.run(forged, server, &self.root).await.err();
        let refused = refused.as_ref().and_then(|why| why.downcast_ref::<ClientError>());
        match refused {
            Some(ClientError::Status { status: 403, reason, .. }) => {
                say(&format!("   refused, and on record as an alarm: {reason}\n"))?;
                Ok(())
            }
            other => bail!("the forged request was not refused as it should be: {other:?}"),
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    /// Opens a session with the device's certificate.
    Connect,
    /// Replaces the device's certificate by one for a new key.
    Reenrol,
}

impl Step {
    async fn run(
        self,
        device: Device,
        server: SocketAddr,
        root: &Certificate,
    ) -> anyhow::Result<Device> {
        let identity = Identity {
            certificate: device.certificate.clone(),
            key: Zeroizing::new(device.key.pkcs8().to_vec()),
        };
        let url = format!("https://{HOST}:{}", server.port());
        let roots = std::slice::from_ref(root);
        let client = EstClient::new(&url, roots, Some(&identity))?.connect_to(server);
        let mut connection = client.connect().await?;
        match self {
            Self::Connect => {
                connection.cacerts().await?;
                Ok(device)
            }
            Self::Reenrol => {
                let random = SystemRandom::new();
                let key = SigningKey::generate(&random)?;
                let request = UnsignedRequest {
                    subject: device.certificate.subject(),
                    public_key: key.public_key(),
                    extensions: &[],
                    challenge_password: None,
                };
                let request = key.sign(request.to_be_signed(key.algorithm())?, &random)?;
                let certificate = connection.reenroll(&request).await?;
                Ok(Device { name: device.name, certificate, key })
            }
        }
    }
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// A bar on a terminal, nothing in a pipe.
fn progress_bar(length: usize, done: &str) -> anyhow::Result<ProgressBar> {
    if !stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("   {bar:40} {pos}/{len} {msg}")?;
    let bar = ProgressBar::new(length as u64).with_style(style).with_message(done.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}
