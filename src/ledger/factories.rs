//! Factories: what is set up rarely and read as one snapshot.

use std::collections::HashSet;

use super::database::{Row, Statement, Value};
use super::private_keys::take_pending_key;
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::audit::{Entry, Outcome};
use crate::model::{
    DeviceCa, DeviceCaId, DeviceCaKind, DeviceCaState, Factory, FactoryId, FactoryName,
    FactoryTrust, HostName, ServerPurpose,
};
use crate::pki::{Certificate, Fingerprint};

/// A Factory to be made.
pub struct NewFactory {
    /// Its name.
    pub name: FactoryName,
    /// The host name of the EST listener.
    pub est_host: HostName,
    /// The host name of the device gateway.
    pub gateway_host: HostName,
    /// Whether its devices' subjects may carry another OU than its name.
    pub any_organizational_unit: bool,
}

/// A certificate that the Factory's root signed.
pub enum InstalledCertificate {
    /// The root itself.
    Root(Certificate),
    /// A server certificate for a key that waits for it.
    Server(ServerPurpose, Certificate),
    /// A Device CA. An online one is for a key that waits for it.
    DeviceCa(DeviceCaKind, Certificate),
}

/// The server certificate in use for a purpose.
pub struct InstalledServerCertificate {
    /// Whose it is.
    pub factory: FactoryId,
    /// What it is for.
    pub purpose: ServerPurpose,
    /// The certificate.
    pub certificate: Certificate,
}

/// Why a change of a Factory did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It must not.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(error.into())
    }
}

/// A change that the present state of the ledger forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// The name is taken.
    #[error("there is a Factory of this name already")]
    FactoryExists,
    /// The EST host is taken.
    #[error("another Factory has this EST host")]
    HostTaken,
    /// I9.
    #[error("the Root of Trust is set already, and it is set once")]
    RootAlreadySet,
    /// No key waits for this certificate.
    #[error("no key of this Factory waits for the certificate of {0}")]
    NoPendingKey(String),
    /// A Device CA is known by its key.
    #[error("the Device CA {0} is known already")]
    DeviceCaKnown(String),
    /// The private keys were wrapped anew, and whoever asks still has the key-encryption key before.
    #[error(
        "the ledger's private keys have another key-encryption key since `estd keys rewrap`: restart \
         this server, so that it takes the new one"
    )]
    KeyEncryptionKeyReplaced,
}

impl Ledger {
    /// Makes a Factory without a PKI.
    ///
    /// # Errors
    /// When its name or EST host is taken, or the ledger fails.
    pub async fn add_factory(
        &self,
        factory: NewFactory,
        actor: &str,
    ) -> Result<FactoryId, ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let taken = Statement::new("SELECT name FROM factory WHERE name = $1 OR est_host = $2")
            .bind(factory.name.as_str())
            .bind(factory.est_host.as_str());
        if let Some(row) = transaction.rows(taken).await?.first() {
            let same_name = row.text("name")? == factory.name.as_str();
            let refused =
                if same_name { ChangeRefused::FactoryExists } else { ChangeRefused::HostTaken };
            return Err(refused.into());
        }
        let id = FactoryId(transaction.next_id());
        let now = UnixTime::now();
        let insert = Statement::new(
            "INSERT INTO factory (id, name, est_host, gateway_host, any_organizational_unit, root, \
             created_at) VALUES ",
        )
        .tuple([
            id.0.into(),
            factory.name.as_str().into(),
            factory.est_host.as_str().into(),
            factory.gateway_host.as_str().into(),
            i64::from(factory.any_organizational_unit).into(),
            Value::Bytes(None),
            now.0.into(),
        ]);
        transaction.execute(insert).await?;
        let detail = format!("EST host {}", factory.est_host);
        transaction.note(change(id, actor, "add-factory", factory.name.to_string(), detail));
        transaction.change_snapshot();
        transaction.commit().await?;
        Ok(id)
    }

    /// Installs certificates, all or none.
    ///
    /// # Errors
    /// When the root is set already (I9), no key waits for a certificate, a Device CA is known
    /// already, or the ledger fails.
    pub async fn install(
        &self,
        factory: FactoryId,
        certificates: &[InstalledCertificate],
        actor: &str,
    ) -> Result<(), ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        for installed in certificates {
            let (action, certificate) = match installed {
                InstalledCertificate::Root(root) => {
                    set_root(&mut transaction, factory, root).await?;
                    ("set-root", root)
                }
                InstalledCertificate::Server(purpose, certificate) => {
                    add_server_certificate(&mut transaction, factory, *purpose, certificate)
                        .await?;
                    ("install-server-certificate", certificate)
                }
                InstalledCertificate::DeviceCa(kind, certificate) => {
                    add_device_ca(&mut transaction, factory, *kind, certificate).await?;
                    ("add-device-ca", certificate)
                }
            };
            let detail = format!("certificate {}", certificate.fingerprint());
            let subject = certificate.subject().to_string();
            transaction.note(change(factory, actor, action, subject, detail));
        }
        transaction.change_snapshot();
        Ok(transaction.commit().await?)
    }

    /// The version of what [`Self::factories`] reads.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn snapshot_version(&self) -> Result<i64, LedgerError> {
        let rows = self.database.rows(Statement::new("SELECT snapshot_version FROM ledger_head"));
        let rows = rows.await?;
        let row = rows.first().ok_or_else(|| LedgerError::corrupt("no head row"))?;
        Ok(row.integer("snapshot_version")?)
    }

    /// Every Factory with its Device CAs.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn factories(&self) -> Result<Vec<FactoryTrust>, LedgerError> {
        let cas = Statement::new(
            "SELECT id, factory_id, kind, state, certificate FROM device_ca ORDER BY id",
        );
        let cas = self.database.rows(cas).await?;
        let cas: Vec<_> = cas.iter().map(device_ca).collect::<Result<_, _>>()?;
        let factories = Statement::new(
            "SELECT id, name, est_host, gateway_host, any_organizational_unit, root FROM factory \
             ORDER BY id",
        );
        let rows = self.database.rows(factories).await?;
        rows.iter()
            .map(|row| {
                let factory = read_factory(row)?;
                let own = cas.iter().filter(|ca| ca.factory == factory.id).cloned();
                Ok(FactoryTrust { device_cas: own.collect(), factory })
            })
            .collect()
    }

    /// The server certificates in use: the latest of each purpose.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn server_certificates(
        &self,
    ) -> Result<Vec<InstalledServerCertificate>, LedgerError> {
        let select = Statement::new(
            "SELECT factory_id, purpose, certificate FROM server_certificate WHERE id IN \
             (SELECT MAX(id) FROM server_certificate GROUP BY factory_id, purpose)",
        );
        let rows = self.database.rows(select).await?;
        rows.iter()
            .map(|row| {
                let purpose = row.text("purpose")?;
                Ok(InstalledServerCertificate {
                    factory: FactoryId(row.integer("factory_id")?),
                    purpose: ServerPurpose::from_word(&purpose)
                        .ok_or(LedgerError::Corrupt(purpose))?,
                    certificate: certificate(row, "certificate")?,
                })
            })
            .collect()
    }

    /// SHA-256 of every certificate that a Factory has: its root, server certificates, Device CAs.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn installed_certificates(
        &self,
        factory: &Factory,
    ) -> Result<HashSet<Fingerprint>, LedgerError> {
        let select = Statement::new(
            "SELECT certificate FROM device_ca WHERE factory_id = $1 \
             UNION ALL SELECT certificate FROM server_certificate WHERE factory_id = $1",
        );
        let rows = self.database.rows(select.bind(factory.id.0)).await?;
        let root = factory.root.iter().map(|root| Ok(root.fingerprint()));
        let others = rows.iter().map(|row| Ok(Fingerprint::of(&row.bytes("certificate")?)));
        root.chain(others).collect()
    }
}

async fn set_root(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    root: &Certificate,
) -> Result<(), ChangeError> {
    let update = Statement::new("UPDATE factory SET root = $1 WHERE id = $2 AND root IS NULL")
        .bind(root.der())
        .bind(factory.0);
    match transaction.execute(update).await? {
        0 => Err(ChangeRefused::RootAlreadySet.into()),
        _ => Ok(()),
    }
}

async fn add_server_certificate(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    purpose: ServerPurpose,
    certificate: &Certificate,
) -> Result<(), ChangeError> {
    take_pending_key(transaction, factory, Some(purpose), certificate).await?;
    let id = transaction.next_id();
    let insert = Statement::new(
        "INSERT INTO server_certificate (id, factory_id, purpose, public_key_sha256, certificate, \
         installed_at) VALUES ",
    )
    .tuple([
        id.into(),
        factory.0.into(),
        purpose.as_str().into(),
        certificate.public_key().fingerprint().as_bytes().into(),
        certificate.der().into(),
        UnixTime::now().0.into(),
    ]);
    transaction.execute(insert).await?;
    Ok(())
}

async fn add_device_ca(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    kind: DeviceCaKind,
    certificate: &Certificate,
) -> Result<(), ChangeError> {
    let key = certificate.public_key().fingerprint();
    let known = Statement::new("SELECT id FROM device_ca WHERE public_key_sha256 = $1");
    if !transaction.rows(known.bind(key.as_bytes())).await?.is_empty() {
        return Err(ChangeRefused::DeviceCaKnown(certificate.subject().to_string()).into());
    }
    if kind == DeviceCaKind::Online {
        take_pending_key(transaction, factory, None, certificate).await?;
    }
    let id = transaction.next_id();
    let insert = Statement::new(
        "INSERT INTO device_ca (id, factory_id, kind, state, public_key_sha256, certificate, \
         added_at) VALUES ",
    )
    .tuple([
        id.into(),
        factory.0.into(),
        kind.as_str().into(),
        DeviceCaState::Enabled.as_str().into(),
        key.as_bytes().into(),
        certificate.der().into(),
        UnixTime::now().0.into(),
    ]);
    transaction.execute(insert).await?;
    Ok(())
}

/// The audit row of a change of a Factory.
pub(super) fn change(
    factory: FactoryId,
    actor: &str,
    action: &str,
    subject: String,
    detail: String,
) -> Entry {
    Entry {
        at: UnixTime::now(),
        factory: Some(factory),
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject,
        outcome: Outcome::Done,
        code: String::new(),
        detail,
    }
}

fn read_factory(row: &Row) -> Result<Factory, LedgerError> {
    let host = |column: &str| HostName::parse(&row.text(column)?).map_err(LedgerError::corrupt);
    let root = row.maybe_bytes("root")?;
    Ok(Factory {
        id: FactoryId(row.integer("id")?),
        name: FactoryName::parse(&row.text("name")?).map_err(LedgerError::corrupt)?,
        est_host: host("est_host")?,
        gateway_host: host("gateway_host")?,
        any_organizational_unit: row.integer("any_organizational_unit")? != 0,
        root: root
            .map(|der| Certificate::from_der(&der).map_err(LedgerError::corrupt))
            .transpose()?,
    })
}

fn device_ca(row: &Row) -> Result<DeviceCa, LedgerError> {
    let (kind, state) = (row.text("kind")?, row.text("state")?);
    Ok(DeviceCa {
        id: DeviceCaId(row.integer("id")?),
        factory: FactoryId(row.integer("factory_id")?),
        kind: DeviceCaKind::from_word(&kind).ok_or(LedgerError::Corrupt(kind))?,
        state: DeviceCaState::from_word(&state).ok_or(LedgerError::Corrupt(state))?,
        certificate: certificate(row, "certificate")?,
    })
}

pub(super) fn certificate(row: &Row, column: &str) -> Result<Certificate, LedgerError> {
    Certificate::from_der(&row.bytes(column)?).map_err(LedgerError::corrupt)
}
