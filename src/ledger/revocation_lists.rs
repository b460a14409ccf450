//! What an online Device CA's CRL says, and the latest one that it has signed.

use super::database::{Row, Statement};
use super::facts::fingerprint;
use super::transaction::WriteTransaction;
use super::{Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::model::{CredentialState, DeviceCaId};
use crate::pki::{Fingerprint, Serial};

/// A certificate that must not be accepted any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCredential {
    /// The serial number of its certificate.
    pub serial: Serial,
    /// Since when it is refused.
    pub since: UnixTime,
    /// Superseded or denied.
    pub state: CredentialState,
}

/// A CRL that was signed.
#[derive(Clone, Debug)]
pub struct SignedRevocationList {
    /// Its number; each is larger than the one before.
    pub number: i64,
    /// SHA-256 of what it says, to tell whether another would say anything new.
    pub entries: Fingerprint,
    /// The CRL.
    pub der: Vec<u8>,
    /// When it was made.
    pub made_at: UnixTime,
}

impl Ledger {
    /// The superseded and denied credentials that a Device CA issued here and that have not
    /// expired, in the order of their issuance. Superseded ones that were never seen in use are
    /// left out: a device that fails for ever leaves one at every try.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn refused_credentials(
        &self,
        device_ca: DeviceCaId,
        now: UnixTime,
    ) -> Result<Vec<RefusedCredential>, LedgerError> {
        let select = Statement::new(
            "SELECT enrolment.serial, credential.state, \
             COALESCE(credential.state_since, credential.recorded_at) AS since \
             FROM credential JOIN enrolment ON enrolment.credential_id = credential.id \
             WHERE credential.device_ca_id = $1 AND credential.state IN ('superseded', 'denied') \
             AND (credential.state = 'denied' OR credential.first_used_at IS NOT NULL) \
             AND COALESCE(credential.not_after, $2) >= $2 ORDER BY credential.id",
        );
        let rows = self.database.rows(select.bind(device_ca.0).bind(now.0)).await?;
        rows.iter().map(refused_credential).collect()
    }

    /// The latest CRL of a Device CA.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn revocation_list(
        &self,
        device_ca: DeviceCaId,
    ) -> Result<Option<SignedRevocationList>, LedgerError> {
        let select = Statement::new(
            "SELECT number, entries_sha256, der, made_at FROM revocation_list \
             WHERE device_ca_id = $1",
        );
        let rows = self.database.rows(select.bind(device_ca.0)).await?;
        rows.first()
            .map(|row| {
                Ok(SignedRevocationList {
                    number: row.integer("number")?,
                    entries: fingerprint(row, "entries_sha256")?,
                    der: row.bytes("der")?,
                    made_at: UnixTime(row.integer("made_at")?),
                })
            })
            .transpose()
    }

    /// Stores a CRL in the place of the one before. `false` if another with its number, or a later
    /// one, is there already: then nothing changes, and this one must not be handed out.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn store_revocation_list(
        &self,
        device_ca: DeviceCaId,
        list: &SignedRevocationList,
    ) -> Result<bool, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let insert = Statement::new(
            "INSERT INTO revocation_list (device_ca_id, number, entries_sha256, der, made_at) \
             VALUES ",
        )
        .tuple([
            device_ca.0.into(),
            list.number.into(),
            list.entries.as_bytes().into(),
            list.der.as_slice().into(),
            list.made_at.0.into(),
        ])
        .then(
            " ON CONFLICT (device_ca_id) DO UPDATE SET number = excluded.number, \
             entries_sha256 = excluded.entries_sha256, der = excluded.der, \
             made_at = excluded.made_at WHERE revocation_list.number < excluded.number",
        );
        let stored = transaction.execute(insert).await? > 0;
        transaction.commit().await?;
        Ok(stored)
    }
}

fn refused_credential(row: &Row) -> Result<RefusedCredential, LedgerError> {
    let state = row.text("state")?;
    Ok(RefusedCredential {
        serial: Serial::from_contents(&row.bytes("serial")?),
        since: UnixTime(row.integer("since")?),
        state: CredentialState::from_word(&state).ok_or(LedgerError::Corrupt(state))?,
    })
}
