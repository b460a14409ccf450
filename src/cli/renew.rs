//! `estd client renew`: renews a device's certificate in its place, when the server wants it.
//!
//! Whatever it had begun when it was stopped, it ends at its next start: [`super::pair`] says how.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use aws_lc_rs::rand::SystemRandom;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::client::{ServerArgs, request, told};
use super::pair::{Meaning, PairFiles};
use super::{Global, on_renewed, output};
use crate::client::{
    ClientError, Draw, EstClient, Identity, RenewalInfo, Window, back_off, in_time, poll_again,
};
use crate::clock::UnixTime;
use crate::keys::SigningKey;
use crate::pki::{self, Certificate};

/// How long to sleep at most before the wall clock is looked at again.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

#[derive(clap::Args)]
pub(super) struct Renew {
    #[command(flatten)]
    server: ServerArgs,
    /// The device's certificate, PEM; the new one takes its place
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its key, PEM; the new one (P-256) takes its place
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Go on for ever: wait for the time, renew, wait for the next
    #[arg(long)]
    watch: bool,
    /// What to run by `sh -c` when a new pair is in place, with `ESTD_CERT` and `ESTD_KEY`
    #[arg(long, value_name = "COMMAND")]
    on_renewed: Option<String>,
}

/// One device's pair, and the server that renews it.
struct Renewal {
    args: Renew,
    files: PairFiles,
    random: SystemRandom,
}

/// What one look came to.
enum Look {
    /// A new pair is in place.
    Renewed(Box<Certificate>),
    /// It is too early.
    TooEarly(Box<Outlook>),
}

/// When a certificate is renewed.
struct Outlook {
    certificate: Certificate,
    window: Window,
    moment: UnixTime,
    /// What the server said, or that its word was not to be had.
    said: Said,
}

/// What the server says of when to renew.
enum Said {
    Window(RenewalInfo),
    Nothing,
    NotNow(ClientError),
}

impl Renew {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let files = PairFiles::new(&self.cert, &self.key)?;
        // What can never work is told at once, in a service too.
        self.server.client(None)?;
        let alone = files.lock()?;
        files.settle()?;
        drop(alone);
        let renewal = Renewal { args: self, files, random: SystemRandom::new() };
        if renewal.args.watch {
            return renewal.watch(global).await;
        }
        let look = renewal.look(Draw::new(&renewal.random)?).await?;
        if global.json {
            return output::json(&look.to_json());
        }
        output::line(&look.to_text())
    }
}

impl Renewal {
    /// Looks again and again, until a signal says to end.
    async fn watch(&self, global: &Global) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            ended = self.go_on(global) => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    }

    async fn go_on(&self, global: &Global) -> anyhow::Result<()> {
        let mut draw = Draw::new(&self.random)?;
        // How many looks in a row came to something else than that it is too early. A server that
        // wants every new certificate renewed at once is not obeyed faster than one that is away.
        let mut hasty = 0_u32;
        loop {
            let looked = self.look(draw).await;
            let chance = Draw::new(&self.random)?;
            hasty = match &looked {
                Ok(Look::TooEarly(outlook)) if outlook.is_of_the_server() => 0,
                Err(why) if waits(why) => 1,
                _ => hasty.saturating_add(1),
            };
            let seconds = match &looked {
                Ok(Look::TooEarly(outlook)) => outlook.pause(hasty, chance),
                Ok(Look::Renewed(_)) => self.in_time(back_off(hasty, None, chance)),
                Err(why) => {
                    let retry_after = client_error(why).and_then(ClientError::retry_after);
                    self.in_time(back_off(hasty, retry_after, chance))
                }
            };
            match looked {
                Ok(look) => {
                    if matches!(look, Look::Renewed(_)) {
                        draw = chance;
                    }
                    let line = || look.to_json().to_string();
                    output::report(&if global.json { line() } else { look.to_text() });
                }
                Err(why) => {
                    let why = super::explain(&why);
                    output::complain(&format!("{why}; tries again in {seconds} s"));
                }
            }
            sleep_by_wall_clock(seconds).await;
        }
    }

    /// The pause, in seconds, shortened by what is left of the certificate in place.
    fn in_time(&self, pause: u64) -> u64 {
        let not_after = |present: Identity| present.certificate.validity().not_after;
        let end = self.files.present().map(not_after);
        end.map_or(pause, |end| in_time(pause, UnixTime::now(), end))
    }

    /// Ends what was begun; else asks the server, and renews if it is time. A command that fails is
    /// run again at each look, and keeps no certificate from being renewed.
    async fn look(&self, draw: Draw) -> anyhow::Result<Look> {
        let _alone = self.files.lock()?;
        let untold = match self.finish().await? {
            None => Ok(()),
            Some(renewed) => match self.tell().await {
                Ok(()) => return Ok(Look::Renewed(Box::new(renewed))),
                failed => failed,
            },
        };
        let present = self.files.present()?;
        let outlook = self.outlook(&present, draw).await?;
        if outlook.now() < outlook.moment {
            return untold.map(|()| Look::TooEarly(Box::new(outlook)));
        }
        self.obtain(&present).await?;
        let renewed = self.finish().await?.context("the new pair is gone from its place")?;
        self.tell().await?;
        Ok(Look::Renewed(Box::new(renewed)))
    }

    async fn outlook(&self, present: &Identity, draw: Draw) -> anyhow::Result<Outlook> {
        let certificate = present.certificate.clone();
        let validity = certificate.validity();
        let said = match ask(&self.client(present)?, &certificate).await {
            Ok(Some(info)) => match info.window.within(validity) {
                Some(window) => Said::Window(RenewalInfo { window, ..info }),
                None => Said::Nothing,
            },
            Ok(None) => Said::Nothing,
            // Even a refusal: whether the certificate can be renewed is told by the request for that.
            Err(why) => Said::NotNow(why),
        };
        let window = match &said {
            Said::Window(info) => info.window,
            Said::Nothing | Said::NotNow(_) => Window::of_lifetime(validity),
        };
        Ok(Outlook { moment: window.moment(draw), certificate, window, said })
    }

    /// Has the next certificate issued and writes it beside the one in use. Its key is on disk before
    /// the server knows of it.
    async fn obtain(&self, present: &Identity) -> anyhow::Result<()> {
        let key = match self.files.settle()? {
            Meaning::KeyWaits => self.files.waiting_key()?,
            _ => {
                let key = SigningKey::generate(&self.random)?;
                self.files.keep_next_key(&key)?;
                key
            }
        };
        let request = self.request(&present.certificate, &key)?;
        let answered = self.client(present)?.connect().await?.reenroll(&request).await;
        let issued = match answered {
            Err(why @ ClientError::Waiting { .. }) => {
                let pem = pki::to_pem("CERTIFICATE REQUEST", &request)?;
                self.files.keep_waiting_request(&pem)?;
                return Err(why.into());
            }
            // A definite no to this request: nothing will be issued for the key.
            Err(why @ ClientError::Status { status: 400 | 403, .. }) => {
                self.files.give_next_key_up()?;
                return Err(why.into());
            }
            other => other?,
        };
        self.files.keep_next_certificate(&pki::to_pem("CERTIFICATE", issued.der())?)
    }

    /// The request for this key: that which waits for an operator, or a new one.
    fn request(&self, certificate: &Certificate, key: &SigningKey) -> anyhow::Result<Vec<u8>> {
        match self.files.waiting_request() {
            Some(waiting)
                if waiting.public_key() == key.public_key()
                    && waiting.subject() == certificate.subject() =>
            {
                Ok(waiting.der().to_vec())
            }
            _ => request(certificate, key, None, &self.random),
        }
    }

    /// Puts the next pair in place, if it is whole. Gives the certificate if one was put in place, now
    /// or earlier, of which nobody has been told yet.
    async fn finish(&self) -> anyhow::Result<Option<Certificate>> {
        match self.files.settle()? {
            Meaning::NextIsWhole => {
                if !self.files.is_switching() {
                    self.files.prepare_switch()?;
                    self.prove().await?;
                    self.files.begin_switch()?;
                }
                self.files.switch()?;
            }
            Meaning::Settled => {}
            // Whatever was begun, a part of the next pair is gone: nothing was put in place.
            _ => return Ok(None),
        }
        if !self.files.is_switching() {
            return Ok(None);
        }
        Ok(Some(self.files.present()?.certificate))
    }

    /// Opens a session with the next pair. From then on the server may refuse the present one.
    async fn prove(&self) -> anyhow::Result<()> {
        let next = self.client(&self.files.next()?)?;
        match prove(&next).await {
            Err(why) if why.is_refusal() => self.set_next_aside(why).await,
            other => other.context("the new certificate is issued and not in place yet"),
        }
    }

    /// Puts the next pair aside if the server still accepts the present one. Otherwise the next one
    /// may be the only pair that it accepts: a proof whose answer was lost counts, and what looks
    /// like a refusal may come from somebody on the way, or from a server that is behind the others.
    async fn set_next_aside(&self, refused: ClientError) -> anyhow::Result<()> {
        let said = format!("the new certificate is refused: {refused}");
        match say_failed(&self.client(&self.files.present()?)?, &said).await {
            Ok(()) => {
                self.files.set_next_aside()?;
                Err(refused).context("the server refuses the new certificate, which is put aside")
            }
            Err(present) => Err(refused).with_context(|| {
                format!(
                    "the server refuses the new certificate, which stays beside the present one \
                     because that is not accepted either ({present})"
                )
            }),
        }
    }

    /// Tells whoever uses the pair, and ends the switch when that has succeeded.
    async fn tell(&self) -> anyhow::Result<()> {
        if let Some(command) = self.args.on_renewed.clone() {
            let (files, run) = (self.files.clone(), command.clone());
            let ended = spawn_blocking(move || on_renewed::run(&run, &files)).await?;
            ended.map_err(|why| {
                anyhow!("the new pair is in place, but --on-renewed {command:?} failed: {why}")
            })?;
        }
        self.files.end_switch()
    }

    fn client(&self, identity: &Identity) -> anyhow::Result<EstClient> {
        self.args.server.client(Some(identity))
    }
}

/// Sleeps so many seconds by the wall clock, which goes on while the device is suspended. If that is
/// set back, the other one ends the sleep.
async fn sleep_by_wall_clock(seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let wall_end = UnixTime::now().plus(i64::try_from(seconds).unwrap_or(i64::MAX));
    while Instant::now() < end && UnixTime::now() < wall_end {
        sleep(end.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP)).await;
    }
}

async fn ask(
    client: &EstClient,
    certificate: &Certificate,
) -> Result<Option<RenewalInfo>, ClientError> {
    client.connect().await?.renewal_info(certificate).await
}

async fn prove(client: &EstClient) -> Result<(), ClientError> {
    client.connect().await?.say_enrolled().await
}

async fn say_failed(client: &EstClient, reason: &str) -> Result<(), ClientError> {
    client.connect().await?.say_failed(reason).await
}

fn client_error(why: &anyhow::Error) -> Option<&ClientError> {
    why.chain().find_map(|cause| cause.downcast_ref())
}

/// Whether an operator must decide first. The server says how often to ask, for as long as that takes.
fn waits(why: &anyhow::Error) -> bool {
    matches!(client_error(why), Some(ClientError::Waiting { .. }))
}

impl Outlook {
    /// Whether the server had an answer, and be it that it suggests nothing.
    fn is_of_the_server(&self) -> bool {
        !matches!(self.said, Said::NotNow(_))
    }

    /// What time it is: by the clock of the device, or of the server if that is ahead.
    fn now(&self) -> UnixTime {
        let of_the_server = match &self.said {
            Said::Window(info) => info.server_time,
            Said::Nothing | Said::NotNow(_) => None,
        };
        of_the_server.map_or_else(UnixTime::now, |time| time.max(UnixTime::now()))
    }

    /// In how many seconds to look again.
    fn pause(&self, failures: u32, chance: Draw) -> u64 {
        let retry_after = match &self.said {
            Said::Window(info) => info.retry_after,
            Said::Nothing => None,
            Said::NotNow(why) => Some(back_off(failures, why.retry_after(), chance)),
        };
        poll_again(retry_after, self.now(), self.moment, chance)
    }

    fn reason(&self) -> String {
        let lifetime = "after two thirds of its lifetime";
        match &self.said {
            Said::Window(_) => "as the server suggests".to_owned(),
            Said::Nothing => format!("{lifetime}: the server suggests nothing"),
            Said::NotNow(why) => format!("{lifetime}: {why}"),
        }
    }
}

impl Look {
    fn to_text(&self) -> String {
        match self {
            Self::Renewed(new) => {
                format!("renewed: {} until {}", new.subject(), new.validity().not_after)
            }
            Self::TooEarly(outlook) => {
                let Outlook { certificate, window, moment, .. } = outlook.as_ref();
                let (subject, Window { start, end }) = (certificate.subject(), window);
                let reason = outlook.reason();
                format!("{subject} is renewed at {moment}, between {start} and {end}, {reason}")
            }
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Renewed(new) => json!({ "renewed": true, "certificate": told(new) }),
            Self::TooEarly(outlook) => {
                let Outlook { certificate, window, moment, .. } = outlook.as_ref();
                json!({
                    "renewed": false,
                    "certificate": told(certificate),
                    "renews_at": moment,
                    "window": { "start": window.start, "end": window.end },
                    "reason": outlook.reason(),
                })
            }
        }
    }
}
