//! A device: a key, a certificate, and the requests that it makes.

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::factory::Authority;
use estd::keys::SigningKey;
use estd::model::{DeviceName, FactoryName};
use estd::pki::{
    Certificate, Extension, Name, NameBuilder, Serial, Template, UnsignedRequest, Validity,
    to_est_text,
};

pub struct Device {
    pub certificate: Certificate,
    pub key: SigningKey,
}

const DAY: i64 = 24 * 3600;

impl Device {
    /// A device with a certificate as a factory line makes it.
    pub fn new(issuer: &Authority, factory: &str, name: &str) -> Self {
        let random = SystemRandom::new();
        let key = SigningKey::generate(&random).unwrap();
        let certificate = issuer
            .certify_device(
                &FactoryName::parse(factory).unwrap(),
                &DeviceName::parse(name).unwrap(),
                key.public_key(),
                UnixTime::now(),
                &random,
            )
            .unwrap();
        Self { certificate, key }
    }

    /// A device whose certificate says just this, signed by `issuer`. Validity is in days from now.
    pub fn with_certificate(
        issuer: &Authority,
        subject: &Name,
        extensions: &[Extension],
        days: std::ops::Range<i64>,
    ) -> Self {
        let random = SystemRandom::new();
        let key = SigningKey::generate(&random).unwrap();
        let now = UnixTime::now();
        let template = Template {
            serial: &Serial::random(&random).unwrap(),
            issuer: issuer.certificate().subject(),
            validity: Validity {
                not_before: now.plus(days.start * DAY),
                not_after: now.plus(days.end * DAY),
            },
            subject,
            public_key: key.public_key(),
            extensions,
        };
        let to_be_signed = template.to_be_signed(issuer.key().algorithm()).unwrap();
        let der = issuer.key().sign(to_be_signed, &random).unwrap();
        Self { certificate: Certificate::from_der(&der).unwrap(), key }
    }

    /// The same device with another certificate and key.
    pub fn switched(certificate: Certificate, key: SigningKey) -> Self {
        Self { certificate, key }
    }

    /// A new key and an EST body that asks for what the device's certificate says, for that key.
    pub fn request(&self) -> (SigningKey, String) {
        let key = new_key();
        let body = self.request_for(&key);
        (key, body)
    }

    /// An EST body that asks for what the device's certificate says, for this key.
    pub fn request_for(&self, key: &SigningKey) -> String {
        let san = self.certificate.extensions().subject_alt_name.as_deref();
        let extensions: Vec<Extension> =
            san.map(|value| Extension::subject_alt_name(value, false)).into_iter().collect();
        request(self.certificate.subject(), key, &extensions, None)
    }
}

pub fn new_key() -> SigningKey {
    SigningKey::generate(&SystemRandom::new()).unwrap()
}

/// An EST body with a request for just this.
pub fn request(
    subject: &Name,
    key: &SigningKey,
    extensions: &[Extension],
    challenge_password: Option<&str>,
) -> String {
    let request =
        UnsignedRequest { subject, public_key: key.public_key(), extensions, challenge_password };
    let to_be_signed = request.to_be_signed(key.algorithm()).unwrap();
    to_est_text(&key.sign(to_be_signed, &SystemRandom::new()).unwrap())
}

/// `CN=…, OU=…`.
pub fn name(common_name: &str, organizational_unit: &str) -> Name {
    let name = NameBuilder::default().common_name(common_name);
    name.organizational_unit(organizational_unit).build().unwrap()
}
