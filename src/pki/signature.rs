//! Signatures over certificates and requests, judged by the same table of algorithms as TLS.

use der::asn1::UintRef;
use der::{Decode, Encode, Sequence};
use webpki::ALL_VERIFICATION_ALGS;

use super::syntax::{Raw, Signed};
use super::{Malformed, PublicKey};

/// Why a signature was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// The algorithm is not one that is accepted here, or does not fit the key.
    #[error("its signature algorithm is not accepted for its key")]
    Algorithm,
    /// The algorithm is fine, the signature is not.
    #[error("its signature does not verify")]
    Wrong,
}

/// What this server signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256 (RFC 5758 §3.2) by a P-256 key.
    EcdsaP256Sha256,
}

impl SignatureAlgorithm {
    /// Its DER `AlgorithmIdentifier`.
    pub(super) fn identifier(self) -> Raw<'static> {
        match self {
            Self::EcdsaP256Sha256 => {
                Raw(&[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])
            }
        }
    }
}

#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// The DER of an ECDSA signature (RFC 3279 §2.2.3) that came as r and s of one length, one after the
/// other, as PKCS#11 gives it.
///
/// # Errors
/// When it has no two halves.
pub fn ecdsa_signature(r_and_s: &[u8]) -> Result<Vec<u8>, Malformed> {
    const WHAT: &str = "ECDSA signature";
    let malformed = |why: der::Error| Malformed::new(WHAT, why);
    if r_and_s.is_empty() || !r_and_s.len().is_multiple_of(2) {
        return Err(Malformed::new(WHAT, format!("{} bytes for r and s", r_and_s.len())));
    }
    let (r, s) = r_and_s.split_at(r_and_s.len() / 2);
    let (r, s) = (UintRef::new(r).map_err(malformed)?, UintRef::new(s).map_err(malformed)?);
    EcdsaSignature { r, s }.to_der().map_err(malformed)
}

/// Verifies the signature of a certificate or request against `key`.
pub(super) fn verify(der: &[u8], key: &PublicKey) -> Result<(), SignatureFault> {
    let malformed = |_| SignatureFault::Wrong;
    let signed = Signed::from_der(der).map_err(malformed)?;
    let signature_algorithm = signed.algorithm.contents().map_err(malformed)?;
    let key_algorithm = key.algorithm_contents().map_err(malformed)?;
    let signature = signed.signature.as_bytes().ok_or(SignatureFault::Wrong)?;
    let bits = key.bits().map_err(malformed)?;

    let algorithm = ALL_VERIFICATION_ALGS
        .iter()
        .find(|known| {
            known.signature_alg_id().as_ref() == signature_algorithm
                && known.public_key_alg_id().as_ref() == key_algorithm
        })
        .ok_or(SignatureFault::Algorithm)?;
    algorithm.verify_signature(bits, signed.content.0, signature).map_err(|_| SignatureFault::Wrong)
}

#[cfg(test)]
mod tests {
    use super::ecdsa_signature;

    /// INTEGERs are as short as can be and never look negative.
    #[test]
    fn r_and_s_become_two_integers() {
        let cases: [(&[u8], &[u8]); 4] = [
            (&[1, 2], &[0x30, 6, 2, 1, 1, 2, 1, 2]),
            (&[0x80, 0x7f], &[0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]),
            (&[0, 1, 0, 0x80], &[0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]),
            (&[0, 0, 0, 5], &[0x30, 6, 2, 1, 0, 2, 1, 5]),
        ];
        for (r_and_s, der) in cases {
            assert_eq!(ecdsa_signature(r_and_s).unwrap(), der);
        }
        assert!(ecdsa_signature(&[]).is_err() && ecdsa_signature(&[1, 2, 3]).is_err());
    }
}
