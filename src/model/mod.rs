//! The nouns of the house and their state machines. Pure: no I/O, no clock of its own.

pub mod audit;
mod bootstrap_ca;
mod config_file;
mod credential;
mod delivery;
mod device;
mod device_ca;
mod device_event;
mod factory;
mod held_request;
mod peer;
mod profile;
mod refusal;
mod renewal;
pub mod rotation;
mod snapshot;
mod switch;
mod token;
mod webhook;

pub use bootstrap_ca::{BootstrapCa, BootstrapCaId};
pub use config_file::{ConfigFile, ConfigScope};
pub use credential::{
    Allowance, CredentialState, KnownCredential, KnownDevice, PENDING_LIMIT, Presented, Sighting,
};
pub use delivery::Progress;
pub use device::{DeviceMetadata, DeviceName};
pub use device_ca::{ActRefused, DeviceCa, DeviceCaAct, DeviceCaId, DeviceCaKind, DeviceCaState};
pub use device_event::DeviceEvent;
pub use factory::{Factory, FactoryId, FactoryName, HostName, ServerPurpose};
pub use held_request::{HELD_LIMIT, HeldRequestId, HeldState};
pub use peer::{Issuer, Peer, PeerCertificate};
pub use profile::{AnswerStyle, Approval, EnrolmentProfile, KeyKind, Label, Operation};
pub use refusal::{Class, KeyRefusal, Refusal};
pub use renewal::RenewalWindow;
pub use snapshot::{FactoryTrust, Profiles, Snapshot, issuing_ca, signing_ca};
pub use switch::Switch;
pub use token::{Role, Token, TokenName, TokenState};
pub use webhook::{EventKind, EventKinds, WebhookId, WebhookName, WebhookUrl};

/// Text that is not the name or word that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {rule}")]
pub struct NotA {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl NotA {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        let text = text.chars().take(80).collect();
        Self { what, text, rule }
    }
}
