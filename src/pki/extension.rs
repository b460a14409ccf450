//! X.509 extensions, in requests, certificates and CRLs.

use std::collections::BTreeSet;

use const_oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS,
    ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE, ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER,
};
use der::asn1::{ObjectIdentifier, OctetString, OctetStringRef};
use der::flagset::FlagSet;
use der::{AnyRef, Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectAltName, SubjectKeyIdentifier,
};

use super::syntax::RawExtension;
use super::{Malformed, PublicKey};

const WHAT: &str = "list of extensions";

/// A set of key usages (RFC 5280 §4.2.1.3).
pub type KeyUsageSet = FlagSet<KeyUsages>;

/// The extensions that this server reads; others are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// KeyUsage, if present.
    pub key_usage: Option<KeyUsageSet>,
    /// Every purpose of ExtendedKeyUsage, if present.
    pub extended_key_usage: Option<Vec<ObjectIdentifier>>,
    /// The value of SubjectAltName as it stands, if present.
    pub subject_alt_name: Option<Vec<u8>>,
    /// Whether BasicConstraints says CA:TRUE.
    pub ca: bool,
    /// SubjectKeyIdentifier, if present.
    pub subject_key_identifier: Option<Vec<u8>>,
    /// The key identifier in AuthorityKeyIdentifier, if there is one that can be read: a hint, which
    /// nothing is decided by.
    pub authority_key_identifier: Option<Vec<u8>>,
}

impl Extensions {
    pub(super) fn read(raw: &[RawExtension<'_>]) -> Result<Self, Malformed> {
        each_once(raw)?;
        let mut read = Self::default();
        for extension in raw {
            read.read_one(extension).map_err(|why| {
                Malformed::new(WHAT, format!("the value of {}: {why}", extension.id))
            })?;
        }
        Ok(read)
    }

    fn read_one(&mut self, extension: &RawExtension<'_>) -> der::Result<()> {
        let value = extension.value.as_bytes();
        match extension.id {
            ID_CE_KEY_USAGE => self.key_usage = Some(KeyUsage::from_der(value)?.0),
            ID_CE_EXT_KEY_USAGE => {
                self.extended_key_usage = Some(ExtendedKeyUsage::from_der(value)?.0);
            }
            ID_CE_SUBJECT_ALT_NAME => self.subject_alt_name = Some(value.to_vec()),
            ID_CE_BASIC_CONSTRAINTS => self.ca = BasicConstraints::from_der(value)?.ca,
            ID_CE_SUBJECT_KEY_IDENTIFIER => {
                let identifier = SubjectKeyIdentifier::from_der(value)?;
                self.subject_key_identifier = Some(identifier.0.as_bytes().to_vec());
            }
            ID_CE_AUTHORITY_KEY_IDENTIFIER => {
                let identifier = AuthorityKeyIdentifier::from_der(value).ok();
                let identifier = identifier.and_then(|read| read.key_identifier);
                self.authority_key_identifier = identifier.map(|key| key.as_bytes().to_vec());
            }
            _ => {}
        }
        Ok(())
    }

    /// The DNS names of SubjectAltName; empty if it has none or cannot be read.
    pub fn dns_names(&self) -> Vec<String> {
        let names = self.subject_alt_name.as_deref().map(SubjectAltName::from_der);
        let Some(Ok(SubjectAltName(names))) = names else {
            return Vec::new();
        };
        let dns = names.into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            _ => None,
        });
        dns.collect()
    }
}

/// One extension to be put into a certificate or a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    id: ObjectIdentifier,
    critical: bool,
    value: Vec<u8>,
}

impl Extension {
    /// KeyUsage, critical.
    ///
    /// # Errors
    /// Never for a set of the known usages.
    pub fn key_usage(usages: impl Into<KeyUsageSet>) -> Result<Self, Malformed> {
        Self::new(ID_CE_KEY_USAGE, true, &KeyUsage(usages.into()))
    }

    /// ExtendedKeyUsage.
    ///
    /// # Errors
    /// When the list is too long for DER.
    pub fn extended_key_usage(
        purposes: Vec<ObjectIdentifier>,
        critical: bool,
    ) -> Result<Self, Malformed> {
        Self::new(ID_CE_EXT_KEY_USAGE, critical, &ExtendedKeyUsage(purposes))
    }

    /// SubjectAltName with a value that was read elsewhere; critical where the subject is empty
    /// (RFC 5280 §4.2.1.6).
    pub fn subject_alt_name(value: &[u8], critical: bool) -> Self {
        Self { id: ID_CE_SUBJECT_ALT_NAME, critical, value: value.to_vec() }
    }

    /// SubjectAltName with one DNS name.
    ///
    /// # Errors
    /// When the name is not ASCII.
    pub fn dns_name(name: &str) -> Result<Self, Malformed> {
        let name = der::asn1::Ia5String::new(name).map_err(|why| Malformed::new(WHAT, why))?;
        Self::new(ID_CE_SUBJECT_ALT_NAME, false, &SubjectAltName(vec![GeneralName::DnsName(name)]))
    }

    /// BasicConstraints of a CA below which this many further CAs may stand.
    ///
    /// # Errors
    /// Never.
    pub fn certificate_authority(path_length: Option<u8>) -> Result<Self, Malformed> {
        let constraints = BasicConstraints { ca: true, path_len_constraint: path_length };
        Self::new(ID_CE_BASIC_CONSTRAINTS, true, &constraints)
    }

    /// BasicConstraints of what is not a CA.
    ///
    /// # Errors
    /// Never.
    pub fn end_entity() -> Result<Self, Malformed> {
        let constraints = BasicConstraints { ca: false, path_len_constraint: None };
        Self::new(ID_CE_BASIC_CONSTRAINTS, true, &constraints)
    }

    /// SubjectKeyIdentifier of a key.
    ///
    /// # Errors
    /// Never for a key that was read.
    pub fn subject_key_identifier(key: &PublicKey) -> Result<Self, Malformed> {
        let identifier = OctetString::new(key_identifier(key)?.as_slice())
            .map_err(|why| Malformed::new(WHAT, why))?;
        Self::new(ID_CE_SUBJECT_KEY_IDENTIFIER, false, &SubjectKeyIdentifier(identifier))
    }

    /// AuthorityKeyIdentifier that names the issuer's key by the identifier in its certificate.
    ///
    /// # Errors
    /// When the identifier is too long for DER.
    pub fn authority_key_identifier(identifier: &[u8]) -> Result<Self, Malformed> {
        let identifier = OctetString::new(identifier).map_err(|why| Malformed::new(WHAT, why))?;
        let value = AuthorityKeyIdentifier {
            key_identifier: Some(identifier),
            authority_cert_issuer: None,
            authority_cert_serial_number: None,
        };
        Self::new(ID_CE_AUTHORITY_KEY_IDENTIFIER, false, &value)
    }

    /// CRLNumber of a CRL.
    ///
    /// # Errors
    /// Never.
    pub fn crl_number(number: u64) -> Result<Self, Malformed> {
        Self::new(ID_CE_CRL_NUMBER, false, &number)
    }

    /// ReasonCode of an entry in a CRL.
    ///
    /// # Errors
    /// Never.
    pub fn reason_code(reason: u8) -> Result<Self, Malformed> {
        let enumerated = || {
            let integer = reason.to_der()?;
            AnyRef::new(Tag::Enumerated, AnyRef::from_der(&integer)?.value())?.to_der()
        };
        let value = enumerated().map_err(|why: der::Error| Malformed::new(WHAT, why))?;
        Ok(Self { id: ID_CE_CRL_REASONS, critical: false, value })
    }

    fn new(id: ObjectIdentifier, critical: bool, value: &impl Encode) -> Result<Self, Malformed> {
        let value = value.to_der().map_err(|why| Malformed::new(WHAT, why))?;
        Ok(Self { id, critical, value })
    }

    pub(super) fn raw(&self) -> der::Result<RawExtension<'_>> {
        let value = OctetStringRef::new(&self.value)?;
        Ok(RawExtension { id: self.id, critical: self.critical, value })
    }
}

/// Whether no extension stands twice.
pub(super) fn each_once(extensions: &[RawExtension<'_>]) -> Result<(), Malformed> {
    let mut seen = BTreeSet::new();
    match extensions.iter().find(|extension| !seen.insert(extension.id)) {
        Some(again) => Err(Malformed::new(WHAT, format!("{} stands twice", again.id))),
        None => Ok(()),
    }
}

/// The number in the value of ReasonCode, an ENUMERATED.
pub(super) fn read_reason_code(value: &[u8]) -> der::Result<u8> {
    let code = AnyRef::from_der(value)?;
    code.tag().assert_eq(Tag::Enumerated)?;
    AnyRef::new(Tag::Integer, code.value())?.decode_as()
}

/// The key identifier of RFC 7093 §2 method 1: the leftmost 160 bits of the SHA-256 of the key.
pub(super) fn key_identifier(key: &PublicKey) -> Result<Vec<u8>, Malformed> {
    let bits = key.bits().map_err(|why| Malformed::new(WHAT, why))?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bits);
    Ok(digest.as_ref().iter().take(20).copied().collect())
}
