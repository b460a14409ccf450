//! Signatures over certificates and requests, judged by the same table of algorithms as TLS.

use der::Decode;
use webpki::ALL_VERIFICATION_ALGS;

use super::PublicKey;
use super::syntax::{Raw, Signed};

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
