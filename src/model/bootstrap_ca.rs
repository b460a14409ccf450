//! A bootstrap CA: a manufacturer's, say, outside the Factory's PKI. Its certificates let a device
//! enrol for the first time and are good for nothing else (RFC 7030 §3.3.2).

use super::FactoryId;
use crate::pki::Certificate;

/// A bootstrap CA's row in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootstrapCaId(pub i64);

/// A bootstrap CA that a Factory trusts.
#[derive(Clone, Debug)]
pub struct BootstrapCa {
    /// Its row in the ledger.
    pub id: BootstrapCaId,
    /// Which Factory its devices come to.
    pub factory: FactoryId,
    /// Its certificate.
    pub certificate: Certificate,
}
