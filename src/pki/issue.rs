//! Certificates that are made: a `TBSCertificate` of our own whose subject, issuer, public key and
//! copied extension values are the original bytes.

use der::asn1::{BitString, GeneralizedTime, UtcTime};
use der::{DateTime, Encode, Tag};
use x509_cert::time::Time;

use super::certificate::Validity;
use super::syntax::{Raw, TbsCertificate, ValidityTimes, constructed};
use super::{Extension, Malformed, Name, PublicKey, Serial, SignatureAlgorithm};
use crate::clock::UnixTime;

const WHAT: &str = "certificate";
const VERSION_3: u8 = 2;

/// What a certificate shall say.
pub struct Template<'a> {
    /// The serial number.
    pub serial: &'a Serial,
    /// The subject of the issuing CA.
    pub issuer: &'a Name,
    /// From when until when.
    pub validity: Validity,
    /// Whose certificate it is.
    pub subject: &'a Name,
    /// The subject's key.
    pub public_key: &'a PublicKey,
    /// Every extension, in order.
    pub extensions: &'a [Extension],
}

/// The bytes to sign, and with which algorithm.
pub struct ToBeSigned {
    content: Vec<u8>,
    algorithm: SignatureAlgorithm,
}

impl Template<'_> {
    /// The `TBSCertificate` (RFC 5280 §4.1).
    ///
    /// # Errors
    /// When a time cannot be written in a certificate, or a part is too long for DER.
    pub fn to_be_signed(&self, algorithm: SignatureAlgorithm) -> Result<ToBeSigned, Malformed> {
        let malformed = |why: der::Error| Malformed::new(WHAT, why);
        let extensions: der::Result<Vec<_>> = self.extensions.iter().map(Extension::raw).collect();
        let tbs = TbsCertificate {
            version: VERSION_3,
            serial: Raw(&self.serial.to_der()?),
            algorithm: algorithm.identifier(),
            issuer: Raw(self.issuer.der()),
            validity: ValidityTimes {
                not_before: time(self.validity.not_before).map_err(malformed)?,
                not_after: time(self.validity.not_after).map_err(malformed)?,
            },
            subject: Raw(self.subject.der()),
            public_key: Raw(self.public_key.der()),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions.map_err(malformed)?),
        };
        Ok(ToBeSigned { content: tbs.to_der().map_err(malformed)?, algorithm })
    }
}

impl ToBeSigned {
    pub(super) fn new(content: Vec<u8>, algorithm: SignatureAlgorithm) -> Self {
        Self { content, algorithm }
    }

    /// The bytes that the signature covers.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The DER of the whole, with its signature.
    ///
    /// # Errors
    /// When it is too long for DER.
    pub fn with_signature(self, signature: &[u8]) -> Result<Vec<u8>, Malformed> {
        let signature = BitString::from_bytes(signature).and_then(|bits| bits.to_der());
        signature
            .and_then(|signature| {
                let parts = [&self.content, self.algorithm.identifier().0, &signature];
                constructed(Tag::Sequence, &parts)
            })
            .map_err(|why| Malformed::new(WHAT, why))
    }
}

/// UTCTime until 2049, GeneralizedTime after (RFC 5280 §4.1.2.5).
pub(super) fn time(time: UnixTime) -> der::Result<Time> {
    let since_epoch = time.since_epoch();
    match UtcTime::from_unix_duration(since_epoch) {
        Ok(time) => Ok(Time::UtcTime(time)),
        Err(_) => DateTime::from_unix_duration(since_epoch)
            .map(|time| Time::GeneralTime(GeneralizedTime::from_date_time(time))),
    }
}
