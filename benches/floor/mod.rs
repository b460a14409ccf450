//! The least that an enrolment can cost: the cryptography alone, in memory, on one thread.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};

/// What a `CertificationRequestInfo` and a `TBSCertificate` of a device take, in bytes.
const REQUEST_INFO: [u8; 140] = [1; 140];
const TBS_CERTIFICATE: [u8; 440] = [2; 440];

/// The signatures of one issuance: the request's is verified, the certificate's is made.
pub struct Signatures {
    device: Vec<u8>,
    proof: Vec<u8>,
    issuer: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signatures {
    /// Makes both keys, and the request's signature.
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let generate = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let device = generate();
        Self {
            device: device.public_key().as_ref().to_vec(),
            proof: device.sign(&random, &REQUEST_INFO).unwrap().as_ref().to_vec(),
            issuer: generate(),
            random,
        }
    }

    /// One P-256 verification, by a key that was never seen before, and one P-256 signature.
    pub fn run(&self) {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, black_box(&self.device));
        key.verify(&REQUEST_INFO, &self.proof).unwrap();
        black_box(self.issuer.sign(&self.random, black_box(&TBS_CERTIFICATE)).unwrap());
    }
}

/// How long `run` takes.
pub fn time<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let made = run();
    (made, start.elapsed())
}

/// The median, which a thread that was put aside for a while does not move.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
