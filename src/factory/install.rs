//! What a Factory's root signed, taken in: each certificate is matched to the key that waits for
//! it by its public key, never by its name, for what comes back from a root is re-encoded.

use const_oid::db::rfc5280::ID_KP_SERVER_AUTH;

use super::{PendingRequest, RequestedKey};
use crate::clock::UnixTime;
use crate::ledger::InstalledCertificate;
use crate::model::{DeviceCaKind, Factory, ServerPurpose};
use crate::pki::{Certificate, CertificationRequest, KeyUsages};

/// Whether CA certificates may come for which no key waits here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locals {
    /// They become local Device CAs.
    Accept,
    /// They are refused.
    Refuse,
}

/// Why a certificate is not installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate of {subject} is refused: {reason}")]
pub struct InstallError {
    /// Whose certificate.
    pub subject: String,
    /// Why not.
    pub reason: String,
}

/// Finds out what each certificate is. Those that are installed already are left out.
///
/// # Errors
/// When one is not below the root, not valid now, unfit for what it is for, or no key waits for it.
pub fn classify(
    certificates: &[Certificate],
    factory: &Factory,
    pending: &[PendingRequest],
    locals: Locals,
    now: UnixTime,
) -> Result<Vec<InstalledCertificate>, InstallError> {
    let new_root = certificates.iter().find(|one| is_root(one));
    let root = factory.root.as_ref().or(new_root);
    let mut found = Vec::new();
    for certificate in certificates {
        let refuse =
            |reason: String| InstallError { subject: certificate.subject().to_string(), reason };
        if factory.root.as_ref() == Some(certificate) {
            continue;
        }
        if !certificate.validity().contains(now) {
            let validity = certificate.validity();
            return Err(refuse(format!(
                "it is valid from {} to {}",
                validity.not_before, validity.not_after
            )));
        }
        if is_root(certificate) {
            found.push(InstalledCertificate::Root(certificate.clone()));
            continue;
        }
        let root = root.ok_or_else(|| refuse("the Factory has no root yet".to_owned()))?;
        certificate.verify_issued_by(root).map_err(|_| {
            refuse(format!("it is not signed by the Factory's root, {}", root.subject()))
        })?;
        let installed = match (requested(certificate, pending), locals) {
            (Some(RequestedKey::Server(purpose)), _) => server(certificate, factory, purpose),
            (Some(RequestedKey::DeviceCa), _) => device_ca(certificate, DeviceCaKind::Online),
            (None, Locals::Accept) => device_ca(certificate, DeviceCaKind::Local),
            (None, Locals::Refuse) => Err("no key made here waits for it (a Device CA whose key \
                is elsewhere is added by `estd device-ca add`)"
                .to_owned()),
        };
        found.push(installed.map_err(refuse)?);
    }
    Ok(found)
}

fn is_root(certificate: &Certificate) -> bool {
    certificate.extensions().ca && certificate.verify_issued_by(certificate).is_ok()
}

fn requested(certificate: &Certificate, pending: &[PendingRequest]) -> Option<RequestedKey> {
    pending
        .iter()
        .find(|request| {
            CertificationRequest::from_der(&request.der)
                .is_ok_and(|request| request.public_key() == certificate.public_key())
        })
        .map(|request| request.key)
}

fn server(
    certificate: &Certificate,
    factory: &Factory,
    purpose: ServerPurpose,
) -> Result<InstalledCertificate, String> {
    let host = factory.host(purpose);
    let names = certificate.extensions().dns_names();
    if !names.iter().any(|name| name.eq_ignore_ascii_case(host.as_str())) {
        return Err(format!("its SubjectAltName lacks the DNS name {host}"));
    }
    let purposes = certificate.extensions().extended_key_usage.as_deref();
    if purposes.is_some_and(|purposes| !purposes.contains(&ID_KP_SERVER_AUTH)) {
        return Err("its extended key usage lacks serverAuth".to_owned());
    }
    Ok(InstalledCertificate::Server(purpose, certificate.clone()))
}

fn device_ca(
    certificate: &Certificate,
    kind: DeviceCaKind,
) -> Result<InstalledCertificate, String> {
    if !certificate.extensions().ca {
        return Err("it is not a CA certificate (basicConstraints CA:TRUE)".to_owned());
    }
    let usages = certificate.extensions().key_usage;
    if usages.is_some_and(|usages| !usages.contains(KeyUsages::KeyCertSign)) {
        return Err("its key usage lacks keyCertSign".to_owned());
    }
    if certificate.subject().is_empty() {
        return Err("it has no subject that its certificates could name".to_owned());
    }
    Ok(InstalledCertificate::DeviceCa(kind, certificate.clone()))
}
