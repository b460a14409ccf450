//! Whether, and as what, a request is granted: simpleenroll and simplereenroll (RFC 7030 §4.2).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::ID_KP_CLIENT_AUTH;
use data_encoding::BASE64;

use super::requester::{CMC_RA, Requester, Standing, device_name};
use crate::clock::UnixTime;
use crate::model::{
    Approval, DeviceCa, DeviceCaId, DeviceName, EnrolmentProfile, FactoryId, FactoryTrust,
    KeyRefusal, Label, Operation, Refusal,
};
use crate::pki::{
    Certificate, CertificationRequest, Extension, KeyUsageSet, KeyUsages, Malformed, Name,
    PublicKey, SignatureFault, Validity,
};

/// What a device's certificate is for.
pub(super) const DEVICE: &[ObjectIdentifier] = &[ID_KP_CLIENT_AUTH];
/// What a registration authority's certificate is for.
const AUTHORITY: &[ObjectIdentifier] = &[ID_KP_CLIENT_AUTH, CMC_RA];

/// Certificates begin this many seconds in the past, for devices whose clock is slow (I12).
const BACKDATED_SECONDS: i64 = 5 * 60;

/// Permission to sign one certificate. Only [`judge`] and
/// [`judge_registration`](super::judge_registration) make it.
#[expect(clippy::manual_non_exhaustive, reason = "the private field keeps this crate out as well")]
pub struct Grant {
    /// In which Factory.
    pub factory: FactoryId,
    /// For which device.
    pub device: DeviceName,
    /// Which operation was asked for.
    pub operation: Operation,
    /// Under which label.
    pub label: Option<Label>,
    /// The Device CA that shall sign; `issuing_ca.certificate` names the issuer.
    pub issuing_ca: DeviceCa,
    /// The subject, in the request's own bytes.
    pub subject: Name,
    /// The key.
    pub public_key: PublicKey,
    /// From when until when.
    pub validity: Validity,
    /// Every extension.
    pub extensions: Vec<Extension>,
    _judged: (),
}

/// A grant that an operator must approve before it can be signed.
pub struct Unapproved(Grant);

impl Unapproved {
    /// What would be granted.
    pub fn grant(&self) -> &Grant {
        &self.0
    }

    /// The grant, for the ledger to give out once it holds the operator's approval.
    pub(crate) fn approved(self) -> Grant {
        self.0
    }
}

/// What the rules say to a request that they do not refuse.
pub enum Judged {
    /// Sign it.
    Granted(Grant),
    /// Ask an operator.
    ToApprove(Unapproved),
}

/// A request to enrol, decoded.
#[derive(Clone, Copy)]
pub struct EnrolmentRequest<'a> {
    /// simpleenroll or simplereenroll.
    pub operation: Operation,
    /// The label in the path.
    pub label: Option<&'a Label>,
    /// What the label selects.
    pub profile: &'a EnrolmentProfile,
    /// The PKCS#10 request.
    pub csr: &'a CertificationRequest,
}

/// Judges a request. A rotation may want a certificate of the Device CA `target`.
///
/// # Errors
/// The refusal, the cheap checks before the costly ones.
pub fn judge(
    requester: &Requester<'_>,
    request: &EnrolmentRequest<'_>,
    target: Option<DeviceCaId>,
    now: UnixTime,
) -> Result<Judged, Refusal> {
    let EnrolmentRequest { operation, label, profile, csr: request } = *request;
    let device = device_of(requester, operation, request)?;
    check_key(profile, request.public_key())?;
    let purposes = purposes(requester, operation, request)?;
    let usages = key_usage(request, purposes)?;
    check_channel_binding(requester, profile, request)?;
    verify(request)?;
    let label = label.cloned();
    let checked = Checked { device, operation, label, usages, purposes, request, target };
    let grant = grant(checked, requester.trust, profile, now)?;
    Ok(match profile.approval {
        Approval::Automatic => Judged::Granted(grant),
        Approval::Manual => Judged::ToApprove(Unapproved(grant)),
    })
}

/// A request that was checked.
pub(super) struct Checked<'a> {
    pub(super) device: DeviceName,
    pub(super) operation: Operation,
    pub(super) label: Option<Label>,
    pub(super) usages: KeyUsageSet,
    pub(super) purposes: &'static [ObjectIdentifier],
    pub(super) request: &'a CertificationRequest,
    pub(super) target: Option<DeviceCaId>,
}

/// Says what is signed and by which Device CA.
pub(super) fn grant(
    checked: Checked<'_>,
    trust: &FactoryTrust,
    profile: &EnrolmentProfile,
    now: UnixTime,
) -> Result<Grant, Refusal> {
    let Checked { device, operation, label, usages, purposes, request, target } = checked;
    // A target that does not sign any more is no reason to leave a device without a certificate.
    let target = target.and_then(|target| trust.signing_ca(target, now));
    let issuing_ca = target.or_else(|| trust.issuing_ca(now, profile.validity_seconds));
    let issuing_ca = issuing_ca.ok_or(Refusal::NoIssuingCa)?;
    let ca_end = issuing_ca.certificate.validity().not_after;
    let validity = Validity {
        not_before: now.plus(-BACKDATED_SECONDS),
        not_after: now.plus(profile.validity_seconds).min(ca_end),
    };
    Ok(Grant {
        factory: trust.factory.id,
        device,
        operation,
        label,
        extensions: extensions(request, usages, purposes, &issuing_ca.certificate)
            .map_err(|why| Refusal::CsrMalformed(why.to_string()))?,
        issuing_ca: issuing_ca.clone(),
        subject: request.subject().clone(),
        public_key: request.public_key().clone(),
        validity,
        _judged: (),
    })
}

/// Proof of possession.
pub(super) fn verify(request: &CertificationRequest) -> Result<(), Refusal> {
    request.verify().map_err(|fault| match fault {
        SignatureFault::Algorithm => Refusal::CsrSignatureAlgorithm,
        SignatureFault::Wrong => Refusal::CsrSignature,
    })
}

/// The device that the request is for: by rule I4 the requester itself, byte for byte, on
/// simpleenroll too. A registration authority may enrol others, and renew itself.
fn device_of(
    requester: &Requester<'_>,
    operation: Operation,
    request: &CertificationRequest,
) -> Result<DeviceName, Refusal> {
    if request.changes_subject() {
        return Err(Refusal::SubjectChangeRequested);
    }
    match (requester.standing, operation) {
        (Standing::RegistrationAuthority(_), Operation::SimpleEnroll) => {
            return device_name(request.subject(), requester.trust);
        }
        (Standing::Newcomer(_), Operation::SimpleReenroll) => {
            return Err(Refusal::BootstrapOnlyEnrols);
        }
        _ => {}
    }
    let own: &Certificate = &requester.certificate.certificate;
    if request.subject() != own.subject() {
        return Err(Refusal::SubjectMismatch);
    }
    if request.extensions().subject_alt_name != own.extensions().subject_alt_name {
        return Err(Refusal::SanMismatch);
    }
    Ok(requester.name.clone())
}

pub(super) fn check_key(profile: &EnrolmentProfile, key: &PublicKey) -> Result<(), Refusal> {
    if profile.keys.iter().any(|kind| kind.covers(key.algorithm())) {
        return Ok(());
    }
    Err(Refusal::KeyNotAllowed(KeyRefusal {
        found: key.algorithm().to_string(),
        allowed: profile.keys.clone(),
    }))
}

/// What the certificate will be for. A registration authority that renews itself stays one; it is
/// appointed by its key, so it keeps that.
fn purposes(
    requester: &Requester<'_>,
    operation: Operation,
    request: &CertificationRequest,
) -> Result<&'static [ObjectIdentifier], Refusal> {
    match (requester.standing, operation) {
        (Standing::RegistrationAuthority(_), Operation::SimpleReenroll) => {
            if request.public_key() != requester.certificate.certificate.public_key() {
                return Err(Refusal::AuthorityRekeyed);
            }
            Ok(AUTHORITY)
        }
        _ => Ok(DEVICE),
    }
}

/// The key usage asked for, within what a device may have; digitalSignature if none is asked for.
pub(super) fn key_usage(
    request: &CertificationRequest,
    purposes: &[ObjectIdentifier],
) -> Result<KeyUsageSet, Refusal> {
    let asked = request.extensions();
    if asked.ca {
        return Err(Refusal::CaRequested);
    }
    if let Some(asked) = asked.extended_key_usage.as_deref() {
        let within =
            asked.iter().all(|one| purposes.contains(one)) && asked.len() <= purposes.len();
        if !within || !asked.contains(&ID_KP_CLIENT_AUTH) {
            return Err(Refusal::ExtendedKeyUsageNotAllowed);
        }
    }
    let needed = KeyUsages::DigitalSignature;
    let allowed =
        needed | KeyUsages::NonRepudiation | KeyUsages::KeyEncipherment | KeyUsages::KeyAgreement;
    let usages = asked.key_usage.unwrap_or(needed.into());
    if !allowed.contains(usages) || !usages.contains(needed) {
        return Err(Refusal::KeyUsageNotAllowed);
    }
    Ok(usages)
}

/// Proof-of-possession linking (RFC 7030 §3.5) with the `tls-exporter` of RFC 9266. Where there is
/// no exporter, a challengePassword cannot be verified and so is refused, never ignored.
fn check_channel_binding(
    requester: &Requester<'_>,
    profile: &EnrolmentProfile,
    request: &CertificationRequest,
) -> Result<(), Refusal> {
    match (request.challenge_password(), requester.peer.channel_binding) {
        (None, _) if profile.require_challenge_password => Err(Refusal::ChallengePasswordMissing),
        (None, _) => Ok(()),
        (Some(_), None) => Err(Refusal::ChannelBindingUnavailable),
        (Some(password), Some(binding)) => {
            verify_slices_are_equal(password, BASE64.encode(&binding).as_bytes())
                .map_err(|_| Refusal::ChallengePasswordWrong)
        }
    }
}

fn extensions(
    request: &CertificationRequest,
    usages: KeyUsageSet,
    purposes: &[ObjectIdentifier],
    issuer: &Certificate,
) -> Result<Vec<Extension>, Malformed> {
    let mut extensions = vec![
        Extension::end_entity()?,
        Extension::key_usage(usages)?,
        Extension::extended_key_usage(purposes.to_vec(), true)?,
    ];
    if let Some(value) = &request.extensions().subject_alt_name {
        extensions.push(Extension::subject_alt_name(value, request.subject().is_empty()));
    }
    extensions.push(Extension::subject_key_identifier(request.public_key())?);
    extensions.push(Extension::authority_key_identifier(&issuer.key_identifier()?)?);
    Ok(extensions)
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
