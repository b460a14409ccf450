//! A development Factory in one step: a root of its own signs everything at once.

use anyhow::Context;
use aws_lc_rs::rand::SystemRandom;

use super::{Authority, Locals, RequestedKey, classify, pending_requests, request_keys};
use crate::clock::UnixTime;
use crate::keys::KeyEncryptionKey;
use crate::ledger::{Ledger, NewFactory};
use crate::model::{Factory, FactoryName};
use crate::pki::CertificationRequest;

/// The root of a development Factory. Its key is the operator's: it is kept nowhere else.
pub struct DevelopmentRoot(pub Authority);

/// Makes a Factory with a new root, both server certificates and one online Device CA.
///
/// # Errors
/// When the Factory exists, or the ledger or the random source fails.
pub async fn init(
    ledger: &Ledger,
    key_encryption: &KeyEncryptionKey,
    new: NewFactory,
    random: &SystemRandom,
    actor: &str,
) -> anyhow::Result<DevelopmentRoot> {
    let now = UnixTime::now();
    let name = new.name.clone();
    let root = Authority::root(&name, now, random).context("making the root")?;
    ledger.add_factory(new, actor).await.context("adding the Factory")?;
    let factory = find(ledger, &name).await?;
    request_keys(ledger, key_encryption, &factory, &RequestedKey::ALL, random, actor).await?;

    let pending = pending_requests(ledger, &factory).await?;
    let mut certificates = vec![root.certificate().clone()];
    for request in &pending {
        let csr = CertificationRequest::from_der(&request.der)?;
        let (subject, key) = (csr.subject(), csr.public_key());
        certificates.push(match request.key {
            RequestedKey::Server(purpose) => {
                root.certify_server(subject, factory.host(purpose), key, now, random)?
            }
            RequestedKey::DeviceCa => root.certify_device_ca(subject, key, now, random)?,
        });
    }
    let installed = classify(&certificates, &factory, &pending, Locals::Refuse, now)?;
    ledger.install(factory.id, &installed, actor).await?;
    Ok(DevelopmentRoot(root))
}

async fn find(ledger: &Ledger, name: &FactoryName) -> anyhow::Result<Factory> {
    let found = ledger.factories().await?.into_iter().find(|trust| trust.factory.name == *name);
    Ok(found.context("the Factory that was just added is gone")?.factory)
}
