//! A simulated device: what it holds, what it does, and the accidents that it has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lc_rs::rand::{self, SystemRandom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::HOST;
use crate::client::{ClientError, Connection, EstClient, Identity};
use crate::clock::UnixTime;
use crate::keys::SigningKey;
use crate::model::DeviceName;
use crate::pki::{Certificate, UnsignedRequest};

/// How long a device waits before it asks again when its slot is not known yet, or it was refused.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A window that begins later than this, in seconds, is none of a rotation.
const SOON: i64 = 24 * 3600;

/// A simulated device and what it holds.
pub(super) struct Device {
    pub(super) name: DeviceName,
    pub(super) held: Held,
    /// What it held before, which its other partition still has.
    pub(super) before: Option<Held>,
    /// What happens to it in its rotation.
    pub(super) accident: Option<Accident>,
}

/// A certificate with its key.
pub(super) struct Held {
    pub(super) certificate: Certificate,
    pub(super) key: SigningKey,
}

/// What goes wrong on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accident {
    /// The connection breaks before the answer arrives.
    AnswerLost,
    /// The power fails between the answer and the installation.
    Killed,
    /// It installs, and its update system rolls it back before it connects.
    RolledBackBefore,
    /// It switches, and is rolled back to the certificate of before.
    RolledBackAfter,
    /// It is switched off.
    Silent,
}

impl Accident {
    /// A fixed share of a fleet: 10 % lose an answer, 5 % the power, 4 % are off, 4 % are rolled back.
    pub(super) fn of(index: usize) -> Option<Self> {
        match (index % 10, index % 20, index % 50, index % 25) {
            (3, ..) => Some(Self::AnswerLost),
            (_, 7, ..) => Some(Self::Killed),
            (_, _, 11, _) => Some(Self::RolledBackBefore),
            (_, _, 21, _) => Some(Self::RolledBackAfter),
            (.., 16) => Some(Self::Silent),
            _ => None,
        }
    }
}

/// How a device's rotation went.
pub(super) enum Rotated {
    /// It uses its new certificate.
    Switched,
    /// It is refused with the certificate that it was rolled back to: an operator must look.
    Refused,
}

/// Where the server is, and whom devices trust.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) root: Certificate,
    /// How many devices may talk to it at once: they share a machine with it.
    pub(super) places: Arc<Semaphore>,
}

/// A connection, and the place that it takes.
struct Open {
    connection: Connection,
    _place: OwnedSemaphorePermit,
}

impl Device {
    /// Opens a session with what the device holds.
    pub(super) async fn connect(&self, server: &Server) -> anyhow::Result<()> {
        server.open(Some(&self.held)).await?.connection.cacerts().await?;
        Ok(())
    }

    /// Waits for its slot and rotates, accidents and all.
    pub(super) async fn rotate(&mut self, server: &Server) -> anyhow::Result<Rotated> {
        self.wait_for_slot(server).await?;
        match self.accident.take() {
            None | Some(Accident::Silent) => self.switch(server).await?,
            Some(Accident::AnswerLost) => {
                let (_, request) = self.request()?;
                let mut open = server.open(Some(&self.held)).await?;
                let broken = Duration::from_millis(u64::from(random_byte()? % 16));
                // Whatever came of it, the device does not know.
                let _unknown = timeout(broken, open.connection.reenroll(&request)).await;
                drop(open);
                self.switch(server).await?;
            }
            Some(Accident::Killed | Accident::RolledBackBefore) => {
                let _never_used = self.reenrol(server).await?;
                self.connect(server).await?;
                self.switch(server).await?;
            }
            Some(Accident::RolledBackAfter) => {
                self.switch(server).await?;
                self.roll_back();
                let refused = self.reenrol(server).await.err();
                ensure!(refused.is_some_and(|why| is_refusal(&why)), "{}: not refused", self.name);
                return Ok(Rotated::Refused);
            }
        }
        Ok(Rotated::Switched)
    }

    /// Re-enrols, installs, and connects: that proves the switch.
    pub(super) async fn switch(&mut self, server: &Server) -> anyhow::Result<()> {
        let new = self.reenrol(server).await?;
        self.before = Some(std::mem::replace(&mut self.held, new));
        self.connect(server).await?;
        Ok(())
    }

    /// A new certificate for a new key.
    pub(super) async fn reenrol(&self, server: &Server) -> anyhow::Result<Held> {
        let (key, request) = self.request()?;
        let mut open = server.open(Some(&self.held)).await?;
        let certificate = open.connection.reenroll(&request).await?;
        Ok(Held { certificate, key })
    }

    /// Goes back to what it held before.
    fn roll_back(&mut self) {
        if let Some(before) = self.before.take() {
            self.held = before;
        }
    }

    async fn wait_for_slot(&self, server: &Server) -> anyhow::Result<()> {
        loop {
            let mut open = server.open(None).await?;
            let info = open.connection.renewal_info(&self.held.certificate).await?;
            drop(open);
            let start = info.context("the server says no window")?.window.start;
            let wait = start.0 - UnixTime::now().0;
            if wait < SOON {
                sleep(Duration::from_secs(u64::try_from(wait).unwrap_or(0))).await;
                return Ok(());
            }
            sleep(ASK_AGAIN).await;
        }
    }

    fn request(&self) -> anyhow::Result<(SigningKey, Vec<u8>)> {
        let random = SystemRandom::new();
        let key = SigningKey::generate(&random)?;
        let request = UnsignedRequest {
            subject: self.held.certificate.subject(),
            public_key: key.public_key(),
            extensions: &[],
            challenge_password: None,
        };
        let request = key.sign(request.to_be_signed(key.algorithm())?, &random)?;
        Ok((key, request))
    }
}

impl Server {
    async fn open(&self, identity: Option<&Held>) -> anyhow::Result<Open> {
        let identity = identity.map(|held| Identity {
            certificate: held.certificate.clone(),
            key: Zeroizing::new(held.key.pkcs8().to_vec()),
        });
        let url = format!("https://{HOST}:{}", self.address.port());
        let roots = std::slice::from_ref(&self.root);
        let client = EstClient::new(&url, roots, identity.as_ref())?.connect_to(self.address);
        let place = Arc::clone(&self.places).acquire_owned().await?;
        Ok(Open { connection: client.connect().await?, _place: place })
    }
}

/// Whether the server said that the device must not.
pub(super) fn is_refusal(why: &anyhow::Error) -> bool {
    matches!(why.downcast_ref(), Some(ClientError::Status { status: 403, .. }))
}

fn random_byte() -> anyhow::Result<u8> {
    let mut byte = [0];
    rand::fill(&mut byte).ok().context("no randomness")?;
    Ok(byte[0])
}
