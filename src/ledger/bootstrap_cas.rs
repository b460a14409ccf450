//! Bootstrap CAs: added, removed, read.

use super::change::change;
use super::database::{Row, Statement};
use super::factories::certificate;
use super::transaction::WriteTransaction;
use super::{ChangeError, ChangeRefused, Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::{BootstrapCa, BootstrapCaId, FactoryId};
use crate::pki::{Certificate, Fingerprint};

impl Ledger {
    /// Trusts a bootstrap CA.
    ///
    /// # Errors
    /// When its key is a Device CA's or a bootstrap CA's already, or the ledger fails.
    pub async fn add_bootstrap_ca(
        &self,
        factory: FactoryId,
        certificate: &Certificate,
        actor: &str,
    ) -> Result<(), ChangeError> {
        let subject = certificate.subject().to_string();
        let done = self.try_add_bootstrap_ca(factory, certificate, actor).await;
        self.recorded(done, Some(factory), actor, "add-bootstrap-ca", subject).await
    }

    async fn try_add_bootstrap_ca(
        &self,
        factory: FactoryId,
        certificate: &Certificate,
        actor: &str,
    ) -> Result<(), ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let key = certificate.public_key().fingerprint();
        let known = Statement::new(
            "SELECT id FROM device_ca WHERE public_key_sha256 = $1 \
             UNION ALL SELECT id FROM bootstrap_ca WHERE public_key_sha256 = $1",
        );
        if !transaction.rows(known.bind(key.as_bytes())).await?.is_empty() {
            let subject = certificate.subject().to_string();
            return Err(ChangeRefused::DeviceCaKnown(subject).into());
        }
        let id = transaction.next_id();
        let insert = Statement::new(
            "INSERT INTO bootstrap_ca (id, factory_id, public_key_sha256, certificate, added_at) \
             VALUES ",
        )
        .tuple([
            id.into(),
            factory.0.into(),
            key.as_bytes().into(),
            certificate.der().into(),
            UnixTime::now().0.into(),
        ]);
        transaction.execute(insert).await?;
        let detail = format!("key {key}");
        let subject = certificate.subject().to_string();
        transaction.note(change(factory, actor, "add-bootstrap-ca", subject, detail));
        transaction.change_snapshot();
        Ok(transaction.commit().await?)
    }

    /// Trusts a bootstrap CA no more; devices that came by it have certificates of their own.
    /// `false` if the Factory has none with that key.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn remove_bootstrap_ca(
        &self,
        factory: FactoryId,
        key: Fingerprint,
        actor: &str,
    ) -> Result<bool, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let delete = Statement::new(
            "DELETE FROM bootstrap_ca WHERE factory_id = $1 AND public_key_sha256 = $2 \
             RETURNING certificate",
        );
        let rows = transaction.change(delete.bind(factory.0).bind(key.as_bytes())).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let subject = self::certificate(row, "certificate")?.subject().to_string();
        let detail = format!("key {key}");
        transaction.note(change(factory, actor, "remove-bootstrap-ca", subject, detail));
        transaction.change_snapshot();
        transaction.commit().await?;
        Ok(true)
    }

    pub(super) async fn bootstrap_cas(&self) -> Result<Vec<BootstrapCa>, LedgerError> {
        let select =
            Statement::new("SELECT id, factory_id, certificate FROM bootstrap_ca ORDER BY id");
        self.database.rows(select).await?.iter().map(bootstrap_ca).collect()
    }
}

fn bootstrap_ca(row: &Row) -> Result<BootstrapCa, LedgerError> {
    Ok(BootstrapCa {
        id: BootstrapCaId(row.integer("id")?),
        factory: FactoryId(row.integer("factory_id")?),
        certificate: certificate(row, "certificate")?,
    })
}
