//! The story of one device, and what an operator says to it.

use std::collections::HashMap;

use serde::Serialize;

use super::change::change;
use super::database::{Row, Statement, Value};
use super::factories::certificate;
use super::facts::maybe_fingerprint;
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError, RotationOfDevice};
use crate::clock::UnixTime;
use crate::model::{Allowance, CredentialState, DeviceEvent, DeviceName, FactoryId};

/// A device with all of its credentials.
#[derive(Debug, Serialize)]
pub struct DeviceStory {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub alias: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// What kind of hardware it is.
    pub hardware_id: Option<String>,
    /// When it was registered.
    pub registered_at: UnixTime,
    /// When it was last seen, to the minute.
    pub last_seen_at: Option<UnixTime>,
    /// When an operator denied it, if it is denied.
    pub denied_at: Option<UnixTime>,
    /// Whether it may come back once with a credential that would be refused.
    pub allowed_once: bool,
    /// SHA-256 of the one certificate that it may come back with; absent: any.
    pub allowed_certificate: Option<String>,
    /// SHA-256 of the key that it has said it will use next, until it is seen using it.
    pub next_key: Option<String>,
    /// Its credentials, oldest first.
    pub credentials: Vec<CredentialStory>,
    /// The rotations that it is or was in, the latest first.
    pub rotations: Vec<RotationOfDevice>,
    /// What it has said of their steps, oldest first.
    pub events: Vec<DeviceEvent>,
}

/// A credential of a device.
#[derive(Debug, Serialize)]
pub struct CredentialStory {
    /// `pending`, `current`, `superseded` or `denied`.
    pub state: String,
    /// SHA-256 of the certificate.
    pub sha256: String,
    /// SHA-256 of its public key.
    pub public_key_sha256: String,
    /// Its serial number.
    pub serial: String,
    /// What kind of key it has.
    pub key_algorithm: String,
    /// The subject of its Device CA.
    pub device_ca: String,
    /// The serial number of that Device CA's certificate.
    pub device_ca_serial: String,
    /// The first moment of its validity.
    pub not_before: UnixTime,
    /// The last.
    pub not_after: UnixTime,
    /// The operation that issued it here; absent if it was issued elsewhere.
    pub issued_by: Option<String>,
    /// When it was issued here, or first seen.
    pub recorded_at: UnixTime,
    /// When it was first used in a TLS session.
    pub first_used_at: Option<UnixTime>,
}

/// A Device CA's subject and serial number, for people.
pub(super) struct CaName {
    pub(super) subject: String,
    pub(super) serial: String,
}

impl Ledger {
    /// One device with all of its credentials; `None` if there is no such device.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn device(
        &self,
        factory: FactoryId,
        name: &DeviceName,
    ) -> Result<Option<DeviceStory>, LedgerError> {
        let select = Statement::new(
            "SELECT id, name, alias, device_group, hardware_id, registered_at, last_seen_at, \
             denied_at, allowed_once, allowed_sha256, next_key FROM device WHERE factory_id = $1 AND name = $2",
        );
        let rows = self.database.rows(select.bind(factory.0).bind(name.as_str())).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let select = Statement::new(
            "SELECT credential.state, credential.sha256, credential.public_key_sha256, \
             credential.device_ca_id, credential.certificate, credential.recorded_at, \
             credential.first_used_at, enrolment.operation \
             FROM credential LEFT JOIN enrolment ON enrolment.credential_id = credential.id \
             WHERE credential.device_id = $1 ORDER BY credential.id",
        );
        let names = self.ca_names(factory).await?;
        let credentials = self.database.rows(select.bind(row.integer("id")?)).await?;
        Ok(Some(DeviceStory {
            name: row.text("name")?,
            alias: row.maybe_text("alias")?,
            group: row.maybe_text("device_group")?,
            hardware_id: row.maybe_text("hardware_id")?,
            registered_at: UnixTime(row.integer("registered_at")?),
            last_seen_at: row.maybe_integer("last_seen_at")?.map(UnixTime),
            denied_at: row.maybe_integer("denied_at")?.map(UnixTime),
            allowed_once: row.integer("allowed_once")? != 0,
            allowed_certificate: maybe_fingerprint(row, "allowed_sha256")?
                .map(|one| one.to_string()),
            next_key: maybe_fingerprint(row, "next_key")?.map(|one| one.to_string()),
            credentials: credentials
                .iter()
                .map(|row| credential_story(row, &names))
                .collect::<Result<_, _>>()?,
            rotations: self.rotations_of_device(row.integer("id")?).await?,
            events: self.events_of_device(row.integer("id")?).await?,
        }))
    }

    /// Lets a device come back once with a credential that rules I6 and I7 would refuse, or with
    /// `None` withdraws that. `false` if there is no such device.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn allow_device(
        &self,
        factory: FactoryId,
        name: &DeviceName,
        allowance: Option<Allowance>,
        actor: &str,
    ) -> Result<bool, LedgerError> {
        let one = match allowance {
            Some(Allowance::Certificate(one)) => Some(one.as_bytes().to_vec()),
            Some(Allowance::Any) | None => None,
        };
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let update = Statement::new(
            "UPDATE device SET allowed_once = $1, allowed_sha256 = $2 \
             WHERE factory_id = $3 AND name = $4",
        )
        .bind(i64::from(allowance.is_some()))
        .bind(Value::Bytes(one))
        .bind(factory.0)
        .bind(name.as_str());
        if transaction.execute(update).await? == 0 {
            return Ok(false);
        }
        let (action, detail) = match allowance {
            None => ("withdraw-allowance", String::new()),
            Some(Allowance::Any) => ("allow-device", "once, with any certificate".to_owned()),
            Some(Allowance::Certificate(one)) => {
                ("allow-device", format!("once, with certificate {one}"))
            }
        };
        transaction.note(change(factory, actor, action, name.to_string(), detail));
        transaction.commit().await?;
        Ok(true)
    }

    /// Denies a device with every credential that it has, and frees its name for people. One that
    /// is denied already stays so, which is not on record again. `false` if there is no such device.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn deny_device(
        &self,
        factory: FactoryId,
        name: &DeviceName,
        actor: &str,
    ) -> Result<bool, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let select = Statement::new(
            "SELECT id, alias, denied_at FROM device WHERE factory_id = $1 AND name = $2",
        );
        let rows = transaction.rows(select.bind(factory.0).bind(name.as_str())).await?;
        let Some(device) = rows.first() else {
            return Ok(false);
        };
        if device.maybe_integer("denied_at")?.is_some() {
            return Ok(true);
        }
        let (id, now) = (device.integer("id")?, UnixTime::now().0);
        let denied = CredentialState::Denied.as_str();
        let update = Statement::new(
            "UPDATE credential SET state = $1, state_since = $2 \
             WHERE device_id = $3 AND state <> $1",
        );
        let credentials = transaction.execute(update.bind(denied).bind(now).bind(id)).await?;
        let update = Statement::new(
            "UPDATE device SET denied_at = $1, allowed_once = 0, allowed_sha256 = NULL, \
             alias = NULL WHERE id = $2",
        );
        transaction.execute(update.bind(now).bind(id)).await?;
        let alias = device.maybe_text("alias")?.map(|alias| format!("called {alias:?}, "));
        let detail = format!("{}credentials denied: {credentials}", alias.unwrap_or_default());
        transaction.note(change(factory, actor, "deny-device", name.to_string(), detail));
        transaction.commit().await?;
        Ok(true)
    }

    pub(super) async fn ca_names(
        &self,
        factory: FactoryId,
    ) -> Result<HashMap<i64, CaName>, LedgerError> {
        let select = Statement::new("SELECT id, certificate FROM device_ca WHERE factory_id = $1");
        let rows = self.database.rows(select.bind(Value::from(factory.0))).await?;
        rows.iter()
            .map(|row| {
                let ca = certificate(row, "certificate")?;
                let name =
                    CaName { subject: ca.subject().to_string(), serial: ca.serial().to_string() };
                Ok((row.integer("id")?, name))
            })
            .collect()
    }
}

fn credential_story(
    row: &Row,
    names: &HashMap<i64, CaName>,
) -> Result<CredentialStory, LedgerError> {
    let certificate = certificate(row, "certificate")?;
    let ca = names
        .get(&row.integer("device_ca_id")?)
        .ok_or_else(|| LedgerError::corrupt("a credential of another Factory's Device CA"))?;
    Ok(CredentialStory {
        state: row.text("state")?,
        sha256: certificate.fingerprint().to_string(),
        public_key_sha256: certificate.public_key().fingerprint().to_string(),
        serial: certificate.serial().to_string(),
        key_algorithm: certificate.public_key().algorithm().to_string(),
        device_ca: ca.subject.clone(),
        device_ca_serial: ca.serial.clone(),
        not_before: certificate.validity().not_before,
        not_after: certificate.validity().not_after,
        issued_by: row.maybe_text("operation")?,
        recorded_at: UnixTime(row.integer("recorded_at")?),
        first_used_at: row.maybe_integer("first_used_at")?.map(UnixTime),
    })
}
