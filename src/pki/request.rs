//! PKCS#10 certification requests (RFC 2986), read and made.

use const_oid::db::rfc2985::{PKCS_9_AT_CHALLENGE_PASSWORD, PKCS_9_AT_EXTENSION_REQUEST};
use der::asn1::{ObjectIdentifier, SetOfVec, Utf8StringRef};
use der::{Any, AnyRef, Decode, Encode, Tag};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;

use super::extension::Extensions;
use super::issue::ToBeSigned;
use super::signature::verify;
use super::syntax::{Attribute, Attributes, Raw, RawExtension, RequestInfo, Signed, constructed};
use super::{
    Extension, Fingerprint, Malformed, Name, PublicKey, SignatureAlgorithm, SignatureFault,
};

const WHAT: &str = "PKCS#10 request";

/// id-cmc-changeSubjectName (RFC 6402 §2.8).
const CHANGE_SUBJECT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.7.36");

/// A request as it was read. Its signature is verified only by [`Self::verify`].
#[derive(Clone, Debug)]
pub struct CertificationRequest {
    der: Vec<u8>,
    subject: Name,
    public_key: PublicKey,
    extensions: Extensions,
    challenge_password: Option<Vec<u8>>,
    changes_subject: bool,
}

impl CertificationRequest {
    /// Reads a DER request.
    ///
    /// # Errors
    /// When it is not well formed, or an attribute that may stand once stands twice.
    pub fn from_der(der: &[u8]) -> Result<Self, Malformed> {
        let malformed = |why: der::Error| Malformed::new(WHAT, why);
        let signed = Signed::from_der(der).map_err(malformed)?;
        let info = RequestInfo::from_der(signed.content.0).map_err(malformed)?;
        if info.version != 0 {
            return Err(Malformed::new(WHAT, format!("version {} is unknown", info.version)));
        }
        let attributes = info.attributes.map(Attributes::read).transpose().map_err(malformed)?;
        let attributes = attributes.unwrap_or_default();
        let extensions = match single(&attributes, PKCS_9_AT_EXTENSION_REQUEST)? {
            Some(value) => {
                Extensions::read(&Vec::<RawExtension<'_>>::from_der(value.0).map_err(malformed)?)?
            }
            None => Extensions::default(),
        };
        let challenge_password = single(&attributes, PKCS_9_AT_CHALLENGE_PASSWORD)?
            .map(|value| AnyRef::from_der(value.0).map(|string| string.value().to_vec()))
            .transpose()
            .map_err(malformed)?;
        Ok(Self {
            subject: Name::from_der(info.subject.0)?,
            public_key: PublicKey::from_der(info.public_key.0)?,
            extensions,
            challenge_password,
            changes_subject: attributes.iter().any(|one| one.id == CHANGE_SUBJECT_NAME),
            der: der.to_vec(),
        })
    }

    /// Reads the one request of a PEM text; what stands around the block is passed over.
    ///
    /// # Errors
    /// When there is another number of requests than one, or it is not well formed.
    pub fn from_pem(text: &[u8]) -> Result<Self, Malformed> {
        let malformed = |why: &str| Malformed::new("PEM text", why);
        let blocks: Result<Vec<_>, _> =
            CertificateSigningRequestDer::pem_slice_iter(text).collect();
        match blocks.map_err(|why| malformed(&format!("{why:?}")))?.as_slice() {
            [der] => Self::from_der(der),
            [] => Err(malformed("there is no certificate request in it")),
            several => Err(malformed(&format!("{} requests are in it", several.len()))),
        }
    }

    /// Proof of possession: verifies the request's own signature with its own key.
    ///
    /// # Errors
    /// When the signature is wrong, or its algorithm is not accepted.
    pub fn verify(&self) -> Result<(), SignatureFault> {
        verify(&self.der, &self.public_key)
    }

    /// The name that it asks for.
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// The key that it asks a certificate for.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The extensions that it asks for.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The contents of its challengePassword (RFC 2985 §5.4.1), if it has one.
    pub fn challenge_password(&self) -> Option<&[u8]> {
        self.challenge_password.as_deref()
    }

    /// Whether it asks for another subject by RFC 6402's ChangeSubjectName.
    pub fn changes_subject(&self) -> bool {
        self.changes_subject
    }

    /// The original bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the whole request.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }
}

/// The value of the attribute `id`, which may stand once and has one value.
fn single<'a>(
    attributes: &[Attribute<'a>],
    id: ObjectIdentifier,
) -> Result<Option<Raw<'a>>, Malformed> {
    let mut found = attributes.iter().filter(|attribute| attribute.id == id);
    let Some(attribute) = found.next() else {
        return Ok(None);
    };
    if found.next().is_some() {
        return Err(Malformed::new(WHAT, format!("attribute {id} stands twice")));
    }
    attribute.single_value().map(Some).map_err(|why| Malformed::new(WHAT, why))
}

/// A request to be made: by our client, and for the keys that a Factory's root signs offline.
pub struct UnsignedRequest<'a> {
    /// The name to ask for.
    pub subject: &'a Name,
    /// The key to be certified.
    pub public_key: &'a PublicKey,
    /// The extensions to ask for.
    pub extensions: &'a [Extension],
    /// A challengePassword, if any.
    pub challenge_password: Option<&'a str>,
}

impl UnsignedRequest<'_> {
    /// The `CertificationRequestInfo` (RFC 2986 §4.1).
    ///
    /// # Errors
    /// When a part is too long for DER.
    pub fn to_be_signed(&self, algorithm: SignatureAlgorithm) -> Result<ToBeSigned, Malformed> {
        self.encode()
            .map(|content| ToBeSigned::new(content, algorithm))
            .map_err(|why| Malformed::new(WHAT, why))
    }

    fn encode(&self) -> der::Result<Vec<u8>> {
        let mut attributes = SetOfVec::<Any>::new();
        if !self.extensions.is_empty() {
            let extensions: der::Result<Vec<_>> =
                self.extensions.iter().map(Extension::raw).collect();
            attributes.insert(attribute(PKCS_9_AT_EXTENSION_REQUEST, &extensions?.to_der()?)?)?;
        }
        if let Some(password) = self.challenge_password {
            let value = Utf8StringRef::new(password)?.to_der()?;
            attributes.insert(attribute(PKCS_9_AT_CHALLENGE_PASSWORD, &value)?)?;
        }
        let attributes = attributes.to_der()?;
        RequestInfo {
            version: 0,
            subject: Raw(self.subject.der()),
            public_key: Raw(self.public_key.der()),
            attributes: Some(Attributes(AnyRef::from_der(&attributes)?.value())),
        }
        .to_der()
    }
}

fn attribute(id: ObjectIdentifier, value: &[u8]) -> der::Result<Any> {
    let values = constructed(Tag::Set, &[value])?;
    Any::from_der(&constructed(Tag::Sequence, &[&id.to_der()?, &values])?)
}
