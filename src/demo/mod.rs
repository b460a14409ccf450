//! The demo: a Factory, a server and a fleet of simulated devices in a temporary folder, all of it
//! real but the devices' age. A factory line's local Device CA signed them; its key is stolen, and
//! they rotate to the server's online Device CA, with the accidents that devices have.

mod device;

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
use tokio::time::sleep;

use crate::clock::UnixTime;
use crate::config::{Config, Written};
use crate::factory::{self, Asked, Authority, Installing};
use crate::fleet::rotations::{self, AskedRotation};
use crate::keys::{KeyStore, SigningKey};
use crate::ledger::{ChangeError, ChangeRefused, InventoryFilter, NewFactory};
use crate::model::rotation::{
    FioconfigSettings, Pace, Plan, RotationName, RotationState, Selection, StopRule,
};
use crate::model::{
    Allowance, CredentialState, DeviceCa, DeviceCaAct, DeviceName, EnrolmentProfile, FactoryId,
    FactoryName, FactoryTrust, HostName,
};
use crate::serve::{Server, make_data_dir, open_ledger};
use device::{Accident, Device, Held, Rotated, is_refusal};

const FACTORY: &str = "demo-factory";
const HOST: &str = "est.demo.internal";
const ACTOR: &str = "demo";
const ROTATION: &str = "certs-1";
/// How many devices talk to the server at once.
const AT_ONCE: usize = 16;
const PAGE: u32 = 1000;
/// A day, in seconds.
const DAY: i64 = 24 * 3600;

/// Everything that the demo has made.
struct Demo {
    server: Server,
    devices: device::Server,
    factory_line: Authority,
    factory: FactoryId,
    random: SystemRandom,
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
        config.gateway_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
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

        let server = Server::start(config).await?;
        let devices = device::Server {
            address: server.est_address(),
            root: root.certificate().clone(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        };
        Ok(Self { server, devices, factory_line, factory: trust.factory.id, random })
    }

    async fn tell(&self, count: u32) -> anyhow::Result<()> {
        say(&format!("A Factory with its server, EST on https://{}\n", self.server.est_address()))?;

        say(&format!("1. {count} devices leave the factory line and connect for the first time."))?;
        let devices = self.register(count).await?;
        self.print_ledger().await?;

        say(
            "2. The factory line's key is stolen. Its Device CA is disabled: it registers nobody any\n   \
             more, and the devices that are known go on. The thief forges certificates with it:",
        )?;
        self.act(DeviceCaAct::Disable, 0).await?;
        self.forge(&device_name()?, "for a device that nobody knows").await?;
        let known = devices.first().context("no device")?.name.clone();
        self.forge(&known, "for a device that is known").await?;

        let pace = self.start_rotation(count).await?;
        say(&format!(
            "\n3. A rotation gives every device its slot: {} first, then {} a minute. Answers are lost,\n   \
             devices lose power before they install, some are rolled back, some are switched off.",
            pace.canary, pace.per_minute
        ))?;
        let (silent, devices): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|device| device.accident == Some(Accident::Silent));
        let mut devices = self.rotate(devices).await?;
        self.print_ledger().await?;

        say("4. Can the Device CA be revoked?")?;
        self.try_to_revoke(silent.len()).await?;
        if !silent.is_empty() {
            say("   They are switched on again.")?;
            devices.extend(self.rotate(silent).await?);
        }
        self.print_ledger().await?;

        say("5. Whatever happened to it, every device holds a certificate that is accepted:")?;
        let devices = self.all_connect(devices).await?;
        self.all_are_counted(count).await?;
        self.print_story(&known).await?;

        say("6. Nobody depends on the stolen key any more: its Device CA is revoked.")?;
        self.act(DeviceCaAct::Revoke, 0).await?;
        self.check_revoked(&devices).await?;

        match self.server.ledger().verify_audit().await? {
            Ok(rows) => say(&format!("\n7. The audit log has {rows} rows; its chain is intact."))?,
            Err(fault) => bail!(fault),
        }
        Ok(())
    }

    /// Makes the devices and lets each connect: those that will be off when the rotation comes first.
    async fn register(&self, count: u32) -> anyhow::Result<Vec<Device>> {
        let devices = (0..count as usize).map(|index| {
            let (name, accident) = (device_name()?, Accident::of(index));
            Ok(Device { held: self.certify(&name)?, name, before: None, accident })
        });
        let devices: Vec<Device> = devices.collect::<anyhow::Result<_>>()?;
        let (silent, others): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|device| device.accident == Some(Accident::Silent));
        let connect = async |device: Device, server: device::Server| {
            device.connect(&server).await?;
            Ok(device)
        };
        let silent = self.each(silent, "registered", connect).await?;
        // Canaries are devices that were seen lately, to the second.
        sleep(Duration::from_secs(1)).await;
        let mut devices = self.each(others, "registered", connect).await?;
        devices.extend(silent);
        say(&format!("   {count} of {count} registered"))?;
        Ok(devices)
    }

    async fn start_rotation(&self, count: u32) -> anyhow::Result<Pace> {
        let trust = self.trust().await?;
        let line = self.line(&trust)?;
        let pace = Pace {
            per_minute: (count * 6).clamp(600, 20_000),
            canary: (count / 20).clamp(1, 50),
            window: None,
            begin: None,
            until: None,
        };
        let serial = Some(line.certificate.serial().to_string());
        let plan = Plan {
            selection: Selection { device_ca: serial, ..Selection::default() },
            pace,
            stop: Some(StopRule::default()),
            patience: DAY,
            validity: EnrolmentProfile::default().validity_seconds,
            fioconfig: FioconfigSettings::default(),
            reason: "the factory line's key is stolen".to_owned(),
        };
        let asked = AskedRotation {
            name: RotationName::parse(ROTATION)?,
            plan,
            device_ca: Some(line),
            target: None,
            named: None,
            request: None,
        };
        rotations::start(self.server.ledger(), &trust, asked, ACTOR).await?;
        Ok(pace)
    }

    /// Lets every device follow its slot. What an operator must decide on the way is decided.
    async fn rotate(&self, devices: Vec<Device>) -> anyhow::Result<Vec<Device>> {
        let count = devices.len();
        let (ledger, factory) = (self.server.ledger().clone(), self.factory);
        let rotate = |mut device: Device, server: device::Server| {
            let ledger = ledger.clone();
            async move {
                if let Rotated::Switched = device.rotate(&server).await? {
                    return Ok((device, false));
                }
                let certificate = device.held.certificate.fingerprint();
                let allowance = Some(Allowance::Certificate(certificate));
                ledger.allow_device(factory, &device.name, allowance, ACTOR).await?;
                device.switch(&server).await?;
                Ok((device, true))
            }
        };
        let rotated = self.each(devices, "switched", rotate).await?;
        let allowed = rotated.iter().filter(|(_, allowed)| *allowed).count();
        say(&format!("   {count} of {count} switched"))?;
        if allowed > 0 {
            say(&format!(
                "   {allowed} of them came back with the certificate of before, as a clone would: refused,\n   \
                 until the operator said `estd device allow`."
            ))?;
        }
        Ok(rotated.into_iter().map(|(device, _)| device).collect())
    }

    /// The gate (I8): it names just those that it would strand.
    async fn try_to_revoke(&self, silent: usize) -> anyhow::Result<()> {
        // The other number is refused, whichever it is.
        let Err(why) = self.act(DeviceCaAct::Revoke, u64::MAX).await else {
            bail!("it was revoked with the wrong number of devices to strand");
        };
        let why = why.downcast::<ChangeError>()?;
        let ChangeError::Refused(ChangeRefused::StillNeeded { count, .. }) = why else {
            bail!(why);
        };
        ensure!(count == silent as u64, "{count} devices depend on it, and {silent} are off");
        match count {
            0 => say("   Yes: no device depends on it.")?,
            _ => say(&format!(
                "   No: refused, since it would strand the {count} that are switched off."
            ))?,
        }
        Ok(())
    }

    async fn all_connect(&self, devices: Vec<Device>) -> anyhow::Result<Vec<Device>> {
        let count = devices.len();
        let connect = async |device: Device, server: device::Server| {
            device.connect(&server).await?;
            Ok(device)
        };
        let devices = self.each(devices, "connected", connect).await?;
        for device in &devices {
            let held = device.held.certificate.fingerprint().to_string();
            let story = self.server.ledger().device(self.factory, &device.name).await?;
            let credentials = story.context("the device is unknown")?.credentials;
            let current = CredentialState::Current.as_str();
            let is_current =
                credentials.iter().any(|one| one.sha256 == held && one.state == current);
            ensure!(is_current, "{}: what it holds is not its current credential", device.name);
        }
        say(&format!("   {count} of {count} connected, each with its current credential"))?;
        Ok(devices)
    }

    /// The rotation's own counts are what has happened.
    async fn all_are_counted(&self, count: u32) -> anyhow::Result<()> {
        let name = RotationName::parse(ROTATION)?;
        for _ in 0..10 {
            let rotation = self.server.ledger().rotation(self.factory, &name).await?;
            let rotation = rotation.context("the rotation is gone")?;
            let confirmed = rotation.counts.confirmed;
            ensure!(confirmed == i64::from(count), "the rotation counts {:?}", rotation.counts);
            if rotation.state == RotationState::Finished {
                say(&format!("   the rotation has finished: {confirmed} confirmed"))?;
                return Ok(());
            }
            sleep(Duration::from_secs(1)).await;
        }
        bail!("the rotation does not finish")
    }

    /// The old certificates end in the handshake, the new ones go on.
    async fn check_revoked(&self, devices: &[Device]) -> anyhow::Result<()> {
        self.server.reload().await?;
        let thief = self.certify(&device_name()?)?;
        let thief = Device { name: device_name()?, held: thief, before: None, accident: None };
        ensure!(thief.connect(&self.devices).await.is_err(), "its certificates are still accepted");
        devices.first().context("no device")?.connect(&self.devices).await?;
        say("   Its certificates end in the handshake; the devices go on.")?;
        Ok(())
    }

    async fn act(&self, act: DeviceCaAct, strand: u64) -> anyhow::Result<()> {
        let trust = self.trust().await?;
        let asked = Asked { device_ca: self.line(&trust)?, act, strand, reason: "stolen" };
        factory::act(self.server.ledger(), &trust.factory, asked, ACTOR).await?;
        self.server.reload().await
    }

    async fn trust(&self) -> anyhow::Result<FactoryTrust> {
        self.server.ledger().factories().await?.pop().context("no Factory")
    }

    fn line<'a>(&self, trust: &'a FactoryTrust) -> anyhow::Result<&'a DeviceCa> {
        let line = self.factory_line.certificate();
        let mut cas = trust.device_cas.iter();
        cas.find(|ca| ca.certificate == *line).context("the factory line's Device CA is unknown")
    }

    /// What the factory line does for a device, and a thief who has its key: a key and a certificate.
    fn certify(&self, name: &DeviceName) -> anyhow::Result<Held> {
        let key = SigningKey::generate(&self.random)?;
        let factory = FactoryName::parse(FACTORY)?;
        let (now, line) = (UnixTime::now(), &self.factory_line);
        let certificate =
            line.certify_device(&factory, name, key.public_key(), now, &self.random)?;
        Ok(Held { certificate, key })
    }

    /// Lets every device do something, some at once, with a progress bar.
    async fn each<T, F, R>(
        &self,
        devices: Vec<Device>,
        done: &str,
        step: F,
    ) -> anyhow::Result<Vec<T>>
    where
        T: Send + 'static,
        F: Fn(Device, device::Server) -> R,
        R: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let bar = progress_bar(devices.len(), done)?;
        let mut tasks = JoinSet::new();
        for device in devices {
            tasks.spawn(step(device, self.devices.clone()));
        }
        let mut all = Vec::new();
        while let Some(finished) = tasks.join_next().await {
            all.push(finished??);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(all)
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

    async fn forge(&self, name: &DeviceName, what: &str) -> anyhow::Result<()> {
        let held = self.certify(name)?;
        let forged = Device { name: name.clone(), held, before: None, accident: None };
        match forged.reenrol(&self.devices).await.err() {
            Some(why) if is_refusal(&why) => Ok(say(&format!("   {what}: {why}"))?),
            other => bail!("what is forged was not refused as it should be: {other:?}"),
        }
    }
}

/// A new name: a UUID.
fn device_name() -> anyhow::Result<DeviceName> {
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
    Ok(DeviceName::parse(&name)?)
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", text.trim_end())
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
