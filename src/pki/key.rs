//! Public keys: the original `SubjectPublicKeyInfo` and what kind of key it holds.

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;

use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1};
use const_oid::db::rfc8410::ID_ED_25519;
use der::asn1::{BitStringRef, ObjectIdentifier, UintRef};
use der::{AnyRef, Decode, Encode, Sequence};

use super::syntax::Raw;
use super::{Fingerprint, Malformed};

const WHAT: &str = "public key";
const P256_POINT_LENGTH: usize = 65;

/// A public key as its DER `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    der: Vec<u8>,
    algorithm: KeyAlgorithm,
}

/// What kind of key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256, point uncompressed.
    P256,
    /// ECDSA on NIST P-384, point uncompressed.
    P384,
    /// RSA with an odd public exponent of at least 3 and a modulus of this many bits.
    Rsa(u32),
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// Anything else, described for people.
    Other(String),
}

#[derive(Sequence)]
struct KeyInfo<'a> {
    algorithm: Algorithm<'a>,
    key: BitStringRef<'a>,
}

#[derive(Sequence)]
struct Algorithm<'a> {
    id: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct RsaKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo`. A key of an unknown or unwanted kind is no error here:
    /// which kinds are allowed is policy.
    ///
    /// # Errors
    /// When it is not well formed.
    pub fn from_der(der: &[u8]) -> Result<Self, Malformed> {
        let algorithm = classify(der).map_err(|why| Malformed::new(WHAT, why))?;
        Ok(Self { der: der.to_vec(), algorithm })
    }

    /// Reads the first `PUBLIC KEY` of a PEM text; what stands around the block is passed over.
    ///
    /// # Errors
    /// When there is none, or it is not well formed.
    pub fn from_pem(text: &[u8]) -> Result<Self, Malformed> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text);
        Self::from_der(&der.map_err(|why| Malformed::new(WHAT, format!("{why:?}")))?)
    }

    /// The P-256 key of an uncompressed point.
    ///
    /// # Errors
    /// When it is no such point.
    pub fn from_p256_point(point: &[u8]) -> Result<Self, Malformed> {
        let malformed = |why: der::Error| Malformed::new(WHAT, why);
        let curve = AnyRef::from(&SECP_256_R_1);
        let key = BitStringRef::from_bytes(point).map_err(malformed)?;
        let algorithm = Algorithm { id: ID_EC_PUBLIC_KEY, parameters: Some(curve) };
        let made = Self::from_der(&KeyInfo { algorithm, key }.to_der().map_err(malformed)?)?;
        match made.algorithm {
            KeyAlgorithm::P256 if point.len() == P256_POINT_LENGTH => Ok(made),
            other => Err(Malformed::new(WHAT, format!("no P-256 point but {other}"))),
        }
    }

    /// The original bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What kind of key it is.
    pub fn algorithm(&self) -> &KeyAlgorithm {
        &self.algorithm
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The contents of the key's `BIT STRING`, which key identifiers are made of.
    pub(super) fn bits(&self) -> der::Result<&[u8]> {
        Ok(KeyInfo::from_der(&self.der)?.key.raw_bytes())
    }

    /// The contents of its `AlgorithmIdentifier`.
    pub(super) fn algorithm_contents(&self) -> der::Result<&[u8]> {
        let parts = AnyRef::from_der(&self.der)?.value();
        let mut reader = der::SliceReader::new(parts)?;
        Raw::decode(&mut reader)?.contents()
    }
}

fn classify(der: &[u8]) -> der::Result<KeyAlgorithm> {
    let info = KeyInfo::from_der(der)?;
    let key = info.key.as_bytes().unwrap_or_default();
    Ok(match info.algorithm.id {
        ID_EC_PUBLIC_KEY => classify_ec(info.algorithm.parameters, key),
        RSA_ENCRYPTION => classify_rsa(&RsaKey::from_der(key)?),
        ID_ED_25519 => KeyAlgorithm::Ed25519,
        other => KeyAlgorithm::Other(format!("a key of algorithm {other}")),
    })
}

fn classify_ec(parameters: Option<AnyRef<'_>>, point: &[u8]) -> KeyAlgorithm {
    let Some(curve) = parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok()) else {
        return KeyAlgorithm::Other("an EC key with explicit parameters".to_owned());
    };
    // Compressed points are optional (RFC 5480 §2.2) and most TLS libraries refuse them, so a
    // certificate for one would be of no use to the device.
    if point.first() != Some(&4) {
        return KeyAlgorithm::Other("an EC key with a compressed point".to_owned());
    }
    match curve {
        SECP_256_R_1 => KeyAlgorithm::P256,
        SECP_384_R_1 => KeyAlgorithm::P384,
        other => KeyAlgorithm::Other(format!("an EC key on curve {other}")),
    }
}

fn classify_rsa(key: &RsaKey<'_>) -> KeyAlgorithm {
    let exponent = key.exponent.as_bytes();
    let usable = exponent != [1] && exponent.last().is_some_and(|byte| byte % 2 == 1);
    if !usable {
        return KeyAlgorithm::Other("an RSA key with an unusable exponent".to_owned());
    }
    let modulus = key.modulus.as_bytes();
    let leading_zeros = modulus.first().map_or(0, |byte| byte.leading_zeros());
    let bits = u32::try_from(modulus.len()).unwrap_or(u32::MAX).saturating_mul(8);
    KeyAlgorithm::Rsa(bits.saturating_sub(leading_zeros))
}

impl KeyAlgorithm {
    /// The kind that `Display` writes as `text`; `None` for [`Self::Other`], and whatever is no kind.
    pub fn parse(text: &str) -> Option<Self> {
        let named = [Self::P256, Self::P384, Self::Ed25519];
        let rsa = || text.strip_prefix("RSA-")?.parse().ok().map(Self::Rsa);
        named.into_iter().find(|kind| kind.to_string() == text).or_else(rsa)
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::Rsa(bits) => write!(f, "RSA-{bits}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyAlgorithm, PublicKey};
    use crate::keys::SigningKey;
    use aws_lc_rs::rand::SystemRandom;

    #[test]
    fn kinds_of_key_are_read_as_they_are_written() {
        for text in ["P-256", "P-384", "Ed25519", "RSA-3072"] {
            assert_eq!(KeyAlgorithm::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "p256", "RSA", "RSA-", "an RSA key with an unusable exponent"] {
            assert_eq!(KeyAlgorithm::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_p256_key_is_its_point_and_nothing_else() {
        let key = SigningKey::generate(&SystemRandom::new()).unwrap();
        let point = key.public_key().bits().unwrap();
        assert_eq!(PublicKey::from_p256_point(point).unwrap(), *key.public_key());
        let wrapped = [&[4, 65], point].concat();
        let compressed = [&[2], &point[1..33]].concat();
        for other in [&point[..64], &wrapped, &compressed, &[]] {
            assert!(PublicKey::from_p256_point(other).is_err());
        }
    }
}
