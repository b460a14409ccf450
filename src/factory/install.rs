//! What a Factory's root signed, taken in: each certificate is matched to the key that waits for
//! it by its public key, never by its name, for what comes back from a root is re-encoded.

use const_oid::db::rfc5280::ID_KP_SERVER_AUTH;

use super::device_cas::refusal;
use super::{PendingRequest, RequestError, RequestedKey, pending_requests};
use crate::clock::UnixTime;
use crate::ledger::{ChangeError, FactoryChange, Ledger};
use crate::model::{DeviceCaKind, Factory, ServerPurpose};
use crate::pki::{Certificate, CertificationRequest, KeyUsages};

/// What is being done, which says what may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installing {
    /// The Factory's set-up: its root, server certificates and online Device CAs.
    SetUp,
    /// More Device CAs: online, and local ones for which no key waits here.
    DeviceCas,
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

/// What an installation came to.
#[derive(Debug)]
pub struct Installed {
    /// How many certificates were new.
    pub new: usize,
    /// The keys that still wait for theirs.
    pub waiting: Vec<RequestedKey>,
}

/// Why nothing was installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallFailure {
    /// A certificate is refused.
    #[error(transparent)]
    Refused(#[from] InstallError),
    /// The ledger's present state forbids it, or the ledger failed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The waiting requests cannot be read.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Installs certificates, all or none; those that are installed already are passed over. A refusal is
/// on record as well.
///
/// # Errors
/// When one is not below the root, not valid now, unfit for what it is for, or no key waits for it; when
/// the root is set already (I9); or the ledger fails.
pub async fn install(
    ledger: &Ledger,
    factory: &Factory,
    certificates: &[Certificate],
    installing: Installing,
    actor: &str,
) -> Result<Installed, InstallFailure> {
    let mut known = ledger.installed_certificates(factory).await.map_err(ChangeError::from)?;
    let new: Vec<Certificate> =
        certificates.iter().filter(|one| known.insert(one.fingerprint())).cloned().collect();
    let pending = pending_requests(ledger, factory).await?;
    let done = match classify(&new, factory, &pending, installing, UnixTime::now()) {
        Ok(found) => ledger.change_factory(factory.id, &found, actor).await.map_err(Into::into),
        Err(refused) => Err(InstallFailure::from(refused)),
    };
    if let Err(
        why @ (InstallFailure::Refused(_) | InstallFailure::Change(ChangeError::Refused(_))),
    ) = &done
    {
        // Best effort: what the operator must learn is the refusal, not that it went unrecorded.
        let subject = factory.name.to_string();
        let refused = refusal(factory, actor, "install", subject, "install-refused", why);
        let _unrecorded = ledger.note(refused).await;
    }
    done?;
    let waiting = pending_requests(ledger, factory).await?;
    Ok(Installed {
        new: new.len(),
        waiting: waiting.into_iter().map(|request| request.key).collect(),
    })
}

/// Finds out what each certificate is.
fn classify(
    certificates: &[Certificate],
    factory: &Factory,
    pending: &[PendingRequest],
    installing: Installing,
    now: UnixTime,
) -> Result<Vec<FactoryChange>, InstallError> {
    let new_root = certificates.iter().find(|one| is_root(one));
    let root = factory.root.as_ref().or(new_root);
    let examiner = Examiner { factory, root, pending, now };
    let found = certificates.iter().map(|certificate| {
        examiner
            .examine(certificate, installing)
            .map_err(|reason| InstallError { subject: certificate.subject().to_string(), reason })
    });
    found.collect()
}

/// Finds out what a certificate is, or why it is refused.
pub(super) struct Examiner<'a> {
    pub(super) factory: &'a Factory,
    /// The Factory's root, or the one that comes along.
    pub(super) root: Option<&'a Certificate>,
    /// The keys that wait.
    pub(super) pending: &'a [PendingRequest],
    pub(super) now: UnixTime,
}

impl Examiner<'_> {
    fn examine(
        &self,
        certificate: &Certificate,
        installing: Installing,
    ) -> Result<FactoryChange, String> {
        if is_root(certificate) && installing == Installing::SetUp {
            return self.root(certificate);
        }
        self.below_root(certificate)?;
        match (self.requested(certificate), installing) {
            (Some(RequestedKey::DeviceCa), _) => self.device_ca(certificate, DeviceCaKind::Online),
            (Some(RequestedKey::Server(purpose)), Installing::SetUp) => {
                self.server(certificate, purpose)
            }
            (Some(RequestedKey::Server(_)), Installing::DeviceCas) => {
                Err("it is a server certificate: `estd factory install` takes it".to_owned())
            }
            (None, Installing::DeviceCas) => self.device_ca(certificate, DeviceCaKind::Local),
            (None, Installing::SetUp) => {
                Err("no key made here waits for it (a Device CA whose key \
                is elsewhere is added by `estd device-ca add`)"
                    .to_owned())
            }
        }
    }

    /// A root that comes.
    pub(super) fn root(&self, certificate: &Certificate) -> Result<FactoryChange, String> {
        self.in_time(certificate)?;
        if !is_root(certificate) {
            return Err("it is not a CA certificate that its own key has signed".to_owned());
        }
        Ok(FactoryChange::SetRoot(certificate.clone()))
    }

    /// A server certificate that must be for a key that waits here.
    pub(super) fn awaited_server(
        &self,
        certificate: &Certificate,
        purpose: ServerPurpose,
    ) -> Result<FactoryChange, String> {
        self.below_root(certificate)?;
        match self.requested(certificate) {
            Some(RequestedKey::Server(found)) if found == purpose => {
                self.server(certificate, purpose)
            }
            Some(other) => Err(format!("it is for the key of {}-csr", other.as_str())),
            None => Err("no key made here waits for it".to_owned()),
        }
    }

    /// A Device CA: online if its key waits here, else local.
    pub(super) fn any_device_ca(&self, certificate: &Certificate) -> Result<FactoryChange, String> {
        self.below_root(certificate)?;
        match self.requested(certificate) {
            Some(RequestedKey::DeviceCa) => self.device_ca(certificate, DeviceCaKind::Online),
            None => self.device_ca(certificate, DeviceCaKind::Local),
            Some(RequestedKey::Server(_)) => Err("it is a server certificate".to_owned()),
        }
    }

    fn in_time(&self, certificate: &Certificate) -> Result<(), String> {
        let validity = certificate.validity();
        if validity.contains(self.now) {
            return Ok(());
        }
        Err(format!("it is valid from {} to {}", validity.not_before, validity.not_after))
    }

    fn below_root(&self, certificate: &Certificate) -> Result<(), String> {
        self.in_time(certificate)?;
        let root = self.root.ok_or("the Factory has no root yet")?;
        if certificate == root {
            return Err("it is the Factory's root itself".to_owned());
        }
        certificate
            .verify_issued_by(root)
            .map_err(|_| format!("it is not signed by the Factory's root, {}", root.subject()))
    }

    fn requested(&self, certificate: &Certificate) -> Option<RequestedKey> {
        let mut pending = self.pending.iter();
        let request = pending.find(|request| {
            CertificationRequest::from_der(&request.der)
                .is_ok_and(|request| request.public_key() == certificate.public_key())
        });
        request.map(|request| request.key)
    }

    fn server(
        &self,
        certificate: &Certificate,
        purpose: ServerPurpose,
    ) -> Result<FactoryChange, String> {
        let host = self.factory.host(purpose);
        let names = certificate.extensions().dns_names();
        if !names.iter().any(|name| name.eq_ignore_ascii_case(host.as_str())) {
            return Err(format!("its SubjectAltName lacks the DNS name {host}"));
        }
        let purposes = certificate.extensions().extended_key_usage.as_deref();
        if purposes.is_some_and(|purposes| !purposes.contains(&ID_KP_SERVER_AUTH)) {
            return Err("its extended key usage lacks serverAuth".to_owned());
        }
        Ok(FactoryChange::InstallServer(purpose, certificate.clone()))
    }

    fn device_ca(
        &self,
        certificate: &Certificate,
        kind: DeviceCaKind,
    ) -> Result<FactoryChange, String> {
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
        let name = self.factory.name.as_str();
        let units = certificate.subject().organizational_units();
        let is_foreign = !units.is_empty() && units.iter().all(|unit| unit != name);
        if is_foreign && !self.factory.any_organizational_unit {
            return Err(format!(
                "its organizational unit is {}, not the name of the Factory, {name}",
                units.join(", ")
            ));
        }
        Ok(FactoryChange::AddDeviceCa(kind, certificate.clone()))
    }
}

fn is_root(certificate: &Certificate) -> bool {
    certificate.extensions().ca && certificate.verify_issued_by(certificate).is_ok()
}
