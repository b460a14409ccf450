//! Device CAs: how they come, how their state changes, and who depends on them (I8).

use serde::Serialize;

use super::change::change;
use super::database::{Row, Statement};
use super::factories::certificate;
use super::private_keys::take_pending_key;
use super::transaction::WriteTransaction;
use super::{ChangeError, ChangeRefused, Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::{DeviceCa, DeviceCaAct, DeviceCaId, DeviceCaKind, DeviceCaState, FactoryId};
use crate::pki::Certificate;

/// How many dependent devices a refusal names.
const NAMED_DEVICES: u32 = 20;
/// A device that was not seen for this long is called silent, in seconds: 30 days.
const SILENT_SECONDS: i64 = 30 * 24 * 3600;

/// An act upon a Device CA.
#[derive(Clone, Debug)]
pub struct DeviceCaChange {
    /// Which one.
    pub device_ca: DeviceCaId,
    /// What is done.
    pub act: DeviceCaAct,
    /// Of how many devices the operator says that revoking may strand them.
    pub strand: u64,
    /// What else the audit log should know.
    pub detail: String,
}

/// Who depends on a Device CA: a device with a current credential under it, or with a pending one,
/// which it may have installed unseen.
#[derive(Debug, Serialize)]
pub struct Dependents {
    /// How many devices there are.
    pub count: i64,
    /// How many of them were not seen for 30 days.
    pub silent: i64,
    /// To how many of them a certificate of another Device CA was issued that they have not used.
    pub unconfirmed: i64,
    /// Some of them, in the order of their registration.
    pub devices: Vec<Dependent>,
    /// What to ask for after these; absent on the last page.
    pub next: Option<i64>,
}

/// A device that depends on a Device CA.
#[derive(Debug, Serialize)]
pub struct Dependent {
    /// Its name.
    pub name: String,
    /// Whether the credential that it was last seen with is of this Device CA; otherwise one that
    /// it may have installed since.
    pub current: bool,
    /// Whether a certificate of another Device CA was issued to it that it has not used.
    pub unconfirmed: bool,
    /// When it was last seen, to the minute.
    pub last_seen_at: Option<UnixTime>,
    /// When its last credential under this Device CA ends.
    pub expires_at: Option<UnixTime>,
}

impl Ledger {
    /// Who depends on a Device CA, `limit` devices at most, those after `after`.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn dependents(
        &self,
        device_ca: DeviceCaId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Dependents, LedgerError> {
        let counts = Statement::new(
            "SELECT COUNT(*) AS count, \
             CAST(COALESCE(SUM(silent), 0) AS BIGINT) AS silent, \
             CAST(COALESCE(SUM(unconfirmed), 0) AS BIGINT) AS unconfirmed FROM (SELECT \
             CASE WHEN COALESCE(device.last_seen_at, 0) < $2 THEN 1 ELSE 0 END AS silent, \
             CASE WHEN EXISTS (SELECT 1 FROM credential other WHERE other.device_id = device.id \
             AND other.state = 'pending' AND other.device_ca_id <> $1) THEN 1 ELSE 0 END \
             AS unconfirmed \
             FROM device WHERE device.id IN (SELECT device_id FROM credential \
             WHERE device_ca_id = $1 AND state IN ('current', 'pending'))) AS dependents",
        )
        .bind(device_ca.0)
        .bind(UnixTime::now().0 - SILENT_SECONDS);
        let counts = self.database.rows(counts).await?;
        let counts = counts.first().ok_or_else(|| LedgerError::corrupt("no count"))?;
        let rows = self.database.rows(page(device_ca, after.unwrap_or(0), limit)).await?;
        let full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let last = rows.last().filter(|_| full);
        Ok(Dependents {
            count: counts.integer("count")?,
            silent: counts.integer("silent")?,
            unconfirmed: counts.integer("unconfirmed")?,
            devices: rows.iter().map(dependent).collect::<Result<_, _>>()?,
            next: last.map(|row| row.integer("id")).transpose()?,
        })
    }
}

fn page(device_ca: DeviceCaId, after: i64, limit: u32) -> Statement {
    Statement::new(
        "SELECT device.id, device.name, device.last_seen_at, held.current, held.expires_at, \
         CAST(CASE WHEN EXISTS (SELECT 1 FROM credential other \
         WHERE other.device_id = device.id AND other.state = 'pending' \
         AND other.device_ca_id <> $1) THEN 1 ELSE 0 END AS BIGINT) AS unconfirmed \
         FROM (SELECT device_id, MAX(not_after) AS expires_at, \
         CAST(MAX(CASE state WHEN 'current' THEN 1 ELSE 0 END) AS BIGINT) AS current \
         FROM credential WHERE device_ca_id = $1 AND state IN ('current', 'pending') \
         AND device_id > $2 GROUP BY device_id ORDER BY device_id LIMIT $3) AS held \
         JOIN device ON device.id = held.device_id ORDER BY device.id",
    )
    .bind(device_ca.0)
    .bind(after)
    .bind(i64::from(limit))
}

fn dependent(row: &Row) -> Result<Dependent, LedgerError> {
    Ok(Dependent {
        name: row.text("name")?,
        current: row.integer("current")? != 0,
        unconfirmed: row.integer("unconfirmed")? != 0,
        last_seen_at: row.maybe_integer("last_seen_at")?.map(UnixTime),
        expires_at: row.maybe_integer("expires_at")?.map(UnixTime),
    })
}

/// Adds a Device CA, enabled. It is known by its key, and told by its serial number.
pub(super) async fn add(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    kind: DeviceCaKind,
    certificate: &Certificate,
) -> Result<(), ChangeError> {
    let key = certificate.public_key().fingerprint();
    let bootstrap = Statement::new("SELECT id FROM bootstrap_ca WHERE public_key_sha256 = $1");
    if !transaction.rows(bootstrap.bind(key.as_bytes())).await?.is_empty() {
        return Err(ChangeRefused::BootstrapCaKnown(certificate.subject().to_string()).into());
    }
    let known = Statement::new(
        "SELECT factory_id, state, public_key_sha256, certificate FROM device_ca \
         WHERE public_key_sha256 = $1 OR factory_id = $2",
    );
    for row in transaction.rows(known.bind(key.as_bytes()).bind(factory.0)).await? {
        let subject = certificate.subject().to_string();
        if row.bytes("public_key_sha256")? == key.as_bytes() {
            let revoked = row.integer("factory_id")? == factory.0
                && row.text("state")? == DeviceCaState::Revoked.as_str();
            let refused = if revoked {
                ChangeRefused::DeviceCaRevoked(subject)
            } else {
                ChangeRefused::DeviceCaKnown(subject)
            };
            return Err(refused.into());
        }
        if self::certificate(&row, "certificate")?.serial() == certificate.serial() {
            return Err(ChangeRefused::SerialTaken(certificate.serial().to_string()).into());
        }
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

/// Acts upon a Device CA. What is so already changes nothing and is not on record.
///
/// # Errors
/// When its state forbids the act, or it would be revoked while other devices depend on it than the
/// operator says (I8): judged here, where nobody else writes.
pub(super) async fn act(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    asked: &DeviceCaChange,
    actor: &str,
) -> Result<(), ChangeError> {
    let select = Statement::new(
        "SELECT id, factory_id, kind, state, certificate FROM device_ca \
         WHERE id = $1 AND factory_id = $2",
    );
    let rows = transaction.rows(select.bind(asked.device_ca.0).bind(factory.0)).await?;
    let ca = rows.first().map(device_ca).transpose()?.ok_or(ChangeRefused::NoSuchDeviceCa)?;
    let serial = ca.certificate.serial().to_string();
    let after = ca.state.after(asked.act).map_err(|why| ChangeRefused::State {
        device_ca: ca.certificate.subject().to_string(),
        serial: serial.clone(),
        why,
    })?;
    if after == ca.state {
        return Ok(());
    }
    let mut detail = asked.detail.clone();
    if asked.act == DeviceCaAct::Revoke {
        let (count, named) = stranded(transaction, ca.id).await?;
        if count != asked.strand {
            let (strand, devices) = (asked.strand, named);
            return Err(ChangeRefused::StillNeeded { serial, count, strand, devices }.into());
        }
        if count > 0 {
            detail = format!("{detail}; strands {count}: {}", named.join(", "));
        }
    }
    let update = Statement::new("UPDATE device_ca SET state = $1 WHERE id = $2");
    transaction.execute(update.bind(after.as_str()).bind(ca.id.0)).await?;
    let subject = format!("{} serial {serial}", ca.certificate.subject());
    transaction.note(change(factory, actor, asked.act.as_str(), subject, detail));
    Ok(())
}

/// How many devices revoking would strand, and some of their names.
async fn stranded(
    transaction: &mut WriteTransaction,
    device_ca: DeviceCaId,
) -> Result<(u64, Vec<String>), LedgerError> {
    let count = Statement::new(
        "SELECT COUNT(DISTINCT device_id) AS count FROM credential \
         WHERE device_ca_id = $1 AND state IN ('current', 'pending')",
    );
    let rows = transaction.rows(count.bind(device_ca.0)).await?;
    let count = rows.first().ok_or_else(|| LedgerError::corrupt("no count"))?.integer("count")?;
    let rows = transaction.rows(page(device_ca, 0, NAMED_DEVICES)).await?;
    let named = rows.iter().map(|row| row.text("name")).collect::<Result<_, _>>()?;
    Ok((u64::try_from(count).unwrap_or(0), named))
}

pub(super) fn device_ca(row: &Row) -> Result<DeviceCa, LedgerError> {
    let (kind, state) = (row.text("kind")?, row.text("state")?);
    Ok(DeviceCa {
        id: DeviceCaId(row.integer("id")?),
        factory: FactoryId(row.integer("factory_id")?),
        kind: DeviceCaKind::from_word(&kind).ok_or(LedgerError::Corrupt(kind))?,
        state: DeviceCaState::from_word(&state).ok_or(LedgerError::Corrupt(state))?,
        certificate: certificate(row, "certificate")?,
    })
}
