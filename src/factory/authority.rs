//! A certificate authority whose key is at hand: the root of a development Factory, and the local
//! Device CA of a factory line.

use aws_lc_rs::rand::SecureRandom;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};

use crate::clock::UnixTime;
use crate::keys::{KeyError, SigningKey};
use crate::model::{DeviceName, FactoryName, HostName};
use crate::pki::{
    Certificate, Extension, KeyUsages, Malformed, Name, NameBuilder, PublicKey, Serial, Template,
    Validity,
};

const BACKDATED_SECONDS: i64 = 5 * 60;
const YEAR_SECONDS: i64 = 365 * 24 * 3600;

/// A CA certificate with its key.
pub struct Authority {
    certificate: Certificate,
    key: SigningKey,
}

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate cannot be encoded.
    #[error(transparent)]
    Encoding(#[from] Malformed),
    /// No randomness for a serial number.
    #[error("no randomness for a serial number")]
    Random,
}

impl Authority {
    /// Makes a root as Foundries' tools do: 20 years, P-256, CN=Factory-CA, OU=the Factory.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn root(
        factory: &FactoryName,
        now: UnixTime,
        random: &dyn SecureRandom,
    ) -> Result<Self, AuthorityError> {
        let key = SigningKey::generate(random)?;
        let name = subject("Factory-CA", factory)?;
        let extensions = [
            Extension::certificate_authority(None)?,
            Extension::key_usage(KeyUsages::KeyCertSign | KeyUsages::CRLSign)?,
            Extension::extended_key_usage(vec![ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH], false)?,
            Extension::subject_key_identifier(key.public_key())?,
        ];
        let certificate = Signer { issuer: &name, key: &key, random }.sign(
            &name,
            key.public_key(),
            years(20, now),
            &extensions,
        )?;
        Ok(Self { certificate, key })
    }

    /// Makes a Device CA below this root, with a key of its own: 10 years, path length 0.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn device_ca(
        &self,
        factory: &FactoryName,
        common_name: &str,
        now: UnixTime,
        random: &dyn SecureRandom,
    ) -> Result<Self, AuthorityError> {
        let key = SigningKey::generate(random)?;
        let name = subject(common_name, factory)?;
        let certificate = self.certify_device_ca(&name, key.public_key(), now, random)?;
        Ok(Self { certificate, key })
    }

    /// Signs a Device CA's certificate for a key that is elsewhere.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn certify_device_ca(
        &self,
        name: &Name,
        key: &PublicKey,
        now: UnixTime,
        random: &dyn SecureRandom,
    ) -> Result<Certificate, AuthorityError> {
        self.sign(name, key, years(10, now), &device_ca_extensions()?, random)
    }

    /// Signs a server certificate for a key that is elsewhere: 10 years, one DNS name.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn certify_server(
        &self,
        name: &Name,
        host: &HostName,
        key: &PublicKey,
        now: UnixTime,
        random: &dyn SecureRandom,
    ) -> Result<Certificate, AuthorityError> {
        self.sign(name, key, years(10, now), &server_extensions(host)?, random)
    }

    /// Signs a device's first certificate, as a factory line would: 20 years.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn certify_device(
        &self,
        factory: &FactoryName,
        device: &DeviceName,
        key: &PublicKey,
        now: UnixTime,
        random: &dyn SecureRandom,
    ) -> Result<Certificate, AuthorityError> {
        let extensions = [
            Extension::key_usage(KeyUsages::DigitalSignature)?,
            Extension::extended_key_usage(vec![ID_KP_CLIENT_AUTH], true)?,
        ];
        let name = subject(device.as_str(), factory)?;
        self.sign(&name, key, years(20, now), &extensions, random)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its key, for the file of whoever keeps it.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    fn sign(
        &self,
        name: &Name,
        key: &PublicKey,
        validity: Validity,
        extensions: &[Extension],
        random: &dyn SecureRandom,
    ) -> Result<Certificate, AuthorityError> {
        let identifiers = [
            Extension::subject_key_identifier(key)?,
            Extension::authority_key_identifier(&self.certificate.key_identifier()?)?,
        ];
        let signer = Signer { issuer: self.certificate.subject(), key: &self.key, random };
        signer.sign(name, key, validity, &[extensions, &identifiers].concat())
    }
}

struct Signer<'a> {
    issuer: &'a Name,
    key: &'a SigningKey,
    random: &'a dyn SecureRandom,
}

impl Signer<'_> {
    fn sign(
        &self,
        subject: &Name,
        public_key: &PublicKey,
        validity: Validity,
        extensions: &[Extension],
    ) -> Result<Certificate, AuthorityError> {
        let serial = Serial::random(self.random).map_err(|_| AuthorityError::Random)?;
        let template = Template {
            serial: &serial,
            issuer: self.issuer,
            validity,
            subject,
            public_key,
            extensions,
        };
        let to_be_signed = template.to_be_signed(self.key.algorithm())?;
        let der = self.key.sign(to_be_signed, self.random)?;
        Ok(Certificate::from_der(&der)?)
    }
}

/// The extensions of a Device CA, in requests and in certificates. Foreign gateways want to read
/// cRLSign where they check its CRL.
pub(super) fn device_ca_extensions() -> Result<[Extension; 2], Malformed> {
    Ok([
        Extension::certificate_authority(Some(0))?,
        Extension::key_usage(KeyUsages::KeyCertSign | KeyUsages::CRLSign)?,
    ])
}

/// The extensions of a server certificate, in requests and in certificates.
pub(super) fn server_extensions(host: &HostName) -> Result<[Extension; 4], Malformed> {
    Ok([
        Extension::end_entity()?,
        Extension::key_usage(KeyUsages::DigitalSignature)?,
        Extension::extended_key_usage(vec![ID_KP_SERVER_AUTH], false)?,
        Extension::dns_name(host.as_str())?,
    ])
}

/// `CN=…, OU=<Factory>`.
pub(super) fn subject(common_name: &str, factory: &FactoryName) -> Result<Name, Malformed> {
    let name = NameBuilder::default().common_name(common_name);
    name.organizational_unit(factory.as_str()).build()
}

fn years(years: i64, now: UnixTime) -> Validity {
    Validity { not_before: now.plus(-BACKDATED_SECONDS), not_after: now.plus(years * YEAR_SECONDS) }
}
