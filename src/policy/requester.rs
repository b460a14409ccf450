//! Who asks: authentication by client certificate (RFC 7030 §3.3.2), before anything is read.

use const_oid::ObjectIdentifier;

use crate::clock::UnixTime;
use crate::model::{
    BootstrapCa, DeviceCa, DeviceCaState, DeviceName, FactoryTrust, Issuer, Peer, PeerCertificate,
    Refusal, Snapshot,
};
use crate::pki::Name;

/// id-kp-cmcRA (RFC 6402 §2.10).
pub(super) const CMC_RA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.28");

/// Somebody whose certificate is accepted, within one Factory.
#[expect(clippy::manual_non_exhaustive, reason = "the private field keeps this crate out as well")]
pub struct Requester<'a> {
    /// The peer.
    pub peer: &'a Peer,
    /// Its certificate.
    pub certificate: &'a PeerCertificate,
    /// The Factory of the certificate's Device CA.
    pub trust: &'a FactoryTrust,
    /// What its certificate makes of it.
    pub standing: Standing<'a>,
    /// The name in its certificate.
    pub name: DeviceName,
    _authenticated: (),
}

/// What a certificate makes of whoever holds it.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// A device, by a certificate of this Device CA.
    Device(&'a DeviceCa),
    /// The configuration lets it ask on behalf of others (E-25).
    RegistrationAuthority(&'a DeviceCa),
    /// A device that comes for the first time, by a certificate of a bootstrap CA (E-17).
    Newcomer(&'a BootstrapCa),
}

/// Judges the peer's certificate against the present snapshot: a connection that is open already
/// loses its rights with its Device CA.
///
/// # Errors
/// The refusal: no certificate, its time, its Device CA, its subject.
pub fn authenticate<'a>(
    peer: &'a Peer,
    snapshot: &'a Snapshot,
    now: UnixTime,
) -> Result<Requester<'a>, Refusal> {
    let certificate = peer.certificate.as_ref().ok_or(Refusal::ClientCertificateRequired)?;
    let validity = certificate.certificate.validity();
    if now < validity.not_before {
        return Err(Refusal::CertificateNotYetValid);
    }
    if now > validity.not_after {
        return Err(Refusal::CertificateExpired);
    }
    let trust = snapshot.factory(peer.factory).ok_or(Refusal::CertificateUntrusted)?;
    let standing = standing(certificate, trust, snapshot)?;
    let name = device_name(certificate.certificate.subject(), trust)?;
    Ok(Requester { peer, certificate, trust, standing, name, _authenticated: () })
}

fn standing<'a>(
    certificate: &PeerCertificate,
    trust: &'a FactoryTrust,
    snapshot: &Snapshot,
) -> Result<Standing<'a>, Refusal> {
    let device_ca = match certificate.issuer {
        Issuer::Bootstrap(id) => {
            let known = trust.bootstrap_cas.iter().find(|ca| ca.id == id);
            return known.map(Standing::Newcomer).ok_or(Refusal::CertificateUntrusted);
        }
        Issuer::DeviceCa(id) => trust.device_ca(id).ok_or(Refusal::CertificateUntrusted)?,
    };
    if device_ca.state == DeviceCaState::Revoked {
        return Err(Refusal::CaRevoked);
    }
    let certificate = &certificate.certificate;
    let purposes = certificate.extensions().extended_key_usage.as_deref().unwrap_or_default();
    let appointed =
        || snapshot.registration_authorities.contains(&certificate.public_key().fingerprint());
    if purposes.contains(&CMC_RA) && appointed() {
        return Ok(Standing::RegistrationAuthority(device_ca));
    }
    Ok(Standing::Device(device_ca))
}

/// The device that a subject names: its common name, in the Factory of its organizational unit.
pub(super) fn device_name(subject: &Name, trust: &FactoryTrust) -> Result<DeviceName, Refusal> {
    let name = subject.common_name().and_then(|name| DeviceName::parse(&name).ok());
    let name = name.ok_or(Refusal::IdentityMalformed)?;
    let factory = trust.factory.name.as_str();
    let units = subject.organizational_units();
    if !trust.factory.any_organizational_unit && !units.iter().any(|unit| unit == factory) {
        return Err(Refusal::OuMismatch);
    }
    Ok(name)
}
