//! Client certificates in the handshake: RFC 5280 validation against the Device CAs, and a note of
//! what came out, which rustls itself does not pass on.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::trust::TlsTrust;
use crate::model::{FactoryId, PeerCertificate, Refusal};
use crate::pki::Certificate;

/// In characters.
const RECORD_LIMIT: usize = 256;

/// What became of the certificate that the client presented.
pub(super) enum Presented {
    /// It verified.
    Verified(FactoryId, PeerCertificate),
    /// It did not, and the handshake ended.
    Rejected {
        /// Whose certificate it says to be, for the record.
        subject: String,
        /// Why.
        refusal: Refusal,
    },
}

/// Verifies the client certificate of one connection.
pub(super) struct DeviceVerifier {
    trust: Arc<TlsTrust>,
    presented: Arc<OnceLock<Presented>>,
}

impl DeviceVerifier {
    pub(super) fn new(trust: Arc<TlsTrust>, presented: Arc<OnceLock<Presented>>) -> Self {
        Self { trust, presented }
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.trust.provider)
    }

    fn verify(
        &self,
        der: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<(FactoryId, PeerCertificate), Refusal> {
        let unusable = |why: String| Refusal::CertificateUnusable(why);
        let certificate = Certificate::from_der(der).map_err(|why| unusable(why.to_string()))?;
        let end_entity = EndEntityCert::try_from(der).map_err(|why| unusable(why.to_string()))?;
        // No intermediates: what a Device CA signs is a device. Certificates that a client sends
        // beside its own, its CA for instance, are not needed.
        let path = end_entity
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &self.trust.anchors,
                &[],
                now,
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(|why| self.refusal(&why, &certificate))?;
        let owner = self
            .trust
            .anchors
            .iter()
            .position(|anchor| std::ptr::eq(anchor, path.anchor()))
            .and_then(|index| self.trust.anchor_owners.get(index))
            .ok_or(Refusal::CertificateUntrusted)?;
        let (factory, issuer) = *owner;
        Ok((factory, PeerCertificate { certificate: Arc::new(certificate), issuer }))
    }

    fn refusal(&self, why: &webpki::Error, certificate: &Certificate) -> Refusal {
        match why {
            webpki::Error::CertExpired { .. } => Refusal::CertificateExpired,
            webpki::Error::CertNotValidYet { .. } => Refusal::CertificateNotYetValid,
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                // By key: a Device CA in use may bear the same name.
                let by = |ca: &Certificate| certificate.verify_issued_by(ca).is_ok();
                if self.trust.revoked.iter().any(by) {
                    Refusal::CaRevoked
                } else {
                    Refusal::CertificateUntrusted
                }
            }
            other => Refusal::CertificateUnusable(bounded(&format!("{other:?}"))),
        }
    }
}

/// What a stranger's certificate may put on record at most.
fn bounded(text: &str) -> String {
    text.chars().take(RECORD_LIMIT).collect()
}

impl ClientCertVerifier for DeviceVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.trust.demands_certificate()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trust.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (presented, answer) = match self.verify(end_entity, now) {
            Ok((factory, peer)) => {
                (Presented::Verified(factory, peer), Ok(ClientCertVerified::assertion()))
            }
            Err(refusal) => {
                let alert = match refusal {
                    Refusal::CertificateExpired => CertificateError::Expired,
                    Refusal::CertificateNotYetValid => CertificateError::NotValidYet,
                    Refusal::CaRevoked => CertificateError::Revoked,
                    Refusal::CertificateUntrusted => CertificateError::UnknownIssuer,
                    _ => CertificateError::BadEncoding,
                };
                let subject = Certificate::from_der(end_entity)
                    .map_or_else(|_| "an unreadable name".to_owned(), |c| c.subject().to_string());
                let subject = bounded(&subject);
                (Presented::Rejected { subject, refusal }, Err(alert.into()))
            }
        };
        // rustls verifies one certificate a connection, so the cell is empty.
        let _first = self.presented.set(presented);
        answer
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl std::fmt::Debug for DeviceVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceVerifier({} Device CAs)", self.trust.anchors.len())
    }
}
