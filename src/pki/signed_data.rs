//! SignedData that signs nothing (RFC 5272 §4.1, RFC 5652 §5): how EST hands out certificates and
//! CRLs. Their own bytes are spliced in.

use const_oid::db::rfc5911::{ID_DATA, ID_SIGNED_DATA};
use der::asn1::ObjectIdentifier;
use der::{AnyRef, Decode, Encode, Reader, SliceReader, Tag, TagNumber, Tagged};

use super::syntax::{Raw, constructed, read_all};
use super::{Certificate, Malformed};

const CERTS_ONLY: &str = "certs-only PKCS#7";
const CRLS_ONLY: &str = "crls-only PKCS#7";
const VERSION_1: u8 = 1;
const CERTIFICATES: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
const CRLS: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(1) };
const CONTENT: Tag = CERTIFICATES;

/// Puts DER certificates into a degenerate SignedData, in the order that DER wants of a set.
///
/// # Errors
/// When they are too long for DER.
pub fn certs_only(certificates: &[&[u8]]) -> Result<Vec<u8>, Malformed> {
    encode(CERTIFICATES, certificates).map_err(|why| Malformed::new(CERTS_ONLY, why))
}

/// Puts DER CRLs into a degenerate SignedData, what EST's `/crls` answers with (RFC 8295), in the
/// order that DER wants of a set.
///
/// # Errors
/// When they are too long for DER.
pub fn crls_only(crls: &[&[u8]]) -> Result<Vec<u8>, Malformed> {
    encode(CRLS, crls).map_err(|why| Malformed::new(CRLS_ONLY, why))
}

fn encode(field: Tag, members: &[&[u8]]) -> der::Result<Vec<u8>> {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let members = constructed(field, &sorted)?;
    let empty_set = constructed(Tag::Set, &[])?;
    let content = constructed(Tag::Sequence, &[&ID_DATA.to_der()?])?;
    let signed_data = constructed(
        Tag::Sequence,
        &[&VERSION_1.to_der()?, &empty_set, &content, &members, &empty_set],
    )?;
    let content = constructed(CONTENT, &[&signed_data])?;
    constructed(Tag::Sequence, &[&ID_SIGNED_DATA.to_der()?, &content])
}

/// Reads the certificates out of a certs-only PKCS#7, in the order that they stand in.
///
/// # Errors
/// When it is none, or one of its certificates cannot be read.
pub fn read_certs_only(der: &[u8]) -> Result<Vec<Certificate>, Malformed> {
    let certificates = decode(der).map_err(|why| Malformed::new(CERTS_ONLY, why))?;
    certificates.into_iter().map(|certificate| Certificate::from_der(certificate.0)).collect()
}

fn decode(der: &[u8]) -> der::Result<Vec<Raw<'_>>> {
    let outer = AnyRef::from_der(der)?;
    outer.tag().assert_eq(Tag::Sequence)?;
    let mut reader = SliceReader::new(outer.value())?;
    let content_type = ObjectIdentifier::decode(&mut reader)?;
    if content_type != ID_SIGNED_DATA {
        return Err(der::ErrorKind::OidUnknown { oid: content_type }.into());
    }
    let signed_data = AnyRef::from_der(AnyRef::decode(&mut reader)?.value())?;
    let mut reader = SliceReader::new(signed_data.value())?;
    while !reader.is_finished() {
        let part = AnyRef::decode(&mut reader)?;
        if part.header().tag() == CERTIFICATES {
            return read_all(part.value());
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use cms::cert::CertificateChoices;
    use cms::content_info::ContentInfo;
    use cms::revocation::RevocationInfoChoice;
    use cms::signed_data::SignedData;
    use der::{Decode, Encode};

    use super::{Certificate, certs_only, crls_only, read_certs_only};
    use crate::clock::UnixTime;
    use crate::pki::{NameBuilder, RevocationTemplate, SignatureAlgorithm};

    fn certificate(name: &str) -> Vec<u8> {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn certs_only_is_what_the_cms_crate_reads() {
        let (one, two) = (certificate("one"), certificate("two"));
        let der = certs_only(&[&one, &two]).unwrap();

        let content = ContentInfo::from_der(&der).unwrap();
        let signed = content.content.decode_as::<SignedData>().unwrap();
        let mut read: Vec<Vec<u8>> = (signed.certificates.unwrap().0.iter())
            .map(|choice| match choice {
                CertificateChoices::Certificate(certificate) => certificate.to_der().unwrap(),
                CertificateChoices::Other(_) => panic!("no such thing was put in"),
            })
            .collect();
        read.sort();
        let mut expected = vec![one, two];
        expected.sort();
        assert_eq!(read, expected);
        assert!(signed.signer_infos.0.is_empty());
    }

    #[test]
    fn certs_only_gives_back_what_was_put_in() {
        let one = certificate("one");
        let read = read_certs_only(&certs_only(&[&one]).unwrap()).unwrap();
        assert_eq!(read.iter().map(Certificate::der).collect::<Vec<_>>(), [one]);
    }
    fn crl(number: u64) -> Vec<u8> {
        let issuer = NameBuilder::default().common_name("Device CA").build().unwrap();
        let template = RevocationTemplate {
            issuer: &issuer,
            this_update: UnixTime(0),
            next_update: UnixTime(1),
            number,
            authority_key_identifier: &[0xa1; 20],
            entries: &[],
        };
        let unsigned = template.to_be_signed(SignatureAlgorithm::EcdsaP256Sha256).unwrap();
        unsigned.with_signature(&[0; 70]).unwrap()
    }

    #[test]
    fn crls_only_is_what_the_cms_crate_reads() {
        let (one, two) = (crl(1), crl(2));
        let der = crls_only(&[&two, &one]).unwrap();

        let content = ContentInfo::from_der(&der).unwrap();
        let signed = content.content.decode_as::<SignedData>().unwrap();
        let read: Vec<Vec<u8>> = (signed.crls.unwrap().0.iter())
            .map(|choice| match choice {
                RevocationInfoChoice::Crl(list) => list.to_der().unwrap(),
                RevocationInfoChoice::Other(_) => panic!("no such thing was put in"),
            })
            .collect();
        assert_eq!(read, [one, two]);
        assert!(signed.certificates.is_none());
        assert!(signed.signer_infos.0.is_empty());
    }
}
