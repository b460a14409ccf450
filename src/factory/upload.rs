//! What a fleet manager's tool uploads: any subset of a Factory's certificates, the whole list of its
//! Device CAs, a CRL of its root. All of it takes effect or nothing.

use super::device_cas::refusal;
use super::install::Examiner;
use super::{RequestError, pending_requests};
use crate::clock::UnixTime;
use crate::ledger::{
    ChangeError, ChangeRefused, DeviceCaChange, FactoryChange, InstalledServerCertificate, Ledger,
};
use crate::model::{DeviceCaAct, DeviceCaState, FactoryTrust, ServerPurpose};
use crate::pki::{Certificate, Malformed, RevocationList};

/// ReasonCode certificateHold (RFC 5280 §5.3.1): disable the Device CA.
const HOLD: u8 = 6;
/// ReasonCode removeFromCRL: enable it again.
const REMOVE: u8 = 8;

/// An upload as it is written: PEM, with whatever prose around it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upload<'a> {
    root: Option<&'a str>,
    tls: Option<&'a str>,
    est_tls: Option<&'a str>,
    device_cas: Option<&'a str>,
    revocations: Option<&'a str>,
}

/// A part of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The root.
    RootCrt,
    /// The server certificate of the device gateway.
    TlsCrt,
    /// The server certificate of EST.
    EstTlsCrt,
    /// The list of Device CAs.
    CaCrt,
    /// The CRL.
    CaRevokeCrl,
}

/// A part of an upload that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", field.as_str())]
pub struct FieldRefused {
    /// Which.
    pub field: Field,
    /// Why.
    pub reason: String,
}

/// Why nothing of an upload took effect.
#[derive(Debug, thiserror::Error)]
pub enum UploadFailure {
    /// Parts of it are refused.
    #[error("{}", each(.0))]
    Refused(Vec<FieldRefused>),
    /// The ledger's present state forbids it, or the ledger failed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The waiting requests cannot be read.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// An upload that was read.
#[derive(Debug, Default)]
struct Read {
    root: Option<Certificate>,
    tls: Option<Certificate>,
    est_tls: Option<Certificate>,
    device_cas: Option<Vec<Certificate>>,
    revocations: Option<RevocationList>,
}

impl Field {
    const ALL: [Self; 5] =
        [Self::RootCrt, Self::TlsCrt, Self::EstTlsCrt, Self::CaCrt, Self::CaRevokeCrl];

    /// The field with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RootCrt => "root-crt",
            Self::TlsCrt => "tls-crt",
            Self::EstTlsCrt => "est-tls-crt",
            Self::CaCrt => "ca-crt",
            Self::CaRevokeCrl => "ca-revoke-crl",
        }
    }

    fn refuse(self, reason: impl ToString) -> FieldRefused {
        FieldRefused { field: self, reason: reason.to_string() }
    }
}

/// Takes an upload in, all or nothing; what is so already stays so. A refusal is on record as well.
///
/// # Errors
/// When a part is malformed or unfit for what it is for, the root is set already (I9), a revoked
/// Device CA is listed again, devices depend on one that is left out or revoked (I8), or the ledger
/// fails.
pub async fn upload(
    ledger: &Ledger,
    trust: &FactoryTrust,
    upload: &Upload<'_>,
    actor: &str,
) -> Result<(), UploadFailure> {
    let done = take_in(ledger, trust, upload, actor).await;
    let code = match &done {
        Err(UploadFailure::Refused(_)) => "upload-refused",
        Err(UploadFailure::Change(ChangeError::Refused(why))) => why.code(),
        _ => return done,
    };
    if let Err(why) = &done {
        let subject = trust.factory.name.to_string();
        // Best effort: what the operator must learn is the refusal, not that it went unrecorded.
        let entry = refusal(&trust.factory, actor, "upload", subject, code, why);
        let _unrecorded = ledger.note(entry).await;
    }
    done
}

async fn take_in(
    ledger: &Ledger,
    trust: &FactoryTrust,
    upload: &Upload<'_>,
    actor: &str,
) -> Result<(), UploadFailure> {
    let upload = upload.read().map_err(UploadFailure::Refused)?;
    if upload.root.is_some() && trust.factory.root.is_some() {
        return Err(ChangeError::from(ChangeRefused::RootAlreadySet).into());
    }
    let factory = &trust.factory;
    let pending = pending_requests(ledger, factory).await?;
    let servers = ledger.server_certificates().await.map_err(ChangeError::from)?;
    let root = factory.root.as_ref().or(upload.root.as_ref());
    let now = UnixTime::now();
    let examiner = Examiner { factory, root, pending: &pending, now };
    let changes = upload.changes(&examiner, trust, &servers)?;
    if changes.is_empty() {
        return Ok(());
    }
    Ok(ledger.change_factory(factory.id, &changes, actor).await?)
}

impl<'a> Upload<'a> {
    /// Sets a part of it.
    pub fn set(&mut self, field: Field, text: &'a str) {
        let part = match field {
            Field::RootCrt => &mut self.root,
            Field::TlsCrt => &mut self.tls,
            Field::EstTlsCrt => &mut self.est_tls,
            Field::CaCrt => &mut self.device_cas,
            Field::CaRevokeCrl => &mut self.revocations,
        };
        *part = Some(text);
    }

    fn read(&self) -> Result<Read, Vec<FieldRefused>> {
        let mut refused = Vec::new();
        let read = Read {
            root: part(Field::RootCrt, self.root, one_certificate, &mut refused),
            tls: part(Field::TlsCrt, self.tls, one_certificate, &mut refused),
            est_tls: part(Field::EstTlsCrt, self.est_tls, one_certificate, &mut refused),
            device_cas: part(Field::CaCrt, self.device_cas, certificates, &mut refused),
            revocations: part(Field::CaRevokeCrl, self.revocations, revocations, &mut refused),
        };
        if refused.is_empty() { Ok(read) } else { Err(refused) }
    }
}

/// Reads one part, if it is there; notes why that fails.
fn part<T>(
    field: Field,
    text: Option<&str>,
    read: impl Fn(&[u8]) -> Result<T, String>,
    refused: &mut Vec<FieldRefused>,
) -> Option<T> {
    match read(text?.as_bytes()) {
        Ok(value) => Some(value),
        Err(reason) => {
            refused.push(field.refuse(reason));
            None
        }
    }
}

fn certificates(text: &[u8]) -> Result<Vec<Certificate>, String> {
    Certificate::from_pem(text).map_err(|why: Malformed| why.to_string())
}

fn one_certificate(text: &[u8]) -> Result<Certificate, String> {
    let mut all = certificates(text)?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => Err(format!("there are {} certificates in it, not one", others + 1)),
    }
}

fn revocations(text: &[u8]) -> Result<RevocationList, String> {
    RevocationList::from_pem(text).map_err(|why| why.to_string())
}

impl Read {
    /// What it comes to. What comes is done before what goes, so that a certificate that was made
    /// anew for a known key is told from the one before.
    fn changes(
        &self,
        examiner: &Examiner<'_>,
        trust: &FactoryTrust,
        servers: &[InstalledServerCertificate],
    ) -> Result<Vec<FactoryChange>, UploadFailure> {
        let mut changes = Vec::new();
        let mut refused = Vec::new();
        if let Some(root) = &self.root {
            match examiner.root(root) {
                Ok(change) => changes.push(change),
                Err(reason) => refused.push(Field::RootCrt.refuse(reason)),
            }
        }
        let asked = [
            (Field::TlsCrt, ServerPurpose::Gateway, &self.tls),
            (Field::EstTlsCrt, ServerPurpose::Est, &self.est_tls),
        ];
        for (field, purpose, certificate) in asked {
            let in_use = |certificate: &&Certificate| {
                servers.iter().any(|server| {
                    server.factory == trust.factory.id
                        && server.purpose == purpose
                        && server.certificate == **certificate
                })
            };
            let Some(certificate) = certificate.as_ref().filter(|one| !in_use(one)) else {
                continue;
            };
            match examiner.awaited_server(certificate, purpose) {
                Ok(change) => changes.push(change),
                Err(reason) => refused.push(field.refuse(reason)),
            }
        }
        for certificate in self.new_device_cas(trust)? {
            match examiner.any_device_ca(certificate) {
                Ok(change) => changes.push(change),
                Err(reason) => {
                    let reason = format!("the certificate of {}: {reason}", certificate.subject());
                    refused.push(Field::CaCrt.refuse(reason));
                }
            }
        }
        match self.acts(examiner, trust) {
            Ok(acts) => changes.extend(acts),
            Err(reason) => refused.push(Field::CaRevokeCrl.refuse(reason)),
        }
        changes.extend(self.left_out(trust));
        if refused.is_empty() { Ok(changes) } else { Err(UploadFailure::Refused(refused)) }
    }

    /// The listed Device CAs that are new, each once.
    fn new_device_cas(&self, trust: &FactoryTrust) -> Result<Vec<&Certificate>, ChangeError> {
        let mut new: Vec<&Certificate> = Vec::new();
        for certificate in self.device_cas.iter().flatten() {
            let known = trust.device_cas.iter().find(|ca| ca.certificate == *certificate);
            match known.map(|ca| ca.state) {
                Some(DeviceCaState::Revoked) => {
                    let subject = certificate.subject().to_string();
                    return Err(ChangeRefused::DeviceCaRevoked(subject).into());
                }
                Some(DeviceCaState::Enabled | DeviceCaState::Disabled) => {}
                None if new.contains(&certificate) => {}
                None => new.push(certificate),
            }
        }
        Ok(new)
    }

    /// The revoking of each Device CA that the list, if there is one, leaves out.
    fn left_out(&self, trust: &FactoryTrust) -> Vec<FactoryChange> {
        let Some(listed) = &self.device_cas else {
            return Vec::new();
        };
        let left_out = trust.trusted_cas().filter(|ca| !listed.contains(&ca.certificate));
        let revoke = left_out.map(|ca| {
            FactoryChange::Act(DeviceCaChange {
                device_ca: ca.id,
                act: DeviceCaAct::Revoke,
                strand: 0,
                detail: "left out of ca-crt".to_owned(),
            })
        });
        revoke.collect()
    }

    /// What the CRL does to each Device CA that it names.
    fn acts(
        &self,
        examiner: &Examiner<'_>,
        trust: &FactoryTrust,
    ) -> Result<Vec<FactoryChange>, String> {
        let Some(list) = &self.revocations else {
            return Ok(Vec::new());
        };
        let root = examiner.root.ok_or("the Factory has no root yet")?;
        list.verify_issued_by(root)
            .map_err(|_| format!("it is not signed by the Factory's root, {}", root.subject()))?;
        let next = list.next_update().ok_or("it does not say until when it is valid")?;
        if examiner.now < list.this_update() || examiner.now > next {
            return Err(format!("it is valid from {} to {next}", list.this_update()));
        }
        let mut acts = Vec::new();
        let mut unknown = Vec::new();
        for entry in list.entries() {
            let (act, said) = match entry.reason {
                Some(HOLD) => (DeviceCaAct::Disable, "CRL of the root, certificateHold".to_owned()),
                Some(REMOVE) => (DeviceCaAct::Enable, "CRL of the root, removeFromCRL".to_owned()),
                Some(reason) => (DeviceCaAct::Revoke, format!("CRL of the root, reason {reason}")),
                None => (DeviceCaAct::Revoke, "CRL of the root".to_owned()),
            };
            match trust.device_ca_by_serial(&entry.serial) {
                Some(ca) => acts.push(FactoryChange::Act(DeviceCaChange {
                    device_ca: ca.id,
                    act,
                    strand: 0,
                    detail: said,
                })),
                None => unknown.push(entry.serial.to_decimal()),
            }
        }
        if unknown.is_empty() {
            return Ok(acts);
        }
        unknown.truncate(NAMED_SERIALS);
        Err(format!("no Device CA of this Factory has the serial number {}", unknown.join(" or ")))
    }
}

/// How many unknown serial numbers a refusal names.
const NAMED_SERIALS: usize = 10;

fn each(refused: &[FieldRefused]) -> String {
    let each: Vec<String> = refused.iter().map(ToString::to_string).collect();
    each.join("; ")
}
