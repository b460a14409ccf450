//! Certificates that are read: parsed once, the DER kept as it came.

use der::Decode;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::time::Time;

use super::extension::{Extensions, key_identifier};
use super::signature::verify;
use super::syntax::{Signed, TbsCertificate};
use super::{Fingerprint, Malformed, Name, PublicKey, Serial, SignatureFault};
use crate::clock::UnixTime;

const WHAT: &str = "certificate";

/// An X.509 certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    serial: Serial,
    issuer: Name,
    subject: Name,
    validity: Validity,
    public_key: PublicKey,
    extensions: Extensions,
}

/// From when until when, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: UnixTime,
    /// The last moment.
    pub not_after: UnixTime,
}

impl Validity {
    /// Whether `now` is within.
    pub fn contains(&self, now: UnixTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

impl Certificate {
    /// Reads a DER certificate. Nothing about it is verified.
    ///
    /// # Errors
    /// When it is not well formed.
    pub fn from_der(der: &[u8]) -> Result<Self, Malformed> {
        let malformed = |why: der::Error| Malformed::new(WHAT, why);
        let signed = Signed::from_der(der).map_err(malformed)?;
        let tbs = TbsCertificate::from_der(signed.content.0).map_err(malformed)?;
        let time = |time: Time| UnixTime::from(time.to_unix_duration());
        Ok(Self {
            serial: Serial::from_der(tbs.serial.0).map_err(malformed)?,
            issuer: Name::from_der(tbs.issuer.0)?,
            subject: Name::from_der(tbs.subject.0)?,
            validity: Validity {
                not_before: time(tbs.validity.not_before),
                not_after: time(tbs.validity.not_after),
            },
            public_key: PublicKey::from_der(tbs.public_key.0)?,
            extensions: Extensions::read(tbs.extensions.as_deref().unwrap_or_default())?,
            der: der.to_vec(),
        })
    }

    /// Reads every certificate of a PEM text; what stands between the blocks is passed over.
    ///
    /// # Errors
    /// When a block is broken, or there is none.
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut certificates = Vec::new();
        for block in CertificateDer::pem_slice_iter(text) {
            let block = block.map_err(|why| Malformed::new("PEM text", format!("{why:?}")))?;
            certificates.push(Self::from_der(&block)?);
        }
        if certificates.is_empty() {
            return Err(Malformed::new("PEM text", "there is no certificate in it"));
        }
        Ok(certificates)
    }

    /// The original bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the DER: how the ledger knows a credential.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Who issued it.
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// Whose it is.
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// From when until when it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Its subject's public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What its extensions say.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The identifier of its key: SubjectKeyIdentifier, or what it would be.
    ///
    /// # Errors
    /// Never for a certificate that was read.
    pub fn key_identifier(&self) -> Result<Vec<u8>, Malformed> {
        match &self.extensions.subject_key_identifier {
            Some(identifier) => Ok(identifier.clone()),
            None => key_identifier(&self.public_key),
        }
    }

    /// Verifies that `issuer`'s key signed this certificate, and that it says so by name.
    ///
    /// # Errors
    /// When the names differ or the signature is wrong: [`SignatureFault::Wrong`]; or its
    /// algorithm is not accepted.
    pub fn verify_issued_by(&self, issuer: &Self) -> Result<(), SignatureFault> {
        if self.issuer != issuer.subject {
            return Err(SignatureFault::Wrong);
        }
        verify(&self.der, &issuer.public_key)
    }
}

#[cfg(test)]
mod tests {
    use super::Certificate;
    use std::path::Path;

    fn read(name: &str) -> Certificate {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/certificate").join(name);
        Certificate::from_der(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn certificate_with_a_serial_of_21_bytes_is_read() {
        assert_eq!(read("serial-21-bytes.der").serial().contents().len(), 21);
    }

    #[test]
    fn certificate_that_never_expires_is_read_and_printed() {
        let certificate = read("not-after-9999.der");
        assert!(certificate.validity().not_after.to_string().starts_with("9999-12-3"));
    }

    #[test]
    fn certificate_with_an_explicit_critical_false_keeps_its_signature() {
        let certificate = read("explicit-critical-false.der");
        certificate.verify_issued_by(&certificate).unwrap();
        assert!(certificate.extensions().ca);
    }

    #[test]
    fn certificate_of_version_1_is_read() {
        assert!(!read("v1.der").extensions().ca);
    }
}
