//! The ASN.1 shapes of RFC 2986 and RFC 5280, with every part that must survive byte for byte kept
//! as [`Raw`].

use der::asn1::{BitStringRef, ObjectIdentifier, OctetStringRef};
use der::{
    AnyRef, Decode, DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Sequence,
    SliceReader, Tag, Writer,
};
use x509_cert::time::Time;

/// One DER element, header included, exactly as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> Raw<'a> {
    /// The element without its header.
    pub(super) fn contents(self) -> der::Result<&'a [u8]> {
        Ok(AnyRef::from_der(self.0)?.value())
    }
}

impl<'a> Decode<'a> for Raw<'a> {
    type Error = der::Error;

    fn decode<R: Reader<'a>>(reader: &mut R) -> der::Result<Self> {
        reader.tlv_bytes().map(Self)
    }
}

impl Encode for Raw<'_> {
    fn encoded_len(&self) -> der::Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(self.0)
    }
}

/// What certificates, requests and CRLs have in common: something signed.
#[derive(Sequence)]
pub(super) struct Signed<'a> {
    pub(super) content: Raw<'a>,
    pub(super) algorithm: Raw<'a>,
    pub(super) signature: BitStringRef<'a>,
}

/// `CertificationRequestInfo` (RFC 2986 §4.1). The attributes are mandatory there, yet absent in
/// what some clients send.
#[derive(Sequence)]
pub(super) struct RequestInfo<'a> {
    pub(super) version: u8,
    pub(super) subject: Raw<'a>,
    pub(super) public_key: Raw<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) attributes: Option<Attributes<'a>>,
}

/// `SET OF Attribute`, in whatever order it came.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    pub(super) fn read(self) -> der::Result<Vec<Attribute<'a>>> {
        read_all(self.0)
    }
}

impl FixedTag for Attributes<'_> {
    const TAG: Tag = Tag::Set;
}

impl<'a> DecodeValue<'a> for Attributes<'a> {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        reader.read_slice(header.length()).map(Self)
    }
}

impl EncodeValue for Attributes<'_> {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(self.0)
    }
}

/// `Attribute` (RFC 2986 §4.1).
#[derive(Sequence)]
pub(super) struct Attribute<'a> {
    pub(super) id: ObjectIdentifier,
    pub(super) values: Attributes<'a>,
}

impl<'a> Attribute<'a> {
    /// The value of an attribute that has exactly one.
    pub(super) fn single_value(&self) -> der::Result<Raw<'a>> {
        Raw::from_der(self.values.0)
    }
}

/// `TBSCertificate` (RFC 5280 §4.1).
#[derive(Sequence)]
pub(super) struct TbsCertificate<'a> {
    #[asn1(context_specific = "0", default = "Default::default")]
    pub(super) version: u8,
    pub(super) serial: Raw<'a>,
    pub(super) algorithm: Raw<'a>,
    pub(super) issuer: Raw<'a>,
    pub(super) validity: ValidityTimes,
    pub(super) subject: Raw<'a>,
    pub(super) public_key: Raw<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", optional = "true")]
    pub(super) extensions: Option<Vec<RawExtension<'a>>>,
}

/// `Validity` (RFC 5280 §4.1.2.5).
#[derive(Sequence)]
pub(super) struct ValidityTimes {
    pub(super) not_before: Time,
    pub(super) not_after: Time,
}

/// `TBSCertList` (RFC 5280 §5.1).
#[derive(Sequence)]
pub(super) struct TbsCertList<'a> {
    pub(super) version: Option<u8>,
    pub(super) algorithm: Raw<'a>,
    pub(super) issuer: Raw<'a>,
    pub(super) this_update: Time,
    pub(super) next_update: Option<Time>,
    pub(super) revoked: Option<RevokedCertificates<'a>>,
    #[asn1(context_specific = "0", optional = "true")]
    pub(super) extensions: Option<Vec<RawExtension<'a>>>,
}

/// The contents of `revokedCertificates`, a SEQUENCE that may be very long.
#[derive(Clone, Copy)]
pub(super) struct RevokedCertificates<'a>(pub(super) &'a [u8]);

impl FixedTag for RevokedCertificates<'_> {
    const TAG: Tag = Tag::Sequence;
}

impl<'a> DecodeValue<'a> for RevokedCertificates<'a> {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        reader.read_slice(header.length()).map(Self)
    }
}

impl EncodeValue for RevokedCertificates<'_> {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(self.0)
    }
}

/// One of `revokedCertificates`.
#[derive(Sequence)]
pub(super) struct RevokedCertificate<'a> {
    pub(super) serial: Raw<'a>,
    pub(super) at: Time,
    pub(super) extensions: Option<Vec<RawExtension<'a>>>,
}

/// `Extension` (RFC 5280 §4.2).
#[derive(Sequence, Clone, Copy)]
pub(super) struct RawExtension<'a> {
    pub(super) id: ObjectIdentifier,
    #[asn1(default = "Default::default")]
    pub(super) critical: bool,
    pub(super) value: &'a OctetStringRef,
}

/// Every element of a concatenation.
pub(super) fn read_all<'a, T: Decode<'a, Error = der::Error>>(
    bytes: &'a [u8],
) -> der::Result<Vec<T>> {
    let mut reader = SliceReader::new(bytes)?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        elements.push(T::decode(&mut reader)?);
    }
    Ok(elements)
}

/// One constructed element around parts that are DER already.
pub(super) fn constructed(tag: Tag, parts: &[&[u8]]) -> der::Result<Vec<u8>> {
    AnyRef::new(tag, &parts.concat())?.to_der()
}
