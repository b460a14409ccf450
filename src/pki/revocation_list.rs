//! Revocation lists (RFC 5280 §5), read and made. Not required of one that is read, since a
//! Factory's root makes none of it: growing numbers, the cRLSign key usage, short serials.

use const_oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CERTIFICATE_ISSUER, ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS,
    ID_CE_DELTA_CRL_INDICATOR, ID_CE_ISSUING_DISTRIBUTION_POINT,
};
use der::{Decode, Encode, Reader, SliceReader};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use x509_cert::time::Time;

use super::extension::{each_once, read_reason_code};
use super::issue::time;
use super::signature::verify;
use super::syntax::{
    Raw, RawExtension, RevokedCertificate, RevokedCertificates, Signed, TbsCertList,
};
use super::{
    Certificate, Extension, Malformed, Name, Serial, SignatureAlgorithm, SignatureFault, ToBeSigned,
};
use crate::clock::UnixTime;

const WHAT: &str = "CRL";
const VERSION_2: u8 = 1;

/// How many entries are read: far more than a Factory has CAs.
const ENTRY_LIMIT: usize = 10_000;

/// A certificate revocation list that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    der: Vec<u8>,
    issuer: Name,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    entries: Vec<RevokedSerial>,
}

/// An entry of a revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedSerial {
    /// The serial number of the certificate.
    pub serial: Serial,
    /// Since when it is revoked.
    pub at: UnixTime,
    /// The number in its ReasonCode (RFC 5280 §5.3.1), if it has one.
    pub reason: Option<u8>,
}

impl RevocationList {
    /// Reads a DER CRL, of version 1 or 2. Nothing about it is verified.
    ///
    /// # Errors
    /// When it is not well formed, has more than 10,000 entries, or an extension that makes it
    /// something else than the full list of what its issuer revoked.
    pub fn from_der(der: &[u8]) -> Result<Self, Malformed> {
        let malformed = |why: der::Error| Malformed::new(WHAT, why);
        let signed = Signed::from_der(der).map_err(malformed)?;
        let tbs = TbsCertList::from_der(signed.content.0).map_err(malformed)?;
        if let Some(version) = tbs.version.filter(|version| *version != VERSION_2) {
            return Err(Malformed::new(WHAT, format!("version {version} is unknown")));
        }
        if tbs.algorithm != signed.algorithm {
            return Err(Malformed::new(WHAT, "it names two different signature algorithms"));
        }
        understood(tbs.extensions.as_deref().unwrap_or_default())?;
        Ok(Self {
            issuer: Name::from_der(tbs.issuer.0)?,
            this_update: unix_time(tbs.this_update),
            next_update: tbs.next_update.map(unix_time),
            entries: tbs.revoked.map(read_entries).transpose()?.unwrap_or_default(),
            der: der.to_vec(),
        })
    }

    /// Reads the one CRL of a PEM text; what stands around the block is passed over.
    ///
    /// # Errors
    /// When there is another number of blocks than one, of whatever kind, or the one is no CRL.
    pub fn from_pem(text: &[u8]) -> Result<Self, Malformed> {
        let malformed = |why: &str| Malformed::new("PEM text", why);
        let lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
        match lines.filter(|line| line.starts_with(b"-----BEGIN ")).count() {
            0 => Err(malformed("there is no block in it; one X509 CRL is wanted")),
            1 => match CertificateRevocationListDer::from_pem_slice(text) {
                Ok(der) => Self::from_der(&der),
                Err(PemError::NoItemsFound) => Err(malformed("the block in it is no X509 CRL")),
                Err(why) => Err(malformed(&format!("{why:?}"))),
            },
            several => Err(malformed(&format!("{several} blocks are in it; one CRL is wanted"))),
        }
    }

    /// The original bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Who issued it.
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// When it was issued.
    pub fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// Until when the next one will have been issued, if it says so.
    pub fn next_update(&self) -> Option<UnixTime> {
        self.next_update
    }

    /// What it revokes, in its order.
    pub fn entries(&self) -> &[RevokedSerial] {
        &self.entries
    }

    /// Verifies that `issuer`'s key signed this list, and that it says so by name.
    ///
    /// # Errors
    /// When the names differ or the signature is wrong: [`SignatureFault::Wrong`]; or its
    /// algorithm is not accepted.
    pub fn verify_issued_by(&self, issuer: &Certificate) -> Result<(), SignatureFault> {
        if self.issuer != *issuer.subject() {
            return Err(SignatureFault::Wrong);
        }
        verify(&self.der, issuer.public_key())
    }
}

fn read_entries(revoked: RevokedCertificates<'_>) -> Result<Vec<RevokedSerial>, Malformed> {
    let malformed = |why: der::Error| Malformed::new(WHAT, why);
    let mut reader = SliceReader::new(revoked.0).map_err(malformed)?;
    let mut entries = Vec::new();
    while !reader.is_finished() {
        if entries.len() == ENTRY_LIMIT {
            return Err(Malformed::new(WHAT, format!("it has more than {ENTRY_LIMIT} entries")));
        }
        let entry = RevokedCertificate::decode(&mut reader).map_err(malformed)?;
        let extensions = entry.extensions.as_deref().unwrap_or_default();
        understood(extensions)?;
        let reason = extensions.iter().find(|extension| extension.id == ID_CE_CRL_REASONS);
        let reason = reason.map(|extension| read_reason_code(extension.value.as_bytes()));
        entries.push(RevokedSerial {
            serial: Serial::from_der(entry.serial.0).map_err(malformed)?,
            at: unix_time(entry.at),
            reason: reason.transpose().map_err(malformed)?,
        });
    }
    Ok(entries)
}

/// Whether the extensions of a list or an entry leave its plain meaning alone.
fn understood(extensions: &[RawExtension<'_>]) -> Result<(), Malformed> {
    each_once(extensions)?;
    for extension in extensions {
        let why = match extension.id {
            ID_CE_AUTHORITY_KEY_IDENTIFIER | ID_CE_CRL_NUMBER | ID_CE_CRL_REASONS => continue,
            ID_CE_DELTA_CRL_INDICATOR => "it is a delta CRL; a full one is wanted".to_owned(),
            ID_CE_ISSUING_DISTRIBUTION_POINT => {
                "it has an issuing distribution point; one without is wanted".to_owned()
            }
            ID_CE_CERTIFICATE_ISSUER => "it has entries of another issuer".to_owned(),
            unknown if extension.critical => format!("its critical extension {unknown} is unknown"),
            _ => continue,
        };
        return Err(Malformed::new(WHAT, why));
    }
    Ok(())
}

fn unix_time(time: Time) -> UnixTime {
    UnixTime::from(time.to_unix_duration())
}

/// What a revocation list shall say.
pub struct RevocationTemplate<'a> {
    /// The subject of the issuing CA.
    pub issuer: &'a Name,
    /// The present.
    pub this_update: UnixTime,
    /// Until when the next one will be issued.
    pub next_update: UnixTime,
    /// The number of the list, which grows.
    pub number: u64,
    /// The identifier of the issuing CA's key.
    pub authority_key_identifier: &'a [u8],
    /// Every entry, in order.
    pub entries: &'a [RevokedSerial],
}

impl RevocationTemplate<'_> {
    /// The `TBSCertList` (RFC 5280 §5.1). Takes time in proportion to the entries.
    ///
    /// # Errors
    /// When a time cannot be written in a list, or a part is too long for DER.
    pub fn to_be_signed(&self, algorithm: SignatureAlgorithm) -> Result<ToBeSigned, Malformed> {
        let malformed = |why: der::Error| Malformed::new(WHAT, why);
        let authority = Extension::authority_key_identifier(self.authority_key_identifier)?;
        let number = Extension::crl_number(self.number)?;
        let mut revoked = Vec::new();
        for entry in self.entries {
            entry.write(&mut revoked)?;
        }
        let tbs = TbsCertList {
            version: Some(VERSION_2),
            algorithm: algorithm.identifier(),
            issuer: Raw(self.issuer.der()),
            this_update: time(self.this_update).map_err(malformed)?,
            next_update: Some(time(self.next_update).map_err(malformed)?),
            // An empty one may not be there (RFC 5280 §5.1.2.6).
            revoked: (!revoked.is_empty()).then_some(RevokedCertificates(&revoked)),
            extensions: Some(vec![
                authority.raw().map_err(malformed)?,
                number.raw().map_err(malformed)?,
            ]),
        };
        Ok(ToBeSigned::new(tbs.to_der().map_err(malformed)?, algorithm))
    }
}

impl RevokedSerial {
    fn write(&self, list: &mut Vec<u8>) -> Result<(), Malformed> {
        let malformed = |why: der::Error| Malformed::new(WHAT, why);
        let reason = self.reason.map(Extension::reason_code).transpose()?;
        let extensions = reason.as_ref().map(|reason| Ok(vec![reason.raw()?])).transpose();
        let entry = RevokedCertificate {
            serial: Raw(&self.serial.to_der()?),
            at: time(self.at).map_err(malformed)?,
            extensions: extensions.map_err(malformed)?,
        };
        entry.encode_to_vec(list).map(drop).map_err(malformed)
    }
}

#[cfg(test)]
#[path = "revocation_list_tests.rs"]
mod tests;
