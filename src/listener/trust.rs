//! What a handshake needs, made once from each snapshot: server certificates by host, and the
//! Device CAs as trust anchors (one verification per chain, and two CAs of one name side by side).

use std::sync::Arc;

use rustls::DistinguishedName;
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, TrustAnchor};
use tracing::warn;
use webpki::anchor_from_trusted_cert;

use crate::keys::{ActiveSnapshot, ServerIdentity};
use crate::model::{DeviceCaState, FactoryId, FactoryTrust, Issuer, ServerPurpose};
use crate::pki::Certificate;

/// The TLS side of a snapshot, for one kind of server.
pub struct TlsTrust {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    /// Whose anchor stands at the same place in `anchors`.
    pub(super) anchor_owners: Vec<(FactoryId, Issuer)>,
    pub(super) hints: Vec<DistinguishedName>,
    /// Only so that a refused device reads why.
    pub(super) revoked: Vec<Certificate>,
    purpose: ServerPurpose,
    servers: Vec<Server>,
}

struct Server {
    factory: FactoryId,
    host: String,
    certificate: Arc<SingleCertAndKey>,
}

impl TlsTrust {
    /// Makes it. A certificate that TLS cannot use is left out, with a warning: the others go on.
    pub fn new(active: &ActiveSnapshot, purpose: ServerPurpose) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut trust = Self {
            anchors: Vec::new(),
            anchor_owners: Vec::new(),
            hints: Vec::new(),
            revoked: Vec::new(),
            servers: Vec::new(),
            purpose,
            provider,
        };
        for factory in &active.snapshot().factories {
            trust.add_anchors(factory);
            let Some(identity) = active.server(factory.factory.id, purpose) else {
                continue;
            };
            match certified_key(identity, &trust.provider) {
                Ok(certificate) => trust.servers.push(Server {
                    factory: factory.factory.id,
                    host: factory.factory.host(purpose).to_string(),
                    certificate: Arc::new(certificate),
                }),
                Err(why) => {
                    warn!(factory = %factory.factory.name, error = %why, "no server certificate");
                }
            }
        }
        trust
    }

    /// Whether a client without a certificate is sent away in the handshake.
    pub(super) fn demands_certificate(&self) -> bool {
        self.purpose == ServerPurpose::Gateway
    }

    fn add_anchors(&mut self, factory: &FactoryTrust) {
        for ca in &factory.device_cas {
            if ca.state == DeviceCaState::Revoked {
                self.revoked.push(ca.certificate.clone());
            } else {
                self.add_anchor(factory, &ca.certificate, Issuer::DeviceCa(ca.id));
            }
        }
        // A bootstrap certificate is good for a first enrolment and nothing else.
        let introducers = (self.purpose == ServerPurpose::Est).then_some(&factory.bootstrap_cas);
        for ca in introducers.into_iter().flatten() {
            self.add_anchor(factory, &ca.certificate, Issuer::Bootstrap(ca.id));
        }
    }

    fn add_anchor(&mut self, factory: &FactoryTrust, certificate: &Certificate, issuer: Issuer) {
        let subject = certificate.subject();
        match anchor_from_trusted_cert(&CertificateDer::from(certificate.der())) {
            Ok(anchor) => {
                self.anchors.push(anchor.to_owned());
                self.anchor_owners.push((factory.factory.id, issuer));
                self.hints.push(DistinguishedName::from(subject.der().to_vec()));
            }
            Err(why) => warn!(ca = %subject, error = %why, "not a trust anchor"),
        }
    }

    /// The Factory of a host name, else the only one, with its server certificate.
    pub(super) fn server(&self, host: Option<&str>) -> Option<(FactoryId, Arc<SingleCertAndKey>)> {
        let named = host.and_then(|host| {
            self.servers.iter().find(|server| server.host.eq_ignore_ascii_case(host))
        });
        let server = named.or(match self.servers.as_slice() {
            [only] => Some(only),
            _ => None,
        })?;
        Some((server.factory, Arc::clone(&server.certificate)))
    }
}

fn certified_key(
    identity: &ServerIdentity,
    provider: &CryptoProvider,
) -> Result<SingleCertAndKey, rustls::Error> {
    // Alone: its issuer is the root, which every client must have already.
    let chain = vec![CertificateDer::from(identity.certificate.der().to_vec())];
    let key = PrivatePkcs8KeyDer::from(identity.key.pkcs8().to_vec());
    let certified = CertifiedKey::from_der(chain, key.into(), provider)?;
    Ok(SingleCertAndKey::from(certified))
}
