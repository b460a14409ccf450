//! The secret of a webhook: what its deliveries are signed with. Shown once, kept wrapped.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SecureRandom;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::{KeyError, KeyStore};
use crate::clock::UnixTime;
use crate::model::WebhookName;
use crate::pki::Fingerprint;

const LENGTH: usize = 32;

/// The secret of a webhook. It prints as nothing.
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

/// What a wrapped secret is bound to, so that it opens for that webhook alone.
pub fn webhook_binding(name: &WebhookName) -> Fingerprint {
    Fingerprint::of(format!("estd webhook {name}").as_bytes())
}

impl WebhookSecret {
    /// Makes a secret.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new(vec![0; LENGTH]);
        random.fill(&mut secret)?;
        Ok(Self(secret))
    }

    /// The secret in hexadecimal digits, for whoever verifies.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(&self.0))
    }

    /// The signature of a body that is sent at `at`: `t=UNIX TIME,v1=HEX`, where HEX is
    /// HMAC-SHA256 of `UNIX TIME.BODY`.
    pub fn sign(&self, at: UnixTime, body: &[u8]) -> String {
        let UnixTime(at) = at;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        context.update(format!("{at}.").as_bytes());
        context.update(body);
        format!("t={at},v1={}", HEXLOWER.encode(context.sign().as_ref()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl KeyStore {
    /// Encrypts a webhook's secret for the ledger.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn wrap_secret(
        &self,
        secret: &WebhookSecret,
        name: &WebhookName,
    ) -> Result<Vec<u8>, KeyError> {
        Ok(self.encryption.wrap(&secret.0, webhook_binding(name))?)
    }

    /// Opens a webhook's secret.
    ///
    /// # Errors
    /// When it was wrapped under another key-encryption key or for another webhook.
    pub fn unwrap_secret(
        &self,
        wrapped: &[u8],
        name: &WebhookName,
    ) -> Result<WebhookSecret, KeyError> {
        let secret = self.encryption.unwrap(wrapped, webhook_binding(name));
        secret.map(WebhookSecret).map_err(|Unspecified| KeyError::Wrapped)
    }
}

#[cfg(test)]
mod tests {
    use super::{UnixTime, WebhookSecret};

    /// Made by `printf '1800000000.{"id":1}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…`.
    #[test]
    fn the_signature_is_what_openssl_makes() {
        let secret = WebhookSecret(vec![7; 32].into());
        let signature = secret.sign(UnixTime(1_800_000_000), br#"{"id":1}"#);
        let expected = "e93b3fbd8171184353df9458976508ac54426fcd485075bc7f60047839c396f2";
        assert_eq!(signature, format!("t=1800000000,v1={expected}"));
        assert_eq!(*secret.to_hex(), "07".repeat(32));
    }
}
