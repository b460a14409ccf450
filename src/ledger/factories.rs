//! Factories: what is set up rarely and read as one snapshot.

use std::collections::HashSet;

use super::change::{ChangeError, ChangeRefused, change};
use super::database::{Row, Statement, Value};
use super::device_cas::{self, DeviceCaChange, device_ca};
use super::private_keys::take_pending_key;
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::{
    DeviceCaKind, Factory, FactoryId, FactoryName, FactoryTrust, HostName, ServerPurpose,
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

/// A change of a Factory's PKI.
pub enum FactoryChange {
    /// The root comes (I9).
    SetRoot(Certificate),
    /// A server certificate comes, for a key that waits for it.
    InstallServer(ServerPurpose, Certificate),
    /// A Device CA comes. An online one is for a key that waits for it.
    AddDeviceCa(DeviceCaKind, Certificate),
    /// The state of a Device CA changes.
    Act(DeviceCaChange),
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

impl Ledger {
    /// Makes a Factory without a PKI.
    ///
    /// # Errors
    /// When its name or one of its hosts is taken, or the ledger fails.
    pub async fn add_factory(
        &self,
        factory: NewFactory,
        actor: &str,
    ) -> Result<FactoryId, ChangeError> {
        let subject = factory.name.to_string();
        let done = self.try_add_factory(factory, actor).await;
        self.recorded(done, None, actor, "add-factory", subject).await
    }

    async fn try_add_factory(
        &self,
        factory: NewFactory,
        actor: &str,
    ) -> Result<FactoryId, ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let taken = Statement::new(
            "SELECT name FROM factory WHERE name = $1 OR est_host = $2 OR gateway_host = $3",
        )
        .bind(factory.name.as_str())
        .bind(factory.est_host.as_str())
        .bind(factory.gateway_host.as_str());
        let taken = transaction.rows(taken).await?;
        let taken: Vec<String> =
            taken.iter().map(|row| row.text("name")).collect::<Result<_, _>>()?;
        if taken.iter().any(|name| name == factory.name.as_str()) {
            return Err(ChangeRefused::FactoryExists.into());
        }
        if !taken.is_empty() {
            return Err(ChangeRefused::HostTaken.into());
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
        let detail = format!("EST host {}, gateway {}", factory.est_host, factory.gateway_host);
        transaction.note(change(id, actor, "add-factory", factory.name.to_string(), detail));
        transaction.change_snapshot();
        transaction.commit().await?;
        Ok(id)
    }

    /// Changes a Factory's PKI: all of it or nothing.
    ///
    /// # Errors
    /// When the root is set already (I9), no key waits for a certificate, a Device CA is known
    /// already, its state forbids the act, devices still depend on it (I8), or the ledger fails.
    pub async fn change_factory(
        &self,
        factory: FactoryId,
        changes: &[FactoryChange],
        actor: &str,
    ) -> Result<(), ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        for asked in changes {
            let (action, certificate) = match asked {
                FactoryChange::SetRoot(root) => {
                    set_root(&mut transaction, factory, root).await?;
                    ("set-root", root)
                }
                FactoryChange::InstallServer(purpose, certificate) => {
                    add_server_certificate(&mut transaction, factory, *purpose, certificate)
                        .await?;
                    ("install-server-certificate", certificate)
                }
                FactoryChange::AddDeviceCa(kind, certificate) => {
                    device_cas::add(&mut transaction, factory, *kind, certificate).await?;
                    ("add-device-ca", certificate)
                }
                FactoryChange::Act(asked) => {
                    device_cas::act(&mut transaction, factory, asked, actor).await?;
                    continue;
                }
            };
            let detail = format!("certificate {}", certificate.fingerprint());
            let subject = format!("{} serial {}", certificate.subject(), certificate.serial());
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
        let bootstrap_cas = self.bootstrap_cas().await?;
        let factories = Statement::new(
            "SELECT id, name, est_host, gateway_host, any_organizational_unit, root FROM factory \
             ORDER BY id",
        );
        let rows = self.database.rows(factories).await?;
        let targets = self.factories_with_targets().await?;
        rows.iter()
            .map(|row| {
                let factory = read_factory(row)?;
                let own = cas.iter().filter(|ca| ca.factory == factory.id).cloned();
                let introducers =
                    bootstrap_cas.iter().filter(|ca| ca.factory == factory.id).cloned();
                Ok(FactoryTrust {
                    device_cas: own.collect(),
                    bootstrap_cas: introducers.collect(),
                    has_targets: targets.contains(&factory.id),
                    factory,
                })
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

    /// SHA-256 of every certificate that a Factory has: its root, server certificates, and Device
    /// CAs that are not revoked.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn installed_certificates(
        &self,
        factory: &Factory,
    ) -> Result<HashSet<Fingerprint>, LedgerError> {
        let select = Statement::new(
            "SELECT certificate FROM device_ca WHERE factory_id = $1 AND state <> 'revoked' \
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

pub(super) fn certificate(row: &Row, column: &str) -> Result<Certificate, LedgerError> {
    Certificate::from_der(&row.bytes(column)?).map_err(LedgerError::corrupt)
}
