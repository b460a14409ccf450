//! The writer's work: what is asked of it, and what it answers after the commit.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::keys::Signed;
use crate::model::audit::Entry;
use crate::model::{
    DeviceCa, DeviceCaId, DeviceMetadata, DeviceName, FactoryId, Refusal, Sighting,
};
use crate::pki::{Certificate, Fingerprint};
use crate::policy::{Grant, Introduction, Requester, Unapproved};

/// A device was seen with a certificate that verified against a Device CA.
#[derive(Clone, Debug)]
pub struct Contact {
    /// In which Factory.
    pub factory: FactoryId,
    /// Which device the certificate names.
    pub device: DeviceName,
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// The Device CA that issued it.
    pub device_ca: DeviceCaId,
    /// Where the device connected from.
    pub address: SocketAddr,
}

impl Contact {
    /// The requester, a device by its certificate of this Device CA, is seen.
    pub fn new(requester: &Requester<'_>, device_ca: &DeviceCa) -> Self {
        Self {
            factory: requester.trust.factory.id,
            device: requester.name.clone(),
            certificate: Arc::clone(&requester.certificate.certificate),
            device_ca: device_ca.id,
            address: requester.peer.address,
        }
    }
}

/// Who asked for a certificate.
#[derive(Clone, Debug)]
pub enum Asker {
    /// The device itself.
    Device(Contact),
    /// A registration authority, on the device's behalf (E-25).
    RegistrationAuthority(Bearer),
    /// A new device, by a certificate of a bootstrap CA (E-17).
    Newcomer(Bearer),
    /// Somebody with a token for the API, who registers the device.
    Registrar(Registrar),
}

/// Somebody with a certificate that the ledger does not keep.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The name in the certificate.
    pub name: DeviceName,
    /// SHA-256 of the certificate.
    pub certificate: Fingerprint,
    /// Where it connected from.
    pub address: SocketAddr,
}

impl From<&Requester<'_>> for Bearer {
    fn from(requester: &Requester<'_>) -> Self {
        Self {
            name: requester.name.clone(),
            certificate: requester.certificate.certificate.fingerprint(),
            address: requester.peer.address,
        }
    }
}

/// Who registers a device, and what they say of it.
#[derive(Clone, Debug)]
pub struct Registrar {
    /// The name of the token.
    pub token: String,
    /// What people call the device.
    pub metadata: DeviceMetadata,
}

/// What became of a device that was to be registered with a certificate that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduced {
    /// It is registered.
    New,
    /// It was registered with this certificate before.
    Known,
}

/// A certificate that is on record. Only a committed transaction makes one (I1).
pub struct Recorded {
    certificate: Certificate,
}

impl Recorded {
    /// The certificate, which may now be handed out.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

pub(super) enum Work {
    Record {
        signed: Box<Signed>,
        asker: Asker,
        reply: oneshot::Sender<Result<Recorded, Refusal>>,
    },
    Contact {
        contact: Contact,
        reply: oneshot::Sender<Result<Sighting, Refusal>>,
    },
    Hold {
        unapproved: Box<Unapproved>,
        request: Fingerprint,
        asker: Asker,
        reply: oneshot::Sender<Result<Held, Refusal>>,
    },
    Introduce {
        introduction: Introduction,
        registrar: Registrar,
        reply: oneshot::Sender<Result<Introduced, Refusal>>,
    },
    Note {
        entry: Entry,
        reply: oneshot::Sender<()>,
    },
}

/// What became of a request that an operator must approve.
pub enum Held {
    /// It waits.
    Waiting,
    /// An operator approved it: sign it.
    Approved(Box<Grant>),
}

/// What the transaction decided.
pub(super) enum Ruling {
    Seen(Sighting),
    Waiting,
    Approved,
    Introduced(Introduced),
    Noted,
}

pub(super) type Verdict = Result<Ruling, Refusal>;

impl Work {
    /// The device that it is about.
    pub(super) fn device(&self) -> Option<(FactoryId, &DeviceName)> {
        match self {
            Self::Record { signed, .. } => Some((signed.grant().factory, &signed.grant().device)),
            Self::Contact { contact, .. } => Some((contact.factory, &contact.device)),
            Self::Hold { unapproved, .. } => {
                Some((unapproved.grant().factory, &unapproved.grant().device))
            }
            Self::Introduce { introduction, .. } => {
                Some((introduction.factory, &introduction.device))
            }
            Self::Note { .. } => None,
        }
    }

    /// The name for people that it would give to a device.
    pub(super) fn alias(&self) -> Option<(FactoryId, &str)> {
        let (factory, registrar) = match self {
            Self::Record { signed, asker: Asker::Registrar(registrar), .. } => {
                (signed.grant().factory, registrar)
            }
            Self::Introduce { introduction, registrar, .. } => (introduction.factory, registrar),
            _ => return None,
        };
        registrar.metadata.alias.as_deref().map(|alias| (factory, alias))
    }

    /// Answers, after the commit. Whoever waited may be gone by now, which changes nothing.
    pub(super) fn answer(self, verdict: Verdict) {
        match self {
            Self::Record { signed, reply, .. } => {
                let certificate = signed.into_certificate();
                let _gone = reply.send(verdict.map(|_| Recorded { certificate }));
            }
            Self::Contact { reply, .. } => {
                let _gone = reply.send(verdict.map(|ruling| match ruling {
                    Ruling::Seen(sighting) => sighting,
                    _ => Sighting::Expected,
                }));
            }
            Self::Hold { unapproved, reply, .. } => {
                let _gone = reply.send(verdict.map(|ruling| match ruling {
                    Ruling::Approved => Held::Approved(Box::new(unapproved.approved())),
                    _ => Held::Waiting,
                }));
            }
            Self::Introduce { reply, .. } => {
                let _gone = reply.send(verdict.map(|ruling| match ruling {
                    Ruling::Introduced(introduced) => introduced,
                    _ => Introduced::New,
                }));
            }
            Self::Note { reply, .. } => {
                let _gone = reply.send(());
            }
        }
    }
}

impl Asker {
    /// The name in the certificate that asks, or that of the token.
    pub fn name(&self) -> &str {
        match self {
            Self::Device(contact) => contact.device.as_str(),
            Self::RegistrationAuthority(bearer) | Self::Newcomer(bearer) => bearer.name.as_str(),
            Self::Registrar(registrar) => &registrar.token,
        }
    }

    /// SHA-256 of the certificate that asks; a token has none.
    pub(super) fn certificate(&self) -> Option<Fingerprint> {
        match self {
            Self::Device(contact) => Some(contact.certificate.fingerprint()),
            Self::RegistrationAuthority(bearer) | Self::Newcomer(bearer) => {
                Some(bearer.certificate)
            }
            Self::Registrar(_) => None,
        }
    }

    pub(super) fn address(&self) -> String {
        match self {
            Self::Device(contact) => contact.address.to_string(),
            Self::RegistrationAuthority(bearer) | Self::Newcomer(bearer) => {
                bearer.address.to_string()
            }
            Self::Registrar(_) => "API".to_owned(),
        }
    }
}
