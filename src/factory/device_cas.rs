//! What is done to a Device CA: disable, enable, revoke, readmit. A refusal is on record as well.

use crate::clock::UnixTime;
use crate::ledger::{ChangeError, DeviceCaChange, FactoryChange, Ledger};
use crate::model::audit::{Entry, Outcome};
use crate::model::{DeviceCa, DeviceCaAct, Factory, FactoryTrust};
use crate::pki::Certificate;

/// An act upon a Device CA, as an operator asks for it.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Which one.
    pub device_ca: &'a DeviceCa,
    /// What.
    pub act: DeviceCaAct,
    /// How many devices revoking may strand (I8).
    pub strand: u64,
    /// Why, for the audit log.
    pub reason: &'a str,
}

/// Acts upon a Device CA.
///
/// # Errors
/// When its state forbids that, devices depend on it (I8), or the ledger fails.
pub async fn act(
    ledger: &Ledger,
    factory: &Factory,
    asked: Asked<'_>,
    actor: &str,
) -> Result<(), ChangeError> {
    let change = FactoryChange::Act(DeviceCaChange {
        device_ca: asked.device_ca.id,
        act: asked.act,
        strand: asked.strand,
        detail: asked.reason.to_owned(),
    });
    let done = ledger.change_factory(factory.id, &[change], actor).await;
    if let Err(ChangeError::Refused(why)) = &done {
        let certificate = &asked.device_ca.certificate;
        let subject = format!("{} serial {}", certificate.subject(), certificate.serial());
        let entry = refusal(factory, actor, asked.act.as_str(), subject, why.code(), why);
        // Best effort: what the operator must learn is the refusal, not that it went unrecorded.
        let _unrecorded = ledger.note(entry).await;
    }
    done
}

/// Brings a revoked Device CA back, which is told by its certificate.
///
/// # Errors
/// When it is none of this Factory's, is not revoked, or the ledger fails.
pub async fn readmit(
    ledger: &Ledger,
    trust: &FactoryTrust,
    certificate: &Certificate,
    actor: &str,
) -> Result<(), ChangeError> {
    let known = trust.device_cas.iter().find(|ca| ca.certificate == *certificate);
    let device_ca = known.ok_or(crate::ledger::ChangeRefused::NoSuchDeviceCa)?;
    let asked = Asked { device_ca, act: DeviceCaAct::Readmit, strand: 0, reason: "" };
    act(ledger, &trust.factory, asked, actor).await
}

/// The record of a change that was refused.
pub(super) fn refusal(
    factory: &Factory,
    actor: &str,
    action: &str,
    subject: String,
    code: &str,
    why: &dyn std::fmt::Display,
) -> Entry {
    Entry {
        at: UnixTime::now(),
        factory: Some(factory.id),
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject,
        outcome: Outcome::Refused,
        code: code.to_owned(),
        detail: why.to_string(),
    }
}
