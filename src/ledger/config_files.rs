//! Configuration files: what operators set, and what a device gets of it.

use std::collections::BTreeMap;

use super::change::change;
use super::database::{Row, Statement, Value};
use super::transaction::WriteTransaction;
use super::{ChangeError, ChangeRefused, Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::audit::{Entry, Outcome};
use crate::model::{ConfigFile, ConfigScope, DeviceName, FactoryId, Refusal};

/// How long, in seconds, a device that has announced a key keeps its files from being changed: one
/// that gave up must not keep them for ever. A day.
const LOCK_SECONDS: i64 = 24 * 3600;
/// The same of files that are encrypted, for a key that it may give up at its next start: with one that
/// it cannot read it takes none at all. Thirty days.
const ENCRYPTED_LOCK_SECONDS: i64 = 30 * LOCK_SECONDS;

/// What a device does that gives its files back, in the audit log.
const RETURN: &str = "return-config";

/// The files of a device: the Factory's, those of its group, its own, in this order.
const OF_DEVICE: &str = "FROM config_file JOIN device ON device.factory_id = config_file.factory_id \
     WHERE device.factory_id = $1 AND device.name = $2 AND (config_file.scope = 'factory' \
     OR (config_file.scope = 'group' AND config_file.owner = device.device_group) \
     OR (config_file.scope = 'device' AND config_file.owner = device.name)) ";

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
        let encrypted = files.iter().any(|file| !file.unencrypted);
        let lock = if encrypted { ENCRYPTED_LOCK_SECONDS } else { LOCK_SECONDS };
        check_lock(&mut transaction, factory, scope, lock).await?;
        for file in files {
            write(&mut transaction, factory, scope, file).await?;
        }
        check_size(&mut transaction, factory, scope).await?;
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
        let done = self.try_remove_config(factory, scope, name, actor).await;
        let subject = subject(scope);
        self.recorded(done, Some(factory), actor, "remove-config", subject).await
    }

    async fn try_remove_config(
        &self,
        factory: FactoryId,
        scope: &ConfigScope,
        name: &str,
        actor: &str,
    ) -> Result<bool, ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        check_lock(&mut transaction, factory, scope, LOCK_SECONDS).await?;
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

    /// When the files that a device gets changed last; `None` if there never was one.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn config_changed_at(
        &self,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<Option<UnixTime>, LedgerError> {
        let select =
            Statement::new("SELECT MAX(config_file.changed_at) AS latest ").then(OF_DEVICE);
        let rows = self.database.rows(select.bind(factory.0).bind(device.as_str())).await?;
        let latest = rows.first().map(|row| row.maybe_integer("latest")).transpose()?;
        Ok(latest.flatten().map(UnixTime))
    }

    /// The files that a device gets, by name: the Factory's, those of its group over them, its own
    /// over those.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn config_of_device(
        &self,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<BTreeMap<String, ConfigFile>, LedgerError> {
        let select = Statement::new(
            "SELECT config_file.name, config_file.value, config_file.on_changed, \
             config_file.unencrypted ",
        );
        let order = "AND config_file.value IS NOT NULL \
             ORDER BY CASE config_file.scope WHEN 'factory' THEN 0 WHEN 'group' THEN 1 ELSE 2 END";
        let select = select.then(OF_DEVICE).then(order).bind(factory.0).bind(device.as_str());
        let rows = self.database.rows(select).await?;
        rows.iter().map(|row| Ok((row.text("name")?, file(row)?))).collect()
    }

    /// A device gives its own files back, encrypted for the key that it has announced, however long
    /// ago: it does so once it has begun to switch. What is no encrypted file of its own is left
    /// alone. `false` if it has announced no key.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn return_config(
        &self,
        factory: FactoryId,
        device: &DeviceName,
        files: &[ConfigFile],
    ) -> Result<bool, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        if !has_announced(&mut transaction, factory, device, UnixTime(0)).await? {
            let entry = refused(factory, device, &Refusal::NoNextKey);
            let mut repeats = self.repeats.draft();
            if repeats.admits(&entry, None) {
                transaction.note(entry);
            }
            transaction.commit().await?;
            repeats.commit();
            return Ok(false);
        }
        let mut names = Vec::new();
        for file in files {
            if take_back(&mut transaction, factory, device, file).await? {
                names.push(file.name.as_str());
            }
        }
        if !names.is_empty() {
            let (name, detail) = (device.to_string(), names.join(", "));
            transaction.note(change(factory, device.as_str(), RETURN, name, detail));
        }
        transaction.commit().await?;
        Ok(true)
    }
}

fn refused(factory: FactoryId, device: &DeviceName, why: &Refusal) -> Entry {
    let entry = change(factory, device.as_str(), RETURN, device.to_string(), why.to_string());
    Entry { outcome: Outcome::Refused, code: why.code().to_owned(), ..entry }
}

fn subject(scope: &ConfigScope) -> String {
    match scope {
        ConfigScope::Factory => "all devices".to_owned(),
        ConfigScope::Group(group) => format!("group {group}"),
        ConfigScope::Device(device) => device.to_string(),
    }
}

/// A device that has announced its next key encrypts its own files anew meanwhile.
async fn check_lock(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    scope: &ConfigScope,
    seconds: i64,
) -> Result<(), ChangeError> {
    let ConfigScope::Device(device) = scope else { return Ok(()) };
    let since = UnixTime::now().plus(-seconds);
    if has_announced(transaction, factory, device, since).await? {
        return Err(ChangeRefused::DeviceSwitching.into());
    }
    Ok(())
}

/// A device must be able to give back at once all that it has; and everybody gets those of the Factory.
async fn check_size(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    scope: &ConfigScope,
) -> Result<(), ChangeError> {
    let select = Statement::new(
        "SELECT COUNT(*) AS files, CAST(COALESCE(SUM(OCTET_LENGTH(name) + OCTET_LENGTH(value) + \
         OCTET_LENGTH(on_changed)), 0) AS BIGINT) AS size FROM config_file \
         WHERE factory_id = $1 AND scope = $2 AND owner = $3 AND value IS NOT NULL",
    );
    let select = select.bind(factory.0).bind(scope.as_str()).bind(scope.owner());
    let rows = transaction.rows(select).await?;
    let row = rows.first().ok_or_else(|| LedgerError::corrupt("no count"))?;
    if row.integer("files")? > ConfigScope::FILES_LIMIT || row.integer("size")? > scope.size_limit()
    {
        let (files, kib) = (ConfigScope::FILES_LIMIT, scope.size_limit() / 1024);
        return Err(ChangeRefused::TooMuchConfig { files, kib }.into());
    }
    Ok(())
}

async fn has_announced(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    device: &DeviceName,
    since: UnixTime,
) -> Result<bool, LedgerError> {
    let select = Statement::new(
        "SELECT id FROM device WHERE factory_id = $1 AND name = $2 AND next_key IS NOT NULL \
         AND next_key_at > $3",
    );
    let select = select.bind(factory.0).bind(device.as_str()).bind(since.0);
    Ok(!transaction.rows(select).await?.is_empty())
}

async fn take_back(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    device: &DeviceName,
    file: &ConfigFile,
) -> Result<bool, LedgerError> {
    let update = Statement::new(
        "UPDATE config_file SET value = $1, changed_at = $2 WHERE factory_id = $3 \
         AND scope = 'device' AND owner = $4 AND name = $5 AND unencrypted = 0 AND value <> $1",
    )
    .bind(file.value.as_str())
    .bind(UnixTime::now().0)
    .bind(factory.0)
    .bind(device.as_str())
    .bind(file.name.as_str());
    Ok(transaction.execute(update).await? > 0)
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
