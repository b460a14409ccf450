//! What is believed on the word of an API token: that a device is registered, with a request for its
//! first certificate or with one that a Device CA gave it elsewhere; that a device was seen elsewhere.

use std::sync::Arc;

use const_oid::db::rfc5280::ID_KP_CLIENT_AUTH;

use super::enrolment::{Checked, DEVICE, Grant, check_key, grant, key_usage, verify};
use super::requester::device_name;
use crate::clock::UnixTime;
use crate::model::{
    DeviceCa, DeviceCaId, DeviceCaState, DeviceName, EnrolmentProfile, FactoryId, FactoryTrust,
    Issuer, Operation, PeerCertificate, Refusal,
};
use crate::pki::{Certificate, CertificationRequest};

/// A device that may be registered with a certificate that it has. Only [`judge_introduction`]
/// makes it.
#[derive(Clone, Debug)]
#[expect(clippy::manual_non_exhaustive, reason = "the private field keeps this crate out as well")]
pub struct Introduction {
    /// In which Factory.
    pub factory: FactoryId,
    /// Which device the certificate names.
    pub device: DeviceName,
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// The Device CA that issued it.
    pub device_ca: DeviceCaId,
    _judged: (),
}

/// Judges the request of a device that a token registers as `uuid`: the token stands for the
/// identity that a client certificate proves elsewhere (I4), and for an operator's approval.
///
/// # Errors
/// The refusal, the cheap checks before the costly ones.
pub fn judge_registration(
    trust: &FactoryTrust,
    uuid: &DeviceName,
    profile: &EnrolmentProfile,
    request: &CertificationRequest,
    now: UnixTime,
) -> Result<Grant, Refusal> {
    if request.changes_subject() {
        return Err(Refusal::SubjectChangeRequested);
    }
    let device = device_name(request.subject(), trust)?;
    if device != *uuid {
        return Err(Refusal::UuidMismatch);
    }
    check_key(profile, request.public_key())?;
    let usages = key_usage(request, DEVICE)?;
    if request.challenge_password().is_some() {
        // There is no TLS session of the device's that it could be compared with.
        return Err(Refusal::ChannelBindingUnavailable);
    }
    verify(request)?;
    let operation = Operation::Register;
    grant(
        Checked { device, operation, label: None, usages, purposes: DEVICE, request, target: None },
        trust,
        profile,
        now,
    )
}

/// Judges a certificate that a token registers its device with. Its Device CA must be enabled (I5).
///
/// # Errors
/// The refusal: its time, its purpose, its Device CA, its subject.
pub fn judge_introduction(
    trust: &FactoryTrust,
    certificate: Certificate,
    now: UnixTime,
) -> Result<Introduction, Refusal> {
    let (device, issuer) = vouched_for(trust, &certificate, now)?;
    if issuer.state == DeviceCaState::Disabled {
        return Err(Refusal::CaDisabledUnregistered);
    }
    Ok(Introduction {
        factory: trust.factory.id,
        device,
        certificate: Arc::new(certificate),
        device_ca: issuer.id,
        _judged: (),
    })
}

/// Judges a certificate with which a token says that its device was seen elsewhere, as the handshake
/// would.
///
/// # Errors
/// The refusal: its time, its purpose, its Device CA, its subject.
pub fn judge_report(
    trust: &FactoryTrust,
    certificate: Certificate,
    now: UnixTime,
) -> Result<PeerCertificate, Refusal> {
    let (_, issuer) = vouched_for(trust, &certificate, now)?;
    let issuer = Issuer::DeviceCa(issuer.id);
    Ok(PeerCertificate { certificate: Arc::new(certificate), issuer })
}

/// The device that a certificate names, and the Device CA that issued it: which that is is told by its
/// signature, never by its name alone.
fn vouched_for<'a>(
    trust: &'a FactoryTrust,
    certificate: &Certificate,
    now: UnixTime,
) -> Result<(DeviceName, &'a DeviceCa), Refusal> {
    if now < certificate.validity().not_before {
        return Err(Refusal::CertificateNotYetValid);
    }
    if now > certificate.validity().not_after {
        return Err(Refusal::CertificateExpired);
    }
    if certificate.extensions().ca {
        return Err(Refusal::CertificateUnusable("it is a CA certificate".to_owned()));
    }
    let purposes = certificate.extensions().extended_key_usage.as_deref();
    if purposes.is_some_and(|purposes| !purposes.contains(&ID_KP_CLIENT_AUTH)) {
        let why = "its extended key usage lacks clientAuth".to_owned();
        return Err(Refusal::CertificateUnusable(why));
    }
    let device = device_name(certificate.subject(), trust)?;
    let mut cas = trust.device_cas.iter();
    let issuer = cas.find(|ca| certificate.verify_issued_by(&ca.certificate).is_ok());
    let issuer = issuer.ok_or(Refusal::CertificateUntrusted)?;
    if issuer.state == DeviceCaState::Revoked {
        return Err(Refusal::CaRevoked);
    }
    Ok((device, issuer))
}
