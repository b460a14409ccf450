//! ASN.1 in and out: requests, certificates, CRLs, names, keys. Pure.
//!
//! What a certificate carries over from a request (subject, public key, extension values) is the
//! original bytes, spliced, never decoded and encoded again: a re-encoded name is another name
//! to the device that compares it.

mod certificate;
mod extension;
mod fingerprint;
mod issue;
mod key;
mod name;
mod request;
mod revocation_list;
mod serial;
mod signature;
mod signed_data;
mod syntax;
mod text;

pub use certificate::{Certificate, Validity};
pub use extension::{Extension, Extensions, KeyUsageSet};
pub use fingerprint::Fingerprint;
pub use issue::{Template, ToBeSigned};
pub use key::{KeyAlgorithm, PublicKey};
pub use name::{Name, NameBuilder};
pub use request::{CertificationRequest, UnsignedRequest};
pub use revocation_list::{RevocationList, RevocationTemplate, RevokedSerial};
pub use serial::Serial;
pub use signature::{SignatureAlgorithm, SignatureFault, ecdsa_signature};
pub use signed_data::{certs_only, crls_only, read_certs_only};
pub use text::{from_est_text, to_est_text, to_pem, to_wrapped_est_text};
pub use x509_cert::ext::pkix::KeyUsages;

/// Bytes that are not the ASN.1 that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed {what}: {why}")]
pub struct Malformed {
    /// What was expected.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Malformed {
    fn new(what: &'static str, why: impl ToString) -> Self {
        Self { what, why: why.to_string() }
    }
}
