//! Whether a device is registered on the word of an API token: with a request for its first
//! certificate, or with a certificate that a Device CA gave it elsewhere.

use std::sync::Arc;

use const_oid::db::rfc5280::ID_KP_CLIENT_AUTH;

use super::enrolment::{Checked, DEVICE, Grant, check_key, grant, key_usage, verify};
use super::requester::device_name;
use crate::clock::UnixTime;
use crate::model::{
    DeviceCaId, DeviceCaState, DeviceName, EnrolmentProfile, FactoryId, FactoryTrust, Operation,
    Refusal,
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

/// Judges a certificate that a token registers its device with. Its Device CA must be enabled (I5);
/// which it is is told by its signature, never by its name alone.
///
/// # Errors
/// The refusal: its time, its purpose, its Device CA, its subject.
pub fn judge_introduction(
    trust: &FactoryTrust,
    certificate: Certificate,
    now: UnixTime,
) -> Result<Introduction, Refusal> {
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
    match issuer.state {
        DeviceCaState::Enabled => Ok(Introduction {
            factory: trust.factory.id,
            device,
            certificate: Arc::new(certificate),
            device_ca: issuer.id,
            _judged: (),
        }),
        DeviceCaState::Disabled => Err(Refusal::CaDisabledUnregistered),
        DeviceCaState::Revoked => Err(Refusal::CaRevoked),
    }
}
