//! The one issuance pipeline: `Requester + request -> Grant -> Signed -> Recorded`, and a record of
//! every refusal on the way.

mod put_off;
mod registration;

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use tracing::{error, info, warn};

use put_off::PutOff;

use crate::clock::UnixTime;
use crate::keys::{self, ActiveSnapshot, Signed};
use crate::ledger::{Asker, Contact, Held, Ledger, LedgerError, Newcomer, Recorded, RefusedAsker};
use crate::model::audit::{self, Entry, Outcome};
use crate::model::{
    DeviceCaId, DeviceName, FactoryId, FactoryTrust, Operation, Peer, Refusal, RenewalWindow,
};
use crate::pki::{Certificate, CertificationRequest, Serial};
use crate::policy::{self, EnrolmentRequest, Grant, Judged, Requester, Standing};

/// Issues certificates.
pub struct Enrolments {
    ledger: Ledger,
    active: Arc<ArcSwap<ActiveSnapshot>>,
    random: SystemRandom,
    put_off: PutOff,
}

/// A refusal that is on record, unless it says that nothing can be recorded now. An enrolment is only
/// ever refused to a client with one of these.
#[derive(Debug)]
pub struct Refused {
    refusal: Refusal,
    judged_by_ledger: bool,
}

impl Refused {
    /// The refusal.
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The refusal by itself.
    pub fn into_refusal(self) -> Refusal {
        self.refusal
    }

    /// Whether the ledger refused it, which has then judged the device's certificate too.
    pub fn judged_by_ledger(&self) -> bool {
        self.judged_by_ledger
    }
}

/// What became of a request that was not refused.
pub enum Enrolled {
    /// The certificate is issued and on record.
    Issued(Box<Recorded>),
    /// It waits for an operator; the client shall ask again with the same request.
    Waiting,
}

impl Enrolments {
    /// Issues from the Device CAs of whatever `active` holds at the time.
    pub fn new(ledger: Ledger, active: Arc<ArcSwap<ActiveSnapshot>>) -> Self {
        Self { ledger, active, random: SystemRandom::new(), put_off: PutOff::default() }
    }

    /// The present snapshot with its keys.
    pub fn active(&self) -> Arc<ActiveSnapshot> {
        self.active.load_full()
    }

    /// The certificates with this serial number that are accepted in a Factory.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn accepted_by_serial(
        &self,
        trust: &FactoryTrust,
        serial: &Serial,
    ) -> Result<Vec<Certificate>, Refusal> {
        self.ledger.accepted_by_serial(trust.factory.id, serial).await.map_err(unreadable)
    }

    /// The window that a rotation gives to a device with this certificate: `None` if it is in none,
    /// `Some(None)` if its slot is not known yet.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn rotation_window(
        &self,
        trust: &FactoryTrust,
        certificate: &Certificate,
        now: UnixTime,
    ) -> Result<Option<Option<RenewalWindow>>, Refusal> {
        let (fingerprint, serial) = (certificate.fingerprint(), certificate.serial().contents());
        let slot = self.ledger.slot_of(trust.factory.id, fingerprint, serial).await;
        let slot = slot.map_err(unreadable)?;
        Ok(slot.map(|(rotation, slot)| rotation.window(&slot, now)))
    }

    /// Issues one certificate, or refuses it; either way it is on record when this returns.
    ///
    /// # Errors
    /// The refusal.
    pub async fn enrol(
        &self,
        active: &ActiveSnapshot,
        requester: &Requester<'_>,
        request: &EnrolmentRequest<'_>,
        now: UnixTime,
    ) -> Result<Enrolled, Refused> {
        let EnrolmentRequest { operation, csr, .. } = *request;
        if let Err(refusal) = self.check_put_off(requester, now).await {
            return Err(self.refuse(requester.peer, operation, refusal).await);
        }
        let target = match self.target(requester.trust, csr).await {
            Ok(target) => target,
            Err(refusal) => return Err(self.refuse(requester.peer, operation, refusal).await),
        };
        let grant = match policy::judge(requester, request, target, now) {
            Ok(Judged::Granted(grant)) => grant,
            Ok(Judged::ToApprove(unapproved)) => {
                match self.ledger.hold(unapproved, csr.fingerprint(), asker(requester)).await {
                    Ok(Held::Approved(grant)) => *grant,
                    Ok(Held::Waiting) => return Ok(Enrolled::Waiting),
                    Err(refusal) => {
                        let name = requester.name.as_str();
                        return Err(refused_by_ledger(refusal, name, operation));
                    }
                }
            }
            Err(refusal) => return Err(self.refuse(requester.peer, operation, refusal).await),
        };
        let signed = match self.sign(active, grant).await {
            Ok(signed) => signed,
            Err(refusal) => return Err(self.refuse(requester.peer, operation, refusal).await),
        };
        match self.record(signed, asker(requester)).await {
            Ok(recorded) => Ok(Enrolled::Issued(Box::new(recorded))),
            Err(refusal) => {
                self.put_off.note(requester, &refusal, now);
                Err(refused_by_ledger(refusal, requester.name.as_str(), operation))
            }
        }
    }

    /// The Device CA that a rotation wants the device to have a certificate of. Only a Factory with a
    /// rotation that names one asks the ledger for it.
    async fn target(
        &self,
        trust: &FactoryTrust,
        csr: &CertificationRequest,
    ) -> Result<Option<DeviceCaId>, Refusal> {
        let name = csr.subject().common_name().and_then(|name| DeviceName::parse(&name).ok());
        let Some(device) = name.filter(|_| trust.has_targets) else {
            return Ok(None);
        };
        self.ledger.rotation_target(trust.factory.id, &device).await.map_err(unreadable)
    }

    async fn sign(&self, active: &ActiveSnapshot, grant: Grant) -> Result<Signed, Refusal> {
        let key = active.signer(&grant.issuing_ca).ok_or(Refusal::SignerUnavailable)?;
        keys::sign(grant, key, &self.random).await.map_err(|why| {
            error!(error = %why, "a granted certificate could not be signed");
            Refusal::SignerUnavailable
        })
    }

    async fn record(&self, signed: Signed, asker: Asker) -> Result<Recorded, Refusal> {
        let (device, operation) = (signed.grant().device.clone(), signed.grant().operation);
        let recorded = self.ledger.record(signed, asker).await?;
        info!(
            %device,
            operation = operation.as_str(),
            certificate = %recorded.certificate().fingerprint(),
            until = %recorded.certificate().validity().not_after,
            "issued"
        );
        Ok(recorded)
    }

    /// Records what a device says of itself, the first times within an hour.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn note_said(
        &self,
        requester: &Requester<'_>,
        operation: Operation,
        detail: String,
    ) -> Result<(), Refusal> {
        let name = requester.name.to_string();
        let entry = Entry {
            at: UnixTime::now(),
            factory: Some(requester.trust.factory.id),
            actor: name.clone(),
            action: operation.as_str().to_owned(),
            subject: name,
            outcome: Outcome::Done,
            code: String::new(),
            detail,
        };
        self.ledger.note_said(entry).await
    }

    /// Records a refusal that was decided before the ledger was asked.
    pub async fn refuse(&self, peer: &Peer, operation: Operation, refusal: Refusal) -> Refused {
        let Some(certificate) = &peer.certificate else {
            let actor = peer.address.ip().to_string();
            log(&refusal, &actor, operation);
            let entry = entry(peer.factory, actor.clone(), actor, operation, &refusal);
            return refused(refusal, self.ledger.note_stranger(entry).await);
        };
        // By the name that the ledger would use, where it is one.
        let subject = certificate.certificate.subject();
        let name = subject.common_name().and_then(|name| DeviceName::parse(&name).ok());
        let asks = [Operation::SimpleEnroll, Operation::SimpleReenroll].contains(&operation);
        let Some(device) = name.clone().filter(|_| asks) else {
            let actor = name.map_or_else(|| subject.to_string(), |name| name.to_string());
            let actor = audit::shortened(&actor);
            return self.note(peer.factory, actor.clone(), actor, operation, refusal).await;
        };
        let actor = device.to_string();
        log(&refusal, &actor, operation);
        let entry = entry(peer.factory, actor.clone(), actor, operation, &refusal);
        let (factory, shown) = (peer.factory, certificate.presented());
        let asker = RefusedAsker { factory, device, shown };
        let recorded = self.ledger.note_refused(entry, asker, refusal.clone()).await;
        refused(refusal, recorded)
    }

    async fn note(
        &self,
        factory: FactoryId,
        actor: String,
        subject: String,
        operation: Operation,
        refusal: Refusal,
    ) -> Refused {
        log(&refusal, &actor, operation);
        let entry = entry(factory, actor, subject, operation, &refusal);
        refused(refusal, self.ledger.note_said(entry).await)
    }
}

fn unreadable(why: LedgerError) -> Refusal {
    error!(error = %why, "the ledger cannot be read");
    Refusal::LedgerUnavailable
}

fn entry(
    factory: FactoryId,
    actor: String,
    subject: String,
    operation: Operation,
    refusal: &Refusal,
) -> Entry {
    Entry {
        at: UnixTime::now(),
        factory: Some(factory),
        actor,
        action: operation.as_str().to_owned(),
        subject,
        outcome: Outcome::Refused,
        code: refusal.code().to_owned(),
        detail: refusal.to_string(),
    }
}

/// What cannot be recorded is not decided either: the client may ask again.
fn refused(refusal: Refusal, recorded: Result<(), Refusal>) -> Refused {
    Refused { refusal: recorded.err().unwrap_or(refusal), judged_by_ledger: false }
}

/// The ledger has recorded its own refusals, and cannot record that it is away.
fn refused_by_ledger(refusal: Refusal, actor: &str, operation: Operation) -> Refused {
    log(&refusal, actor, operation);
    let judged_by_ledger = !refusal.is_unrecorded();
    Refused { refusal, judged_by_ledger }
}

fn asker(requester: &Requester<'_>) -> Asker {
    match requester.standing {
        Standing::Device(device_ca) => Asker::Device(Contact::new(requester, device_ca)),
        Standing::RegistrationAuthority(device_ca) => {
            Asker::RegistrationAuthority(Contact::new(requester, device_ca))
        }
        Standing::Newcomer(bootstrap_ca) => Asker::Newcomer(Newcomer::new(requester, bootstrap_ca)),
    }
}

fn log(refusal: &Refusal, actor: &str, operation: Operation) {
    let operation = operation.as_str();
    if refusal.is_alarm() {
        warn!(actor, operation, code = refusal.code(), reason = %refusal, "alarm: refused");
    } else {
        info!(actor, operation, code = refusal.code(), reason = %refusal, "refused");
    }
}
