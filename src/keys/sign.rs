//! From a grant to a signed certificate.

use aws_lc_rs::rand::SecureRandom;

use super::{KeyError, Signer};
use crate::pki::{Certificate, Malformed, Serial, Template};
use crate::policy::Grant;

/// A certificate that is signed but not recorded: it must not leave the process (I1).
pub struct Signed {
    grant: Grant,
    certificate: Certificate,
}

/// Why a granted certificate could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key failed.
    #[error("the Device CA's key: {0}")]
    Key(#[from] KeyError),
    /// The certificate cannot be encoded.
    #[error("the certificate: {0}")]
    Encoding(#[from] Malformed),
    /// No randomness for a serial number.
    #[error("no randomness for a serial number")]
    Random,
}

/// Signs what was granted, with `key`, which must be that of the grant's Device CA.
///
/// # Errors
/// When the key or the random source fails.
pub async fn sign(
    grant: Grant,
    key: Signer<'_>,
    random: &(dyn SecureRandom + Sync),
) -> Result<Signed, SignError> {
    let serial = Serial::random(random).map_err(|_| SignError::Random)?;
    let template = Template {
        serial: &serial,
        issuer: grant.issuing_ca.certificate.subject(),
        validity: grant.validity,
        subject: &grant.subject,
        public_key: &grant.public_key,
        extensions: &grant.extensions,
    };
    let der = key.sign(template.to_be_signed(key.algorithm())?, random).await?;
    let certificate = Certificate::from_der(&der)?;
    Ok(Signed { grant, certificate })
}

impl Signed {
    /// What was granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The certificate, for the ledger.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Gives up the certificate, for what the ledger makes of it.
    pub(crate) fn into_certificate(self) -> Certificate {
        self.certificate
    }
}
