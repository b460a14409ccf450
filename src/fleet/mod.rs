//! Devices in the field: that one was seen, and with which certificate.

pub mod rotations;
pub mod webhooks;

use std::net::SocketAddr;

use tracing::{info, warn};

use crate::clock::UnixTime;
use crate::keys::ActiveSnapshot;
use crate::ledger::{Contact, Ledger};
use crate::model::audit::{self, Entry, Outcome};
use crate::model::{DeviceName, FactoryId, FactoryTrust, Peer, Refusal, Sighting};
use crate::pki::Certificate;
use crate::policy::{self, Standing};

/// Records that a device has opened a session with its certificate: the first contact registers it,
/// and a session with a pending credential proves that the device switched (I3).
///
/// # Errors
/// The refusal: what the certificate is not good for any more.
pub async fn sight(
    ledger: &Ledger,
    active: &ActiveSnapshot,
    peer: &Peer,
) -> Result<Sighting, Refusal> {
    let requester = policy::authenticate(peer, active.snapshot(), UnixTime::now())?;
    let device_ca = match requester.standing {
        Standing::Device(device_ca) | Standing::RegistrationAuthority(device_ca) => device_ca,
        Standing::Newcomer(_) => return Ok(Sighting::Expected),
    };
    let device = requester.name.to_string();
    let seen = ledger.contact(Contact::new(&requester, device_ca)).await;
    match &seen {
        Ok(Sighting::FirstContact) => info!(device, "registered at first contact"),
        Ok(Sighting::Confirmed { .. }) => info!(device, "switched to its new certificate"),
        Ok(Sighting::Allowed { .. }) => warn!(device, "readmitted by the operator's allowance"),
        Ok(Sighting::Expected | Sighting::Adopted { .. }) => {}
        Err(refusal) if refusal.is_alarm() => {
            warn!(device, code = refusal.code(), reason = %refusal, "alarm: seen");
        }
        Err(refusal) => info!(device, code = refusal.code(), reason = %refusal, "seen"),
    }
    seen
}

/// Records that the device gateway refuses a session's certificate before the ledger is asked. Gives
/// the refusal, or that it cannot be recorded.
pub async fn refuse_session(ledger: &Ledger, peer: &Peer, refusal: Refusal) -> Refusal {
    let Some(shown) = &peer.certificate else { return refusal };
    let subject = shown.certificate.subject();
    let name = subject.common_name().and_then(|name| DeviceName::parse(&name).ok());
    let actor = name.map_or_else(|| subject.to_string(), |name| name.to_string());
    let actor = audit::shortened(&actor);
    info!(actor, code = refusal.code(), reason = %refusal, "refused at the gateway");
    let entry = entry(peer.factory, &actor, "connect", actor.clone(), &refusal);
    ledger.note_said(entry).await.err().unwrap_or(refusal)
}

/// What a gateway that is not ours says: a device has opened a session there with this certificate.
pub struct Report<'a> {
    /// The name of the gateway's token.
    pub token: &'a str,
    /// The Factory that the report is about.
    pub trust: &'a FactoryTrust,
    /// The certificate of the session.
    pub certificate: Certificate,
    /// Where the device connected from.
    pub address: SocketAddr,
}

/// Records that a device was seen elsewhere: the same as a session of ours (I3), on the word of
/// whoever reports it. The certificate is verified here again.
///
/// # Errors
/// The refusal: what the certificate is not good for. It is on record.
pub async fn report(
    ledger: &Ledger,
    active: &ActiveSnapshot,
    report: Report<'_>,
) -> Result<Sighting, Refusal> {
    let Report { token, trust, certificate, address } = report;
    let subject = audit::shortened(&certificate.subject().to_string());
    info!(token, subject, %address, "seen by another gateway");
    match policy::judge_report(trust, certificate, UnixTime::now()) {
        Ok(certificate) => {
            let certificate = Some(certificate);
            let factory = trust.factory.id;
            let peer = Peer { address, factory, certificate, channel_binding: None };
            sight(ledger, active, &peer).await
        }
        Err(refusal) => Err(refuse(ledger, trust, token, subject, refusal).await),
    }
}

async fn refuse(
    ledger: &Ledger,
    trust: &FactoryTrust,
    token: &str,
    subject: String,
    refusal: Refusal,
) -> Refusal {
    info!(token, subject, code = refusal.code(), reason = %refusal, "sighting refused");
    let entry = entry(trust.factory.id, token, "sighting", subject, &refusal);
    // Another gateway may pass on whoever knocks at it.
    ledger.note_stranger(entry).await.err().unwrap_or(refusal)
}

fn entry(
    factory: FactoryId,
    actor: &str,
    action: &str,
    subject: String,
    refusal: &Refusal,
) -> Entry {
    Entry {
        at: UnixTime::now(),
        factory: Some(factory),
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject,
        outcome: Outcome::Refused,
        code: refusal.code().to_owned(),
        detail: refusal.to_string(),
    }
}
