//! Configuration files: what operators set, and what a device gets of it.

use std::collections::BTreeMap;

use super::change::change;
use super::database::{Row, Statement, Value};
use super::transaction::WriteTransaction;
use super::{ChangeError, ChangeRefused, Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::{ConfigFile, ConfigScope, DeviceName, FactoryId};

/// How long, in seconds, a device that has announced a key keeps its files from being changed: one
/// that gave up must not keep them for ever. A day.
const LOCK_SECONDS: i64 = 24 * 3600;

/// What a device gets.
#[derive(Debug, Default)]
pub struct DeviceConfig {
    /// By their names.
    pub files: BTreeMap<String, ConfigFile>,
    /// When something of it changed last.
    pub changed_at: Option<UnixTime>,
}

impl Ledger {
    /// Sets files of a scope; the others of it stay.
    ///
    /// # Errors
    /// When the device is switching to another key, for which it encrypts its own files anew, or the
    /// ledger fails.
    pub async fn set_config(
        &self,
        factory: FactoryId,
        scope: &ConfigScope,
        files: &[ConfigFile],
        actor: &str,
        reason: &str,
    ) -> Result<(), ChangeError> {
        let done = self.try_set_config(factory, scope, files, actor, reason).await;
        let subject = subject(scope);
        self.recorded(done, Some(factory), actor, "set-config", subject).await
    }

    async fn try_set_config(
        &self,
        factory: FactoryId,
        scope: &ConfigScope,
        files: &[ConfigFile],
        actor: &str,
        reason: &str,
    ) -> Result<(), ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        check_lock(&mut transaction, factory, scope).await?;
        for file in files {
            write(&mut transaction, factory, scope, file).await?;
        }
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        let detail = format!("{}; {reason}", names.join(", "));
        transaction.note(change(factory, actor, "set-config", subject(scope), detail));
        Ok(transaction.commit().await?)
    }

    /// Removes a file of a scope. `false` if there is none.
    ///
    /// # Errors
    /// As [`Self::set_config`].
    pub async fn remove_config(
        &self,
        factory: FactoryId,
        scope: &ConfigScope,
        name: &str,
        actor: &str,
    ) -> Result<bool, ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        check_lock(&mut transaction, factory, scope).await?;
        let update = Statement::new(
            "UPDATE config_file SET value = NULL, changed_at = $1 WHERE factory_id = $2 \
             AND scope = $3 AND owner = $4 AND name = $5 AND value IS NOT NULL",
        )
        .bind(UnixTime::now().0)
        .bind(factory.0)
        .bind(scope.as_str())
        .bind(scope.owner())
        .bind(name);
        if transaction.execute(update).await? == 0 {
            return Ok(false);
        }
        let detail = name.to_owned();
        transaction.note(change(factory, actor, "remove-config", subject(scope), detail));
        transaction.commit().await?;
        Ok(true)
    }

    /// The files of a scope, by name.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn config(
        &self,
        factory: FactoryId,
        scope: &ConfigScope,
    ) -> Result<Vec<ConfigFile>, LedgerError> {
        let select = Statement::new(
            "SELECT name, value, on_changed, unencrypted FROM config_file WHERE factory_id = $1 \
             AND scope = $2 AND owner = $3 AND value IS NOT NULL ORDER BY name",
        )
        .bind(factory.0)
        .bind(scope.as_str())
        .bind(scope.owner());
        self.database.rows(select).await?.iter().map(file).collect()
    }

    /// The files that a device gets: the Factory's, those of its group over them, its own over those.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn config_of_device(
        &self,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<DeviceConfig, LedgerError> {
        let select = Statement::new(
            "SELECT config_file.name, config_file.value, config_file.on_changed, \
             config_file.unencrypted, config_file.changed_at FROM config_file \
             JOIN device ON device.factory_id = config_file.factory_id \
             WHERE device.factory_id = $1 AND device.name = $2 AND (config_file.scope = 'factory' \
             OR (config_file.scope = 'group' AND config_file.owner = device.device_group) \
             OR (config_file.scope = 'device' AND config_file.owner = device.name)) \
             ORDER BY CASE config_file.scope WHEN 'factory' THEN 0 WHEN 'group' THEN 1 ELSE 2 END",
        );
        let select = select.bind(factory.0).bind(device.as_str());
        let mut config = DeviceConfig::default();
        for row in self.database.rows(select).await? {
            let changed_at = UnixTime(row.integer("changed_at")?);
            config.changed_at = config.changed_at.max(Some(changed_at));
            if row.maybe_text("value")?.is_some() {
                config.files.insert(row.text("name")?, file(&row)?);
            }
        }
        Ok(config)
    }

    /// A device gives its own files back, encrypted for the key that it has announced. `false` if it
    /// has announced none.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn return_config(
        &self,
        factory: FactoryId,
        device: &DeviceName,
        files: &[ConfigFile],
    ) -> Result<bool, LedgerError> {
        let scope = ConfigScope::Device(device.clone());
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        if !is_switching(&mut transaction, factory, device).await? {
            return Ok(false);
        }
        for file in files {
            write(&mut transaction, factory, &scope, file).await?;
        }
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        let (name, detail) = (device.to_string(), names.join(", "));
        transaction.note(change(factory, device.as_str(), "return-config", name, detail));
        transaction.commit().await?;
        Ok(true)
    }
}

fn subject(scope: &ConfigScope) -> String {
    match scope {
        ConfigScope::Factory => "all devices".to_owned(),
        ConfigScope::Group(group) => format!("group {group}"),
        ConfigScope::Device(device) => device.to_string(),
    }
}

async fn check_lock(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    scope: &ConfigScope,
) -> Result<(), ChangeError> {
    match scope {
        ConfigScope::Device(device) if is_switching(transaction, factory, device).await? => {
            Err(ChangeRefused::DeviceSwitching.into())
        }
        _ => Ok(()),
    }
}

async fn is_switching(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    device: &DeviceName,
) -> Result<bool, LedgerError> {
    let select = Statement::new(
        "SELECT id FROM device WHERE factory_id = $1 AND name = $2 AND next_key IS NOT NULL \
         AND next_key_at > $3",
    )
    .bind(factory.0)
    .bind(device.as_str())
    .bind(UnixTime::now().0 - LOCK_SECONDS);
    Ok(!transaction.rows(select).await?.is_empty())
}

async fn write(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    scope: &ConfigScope,
    file: &ConfigFile,
) -> Result<(), LedgerError> {
    let on_changed = serde_json::to_string(&file.on_changed).map_err(LedgerError::corrupt)?;
    let insert = Statement::new(
        "INSERT INTO config_file (factory_id, scope, owner, name, value, on_changed, unencrypted, \
         changed_at) VALUES ",
    )
    .tuple([
        factory.0.into(),
        scope.as_str().into(),
        scope.owner().into(),
        file.name.as_str().into(),
        Value::from(file.value.as_str()),
        on_changed.into(),
        i64::from(file.unencrypted).into(),
        UnixTime::now().0.into(),
    ])
    .then(
        " ON CONFLICT (factory_id, scope, owner, name) DO UPDATE SET value = excluded.value, \
         on_changed = excluded.on_changed, unencrypted = excluded.unencrypted, \
         changed_at = excluded.changed_at",
    );
    transaction.execute(insert).await?;
    Ok(())
}

fn file(row: &Row) -> Result<ConfigFile, LedgerError> {
    Ok(ConfigFile {
        name: row.text("name")?,
        value: row.text("value")?,
        unencrypted: row.integer("unencrypted")? != 0,
        on_changed: serde_json::from_str(&row.text("on_changed")?).map_err(LedgerError::corrupt)?,
    })
}
