//! The writer's work: what is asked of it, and what it answers after the commit.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::facts::DeviceKey;
use crate::clock::UnixTime;
use crate::keys::Signed;
use crate::model::audit::Entry;
use crate::model::{
    BootstrapCa, BootstrapCaId, DeviceCa, DeviceCaId, DeviceEvent, DeviceMetadata, DeviceName,
    FactoryId, Presented, Refusal, Sighting,
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
    /// A registration authority, on the device's behalf (E-25). It is itself a device.
    RegistrationAuthority(Contact),
    /// A new device, by a certificate of a bootstrap CA (E-17).
    Newcomer(Newcomer),
    /// Somebody with a token for the API, who registers the device.
    Registrar(Registrar),
}

/// A device with a certificate of a bootstrap CA, which the ledger does not keep.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// The name in the certificate.
    pub name: DeviceName,
    /// The certificate.
    pub shown: Presented,
    /// The bootstrap CA that issued it.
    pub bootstrap_ca: BootstrapCaId,
    /// Where it connected from.
    pub address: SocketAddr,
}

impl Newcomer {
    /// The requester comes by a certificate of this bootstrap CA.
    pub fn new(requester: &Requester<'_>, bootstrap_ca: &BootstrapCa) -> Self {
        Self {
            name: requester.name.clone(),
            shown: requester.certificate.presented(),
            bootstrap_ca: bootstrap_ca.id,
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

/// The device whose request was refused before it came to the ledger, by what it showed.
#[derive(Clone, Debug)]
pub struct RefusedAsker {
    /// In which Factory.
    pub factory: FactoryId,
    /// The name in the certificate.
    pub device: DeviceName,
    /// The certificate.
    pub shown: Presented,
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
    /// A device says which key it will use next.
    Announce {
        device: DeviceKey,
        next: Fingerprint,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A device says how it fares.
    Tell {
        device: DeviceKey,
        events: Vec<DeviceEvent>,
        reply: oneshot::Sender<()>,
    },
    Note {
        entries: Vec<Entry>,
        reply: oneshot::Sender<()>,
    },
    Refuse {
        entry: Entry,
        asker: RefusedAsker,
        refusal: Refusal,
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

/// What a waiter reads if it is given another's ruling, which no code does: never a yes.
const ANOTHER_RULING: Refusal = Refusal::LedgerUnavailable;

/// A certificate or key that a piece of work shows in a device's name.
pub(super) struct Shown<'a> {
    pub(super) factory: FactoryId,
    pub(super) device: &'a DeviceName,
    /// SHA-256 of the certificate; a request has none.
    pub(super) certificate: Option<Fingerprint>,
    /// SHA-256 of the key.
    pub(super) key: Fingerprint,
}

impl<'a> From<&'a Contact> for Shown<'a> {
    fn from(contact: &'a Contact) -> Self {
        Self {
            factory: contact.factory,
            device: &contact.device,
            certificate: Some(contact.certificate.fingerprint()),
            key: contact.certificate.public_key().fingerprint(),
        }
    }
}

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
            Self::Refuse { asker, .. } => Some((asker.factory, &asker.device)),
            Self::Announce { device: (factory, device), .. }
            | Self::Tell { device: (factory, device), .. } => Some((*factory, device)),
            Self::Note { .. } => None,
        }
    }

    /// Whether it is something that a device says, about which nothing is decided.
    pub(super) fn only_tells(&self) -> bool {
        matches!(self, Self::Tell { .. })
    }

    /// What it shows in a device's name: in that of a registration authority, its own.
    pub(super) fn shown(&self) -> Option<Shown<'_>> {
        match self {
            Self::Contact { contact, .. } => Some(contact.into()),
            Self::Record { asker, .. } | Self::Hold { asker, .. } if asker.contact().is_some() => {
                asker.contact().map(Into::into)
            }
            Self::Record { signed, asker: Asker::Registrar(_), .. } => {
                let grant = signed.grant();
                let key = grant.public_key.fingerprint();
                let (factory, device) = (grant.factory, &grant.device);
                Some(Shown { factory, device, certificate: None, key })
            }
            Self::Introduce { introduction, .. } => Some(Shown {
                factory: introduction.factory,
                device: &introduction.device,
                certificate: Some(introduction.certificate.fingerprint()),
                key: introduction.certificate.public_key().fingerprint(),
            }),
            Self::Record { .. }
            | Self::Hold { .. }
            | Self::Announce { .. }
            | Self::Tell { .. }
            | Self::Note { .. }
            | Self::Refuse { .. } => None,
        }
    }

    /// Whether somebody asks by a certificate of a bootstrap CA.
    pub(super) fn is_newcomers(&self) -> bool {
        let (Self::Record { asker, .. } | Self::Hold { asker, .. }) = self else { return false };
        matches!(asker, Asker::Newcomer(_))
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
                let _gone = reply.send(verdict.and_then(|ruling| match ruling {
                    Ruling::Seen(sighting) => Ok(sighting),
                    _ => Err(ANOTHER_RULING),
                }));
            }
            Self::Hold { unapproved, reply, .. } => {
                let _gone = reply.send(verdict.and_then(|ruling| match ruling {
                    Ruling::Approved => Ok(Held::Approved(Box::new(unapproved.approved()))),
                    Ruling::Waiting => Ok(Held::Waiting),
                    _ => Err(ANOTHER_RULING),
                }));
            }
            Self::Introduce { reply, .. } => {
                let _gone = reply.send(verdict.and_then(|ruling| match ruling {
                    Ruling::Introduced(introduced) => Ok(introduced),
                    _ => Err(ANOTHER_RULING),
                }));
            }
            Self::Announce { reply, .. } => {
                let _gone = reply.send(verdict.map(|_noted| ()));
            }
            Self::Tell { reply, .. } | Self::Note { reply, .. } | Self::Refuse { reply, .. } => {
                let _gone = reply.send(());
            }
        }
    }
}

impl Asker {
    fn contact(&self) -> Option<&Contact> {
        match self {
            Self::Device(contact) | Self::RegistrationAuthority(contact) => Some(contact),
            Self::Newcomer(_) | Self::Registrar(_) => None,
        }
    }

    /// The name in the certificate that asks, or that of the token.
    pub fn name(&self) -> &str {
        match self {
            Self::Device(contact) | Self::RegistrationAuthority(contact) => contact.device.as_str(),
            Self::Newcomer(newcomer) => newcomer.name.as_str(),
            Self::Registrar(registrar) => &registrar.token,
        }
    }

    /// SHA-256 of the certificate that asks; a token has none.
    pub(super) fn certificate(&self) -> Option<Fingerprint> {
        match self {
            Self::Device(contact) | Self::RegistrationAuthority(contact) => {
                Some(contact.certificate.fingerprint())
            }
            Self::Newcomer(newcomer) => Some(newcomer.shown.fingerprint),
            Self::Registrar(_) => None,
        }
    }

    /// When the device's own certificate ends, if it asks by that.
    pub(super) fn ends_at(&self) -> Option<UnixTime> {
        match self {
            Self::Device(contact) => Some(contact.certificate.validity().not_after),
            Self::RegistrationAuthority(_) | Self::Newcomer(_) | Self::Registrar(_) => None,
        }
    }

    pub(super) fn address(&self) -> String {
        match self {
            Self::Device(contact) | Self::RegistrationAuthority(contact) => {
                contact.address.to_string()
            }
            Self::Newcomer(newcomer) => newcomer.address.to_string(),
            Self::Registrar(_) => "API".to_owned(),
        }
    }
}
