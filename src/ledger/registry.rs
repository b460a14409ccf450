//! The devices of a Factory as a fleet manager's tool sees them: by a name for people or by UUID,
//! page by page, without those that were denied.

use super::database::{Row, Statement};
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::{DeviceMetadata, DeviceName, FactoryId};
use crate::pki::Certificate;

/// A device that is not denied.
#[derive(Clone, Debug)]
pub struct RegisteredDevice {
    /// Its name: the common name of its subject.
    pub name: DeviceName,
    /// What people say of it.
    pub metadata: DeviceMetadata,
    /// When it was registered.
    pub registered_at: UnixTime,
    /// When it was last seen, to the minute.
    pub last_seen_at: Option<UnixTime>,
    /// The certificate in use, or else the latest that was issued to it.
    pub certificate: Option<Certificate>,
}

/// Some of the devices, and how many there are.
#[derive(Debug)]
pub struct RegistryPage {
    /// The devices of this page, by name.
    pub devices: Vec<RegisteredDevice>,
    /// How many the filter lets through.
    pub total: i64,
}

/// Which devices are wanted. Without anything: all.
#[derive(Clone, Debug, Default)]
pub struct DeviceFilter {
    /// The name for people, or the name where there is none; `*` and `%` stand for any text.
    pub name_like: Option<String>,
    /// The group.
    pub group: Option<String>,
    /// The name.
    pub uuid: Option<String>,
}

/// How a device is named.
#[derive(Clone, Copy, Debug)]
pub enum DeviceKey<'a> {
    /// By its name.
    Uuid(&'a str),
    /// By its name, or else by its name for people.
    Any(&'a str),
}

const COLUMNS: &str = "SELECT device.name, device.alias, device.device_group, device.hardware_id, \
     device.registered_at, device.last_seen_at, (SELECT certificate FROM credential \
     WHERE credential.device_id = device.id AND credential.state IN ('current', 'pending') \
     ORDER BY credential.state, credential.id DESC LIMIT 1) AS certificate FROM device ";

impl Ledger {
    /// Devices in the order of their names: `limit` at most, after leaving `skip` out.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn registered_devices(
        &self,
        factory: FactoryId,
        filter: &DeviceFilter,
        skip: i64,
        limit: i64,
    ) -> Result<RegistryPage, LedgerError> {
        let count = filter.wanted(Statement::new("SELECT COUNT(*) AS total FROM device "), factory);
        let total = self.database.rows(count).await?;
        let total = total.first().ok_or_else(|| LedgerError::corrupt("no count"))?;
        let select = filter.wanted(Statement::new(COLUMNS), factory);
        let select = select.then(" ORDER BY device.name LIMIT ").value(limit);
        let rows = self.database.rows(select.then(" OFFSET ").value(skip)).await?;
        Ok(RegistryPage {
            devices: rows.iter().map(device).collect::<Result<_, _>>()?,
            total: total.integer("total")?,
        })
    }

    /// One device; `None` if there is none of that name, or it is denied.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn registered_device(
        &self,
        factory: FactoryId,
        key: DeviceKey<'_>,
    ) -> Result<Option<RegisteredDevice>, LedgerError> {
        let (name, condition) = match key {
            DeviceKey::Uuid(name) => (name, "device.name = $2"),
            DeviceKey::Any(name) => (name, "(device.name = $2 OR device.alias = $2)"),
        };
        let select = Statement::new(COLUMNS)
            .then("WHERE device.factory_id = $1 AND device.denied_at IS NULL AND ")
            .then(condition)
            .then(" ORDER BY CASE device.name WHEN $2 THEN 0 ELSE 1 END LIMIT 1")
            .bind(factory.0)
            .bind(name);
        self.database.rows(select).await?.first().map(device).transpose()
    }
}

impl DeviceFilter {
    fn wanted(&self, select: Statement, factory: FactoryId) -> Statement {
        let mut select = select.then("WHERE device.factory_id = ").value(factory.0);
        select = select.then(" AND device.denied_at IS NULL");
        if let Some(name) = &self.name_like {
            let escaped = name.replace('\\', "\\\\").replace('_', "\\_").replace('*', "%");
            select = select
                .then(" AND LOWER(COALESCE(device.alias, device.name)) LIKE LOWER(")
                .value(escaped)
                .then(") ESCAPE '\\'");
        }
        if let Some(group) = &self.group {
            select = select.then(" AND device.device_group = ").value(group.as_str());
        }
        if let Some(uuid) = &self.uuid {
            select = select.then(" AND device.name = ").value(uuid.as_str());
        }
        select
    }
}

fn device(row: &Row) -> Result<RegisteredDevice, LedgerError> {
    let certificate = row.maybe_bytes("certificate")?;
    let certificate = certificate.map(|der| Certificate::from_der(&der)).transpose();
    Ok(RegisteredDevice {
        name: DeviceName::parse(&row.text("name")?).map_err(LedgerError::corrupt)?,
        metadata: DeviceMetadata {
            alias: row.maybe_text("alias")?,
            group: row.maybe_text("device_group")?,
            hardware_id: row.maybe_text("hardware_id")?,
        },
        registered_at: UnixTime(row.integer("registered_at")?),
        last_seen_at: row.maybe_integer("last_seen_at")?.map(UnixTime),
        certificate: certificate.map_err(LedgerError::corrupt)?,
    })
}
