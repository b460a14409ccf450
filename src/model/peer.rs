//! Who is on the other end of a connection, as the handshake proved it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{BootstrapCaId, DeviceCaId, FactoryId, Presented};
use crate::pki::Certificate;

/// The other end of a TLS connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// The Factory that the connection belongs to.
    pub factory: FactoryId,
    /// The certificate whose key it proved to hold, if it sent one.
    pub certificate: Option<PeerCertificate>,
    /// The `tls-exporter` channel binding (RFC 9266); `None` below TLS 1.3.
    pub channel_binding: Option<[u8; 32]>,
}

/// A client certificate that verified against a Device CA or a bootstrap CA.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Who issued it.
    pub issuer: Issuer,
}

/// Who issued a client certificate: the two are kept apart (RFC 7030 §3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// A Device CA.
    DeviceCa(DeviceCaId),
    /// A bootstrap CA.
    Bootstrap(BootstrapCaId),
}

impl PeerCertificate {
    /// How the ledger knows it.
    pub fn presented(&self) -> Presented {
        Presented {
            fingerprint: self.certificate.fingerprint(),
            key: self.certificate.public_key().fingerprint(),
        }
    }
}
