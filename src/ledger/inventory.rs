//! The inventory: which devices there are, by the certificates that they use.

use std::collections::HashMap;

use serde::Serialize;

use super::database::{Row, Statement};
use super::devices::CaName;
use super::factories::certificate;
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::{DeviceCaId, FactoryId};
use crate::pki::{Certificate, Serial};

/// How many credentials of before are filled in within one transaction.
const CHUNK: i64 = 1000;

/// How many certificates of one serial number are looked at.
const SAME_SERIAL: i64 = 16;

/// A page of devices, by name.
#[derive(Debug, Serialize)]
pub struct DevicePage {
    /// The devices.
    pub devices: Vec<DeviceSummary>,
    /// What to ask for after this page; absent on the last.
    pub next: Option<String>,
}

/// A device in a list.
#[derive(Debug, Serialize)]
pub struct DeviceSummary {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub alias: Option<String>,
    /// The group that it is in.
    pub group: Option<String>,
    /// Whether an operator has denied it.
    pub denied: bool,
    /// When it was first seen, or enrolled by a registration authority.
    pub registered_at: UnixTime,
    /// When it was last seen, to the minute.
    pub last_seen_at: Option<UnixTime>,
    /// The Device CA of its current credential: the subject of its certificate.
    pub device_ca: Option<String>,
    /// The serial number of that Device CA's certificate.
    pub device_ca_serial: Option<String>,
    /// What kind of key its current credential has.
    pub key_algorithm: Option<String>,
    /// When its current credential ends.
    pub expires_at: Option<UnixTime>,
    /// How many certificates were issued to it that it has not used yet.
    pub pending: i64,
}

/// Which devices are wanted, by the credential in use. Without anything: all.
#[derive(Clone, Debug, Default)]
pub struct InventoryFilter {
    /// Of this Device CA.
    pub device_ca: Option<DeviceCaId>,
    /// Ending before this.
    pub expires_before: Option<UnixTime>,
    /// With a key of this kind, as [`DeviceSummary::key_algorithm`] says it.
    pub key_algorithm: Option<String>,
    /// Of devices that were not seen since.
    pub silent_since: Option<UnixTime>,
    /// Of devices in this group.
    pub group: Option<String>,
    /// Of devices that were issued a certificate that they have not used yet.
    pub pending: bool,
}

impl Ledger {
    /// Devices of a Factory in the order of their names, `limit` at most, those after `after`.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn devices(
        &self,
        factory: FactoryId,
        filter: &InventoryFilter,
        after: &str,
        limit: u32,
    ) -> Result<DevicePage, LedgerError> {
        let select = Statement::new(
            "SELECT device.name, device.alias, device.device_group, device.denied_at, \
             device.registered_at, device.last_seen_at, current.device_ca_id, current.not_after, \
             current.key_algorithm, \
             (SELECT COUNT(*) FROM credential pending WHERE pending.device_id = device.id \
              AND pending.state = 'pending') AS pending \
             FROM device LEFT JOIN credential current \
             ON current.device_id = device.id AND current.state = 'current' \
             WHERE device.factory_id = ",
        );
        let select = select.value(factory.0).then(" AND device.name > ").value(after);
        let select = filter.narrow(select).then(" ORDER BY device.name LIMIT ");
        let names = self.ca_names(factory).await?;
        let rows = self.database.rows(select.value(i64::from(limit))).await?;
        let devices: Vec<_> =
            rows.iter().map(|row| summary(row, &names)).collect::<Result<_, _>>()?;
        let full = devices.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let next = devices.last().filter(|_| full).map(|last| last.name.clone());
        Ok(DevicePage { devices, next })
    }

    /// The certificates of current and pending credentials with this serial number: each Device CA
    /// may have given it to one.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn accepted_by_serial(
        &self,
        factory: FactoryId,
        serial: &Serial,
    ) -> Result<Vec<Certificate>, LedgerError> {
        let select = Statement::new(
            "SELECT credential.certificate FROM credential \
             JOIN device ON device.id = credential.device_id \
             WHERE credential.serial = $1 AND credential.state IN ('current', 'pending') \
             AND device.factory_id = $2 ORDER BY credential.id DESC LIMIT $3",
        )
        .bind(serial.contents())
        .bind(factory.0)
        .bind(SAME_SERIAL);
        let rows = self.database.rows(select).await?;
        rows.iter().map(|row| certificate(row, "certificate")).collect()
    }

    /// Reads the certificates of credentials that were recorded before the inventory was kept.
    pub(super) async fn fill_in_inventory(&self) -> Result<(), LedgerError> {
        loop {
            let mut transaction = WriteTransaction::begin(&self.database).await?;
            let select = Statement::new(
                "SELECT id, certificate FROM credential WHERE key_algorithm IS NULL \
                 ORDER BY id LIMIT $1",
            );
            let rows = transaction.rows(select.bind(CHUNK)).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in &rows {
                let certificate = certificate(row, "certificate")?;
                let update = Statement::new(
                    "UPDATE credential SET key_algorithm = $1, not_after = $2, serial = $3 \
                     WHERE id = $4",
                )
                .bind(certificate.public_key().algorithm().to_string())
                .bind(certificate.validity().not_after.0)
                .bind(certificate.serial().contents())
                .bind(row.integer("id")?);
                transaction.execute(update).await?;
            }
            transaction.commit().await?;
        }
    }
}

impl InventoryFilter {
    fn narrow(&self, mut select: Statement) -> Statement {
        if let Some(device_ca) = self.device_ca {
            select = select.then(" AND current.device_ca_id = ").value(device_ca.0);
        }
        if let Some(before) = self.expires_before {
            select = select.then(" AND current.not_after < ").value(before.0);
        }
        if let Some(algorithm) = &self.key_algorithm {
            select = select.then(" AND current.key_algorithm = ").value(algorithm.as_str());
        }
        if let Some(since) = self.silent_since {
            select = select.then(" AND COALESCE(device.last_seen_at, 0) < ").value(since.0);
        }
        if let Some(group) = &self.group {
            select = select.then(" AND device.device_group = ").value(group.as_str());
        }
        if self.pending {
            select = select.then(
                " AND EXISTS (SELECT 1 FROM credential given WHERE given.device_id = device.id \
                 AND given.state = 'pending')",
            );
        }
        select
    }
}

fn summary(row: &Row, names: &HashMap<i64, CaName>) -> Result<DeviceSummary, LedgerError> {
    let ca = row.maybe_integer("device_ca_id")?.and_then(|id| names.get(&id));
    Ok(DeviceSummary {
        name: row.text("name")?,
        alias: row.maybe_text("alias")?,
        group: row.maybe_text("device_group")?,
        denied: row.maybe_integer("denied_at")?.is_some(),
        registered_at: UnixTime(row.integer("registered_at")?),
        last_seen_at: row.maybe_integer("last_seen_at")?.map(UnixTime),
        device_ca: ca.map(|ca| ca.subject.clone()),
        device_ca_serial: ca.map(|ca| ca.serial.clone()),
        key_algorithm: row.maybe_text("key_algorithm")?,
        expires_at: row.maybe_integer("not_after")?.map(UnixTime),
        pending: row.integer("pending")?,
    })
}
