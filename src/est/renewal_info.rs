//! `GET renewal-info/ID` (draft-ietf-lamps-est-renewal-info): when to renew a certificate. For anybody:
//! whoever knows its number may know that.

use axum::body::Body;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;

use super::{Est, answer, target::Target};
use crate::clock::UnixTime;
use crate::listener::Session;
use crate::model::{FactoryTrust, Refusal, RenewalWindow};
use crate::pki::{Certificate, Serial};

/// Longer key identifiers and serial numbers than any CA makes.
const PART_LIMIT: usize = 64;

/// How a client names its certificate: the key identifier of its issuer and its serial number.
struct CertificateId {
    authority_key: Vec<u8>,
    serial: Serial,
}

pub(super) async fn get(
    est: &Est,
    session: &Session,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    let active = est.enrolments.active();
    let snapshot = active.snapshot();
    snapshot.profiles.select(target.label.as_ref()).ok_or(Refusal::LabelUnknown)?;
    let trust = snapshot.factory(session.peer().factory).ok_or(Refusal::FactoryUnknown)?;
    let id = CertificateId::parse(target.id.as_deref().unwrap_or_default())?;
    let window = est.enrolments.accepted_by_serial(trust, &id.serial).await?;
    let known = window.iter().find(|certificate| id.names(certificate, trust));
    let known = known.ok_or(Refusal::CertificateUnknown)?;
    let rotation = est.enrolments.rotation_window(trust, known, UnixTime::now()).await?;
    let within_rotation = rotation.is_some();
    let own = RenewalWindow::of(known);
    let window = rotation.flatten().map_or(own, |slot| slot.earlier(own));
    Ok(answer::renewal_window(window, within_rotation))
}

impl CertificateId {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let part = |text: &str| {
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
            let fits = |bytes: &Vec<u8>| (1..=PART_LIMIT).contains(&bytes.len());
            bytes.filter(fits).ok_or(Refusal::RenewalIdMalformed)
        };
        let (key, serial) = text.split_once('.').ok_or(Refusal::RenewalIdMalformed)?;
        let (authority_key, serial) = (part(key)?, Serial::from_contents(&part(serial)?));
        Ok(Self { authority_key, serial })
    }

    /// Whether a certificate with the serial number is of the issuer.
    fn names(&self, certificate: &Certificate, trust: &FactoryTrust) -> bool {
        let by_key = |issuer: &Certificate| {
            issuer.subject() == certificate.issuer()
                && issuer.key_identifier().is_ok_and(|key| key == self.authority_key)
        };
        trust.device_cas.iter().any(|ca| by_key(&ca.certificate))
    }
}
