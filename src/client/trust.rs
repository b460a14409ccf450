//! The TLS configuration of a client: the roots that it trusts and who it is.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{default_provider, sign};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{ClientError, Identity};
use crate::pki::{Certificate, PublicKey};

/// The roots that this host trusts, for connections to servers that are not ours.
#[derive(Clone)]
pub struct HostRoots(pub(super) Arc<ClientConfig>);

impl HostRoots {
    /// Reads them, which takes a while and many files: not where others wait.
    ///
    /// # Errors
    /// When there is none.
    pub fn read() -> Result<Self, ClientError> {
        tls_config_of_host().map(Self)
    }
}

/// A configuration that trusts `roots` alone and, with an identity, authenticates by it.
pub(super) fn tls_config(
    roots: &[Certificate],
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, ClientError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.der().to_vec()))?;
    }
    let builder = builder()?.with_root_certificates(store);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::try_from(identity.key.to_vec())
                .map_err(|why| rustls::Error::General(why.to_owned()))?;
            let chain = vec![CertificateDer::from(identity.certificate.der().to_vec())];
            builder.with_client_auth_cert(chain, key)?
        }
    };
    Ok(Arc::new(config))
}

/// A configuration that trusts the roots of this host: of its store, or of `SSL_CERT_FILE` and
/// `SSL_CERT_DIR`. A root that cannot be read is passed over.
///
/// # Errors
/// When there is none.
pub(super) fn tls_config_of_host() -> Result<Arc<ClientConfig>, ClientError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err(ClientError::NoRoots);
    }
    Ok(Arc::new(builder()?.with_root_certificates(store).with_no_client_auth()))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
}

/// The public key of a private key in DER of any kind that TLS can use.
///
/// # Errors
/// When it is none.
pub fn public_key(key: &[u8]) -> Result<PublicKey, ClientError> {
    let unusable = |why: &str| rustls::Error::General(why.to_owned());
    let key = PrivateKeyDer::try_from(key.to_vec()).map_err(unusable)?;
    let public = sign::any_supported_type(&key)?.public_key().map(|spki| spki.to_vec());
    Ok(PublicKey::from_der(
        &public.ok_or_else(|| unusable("the key does not tell its public key"))?,
    )?)
}
