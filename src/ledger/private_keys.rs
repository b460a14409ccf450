//! The private keys that were made here: each wrapped in its row, or in a token that the row points to;
//! and what tells which key-encryption key wraps them.

use super::change::change;
use super::database::Statement;
use super::transaction::WriteTransaction;
use super::webhooks::rewrap_webhook_secrets;
use super::{ChangeError, ChangeRefused, Ledger, LedgerError};
use crate::clock::UnixTime;
use crate::keys::KeyError;
use crate::model::audit::{Entry, Outcome};
use crate::model::{FactoryId, ServerPurpose, WebhookName};
use crate::pki::{Certificate, Fingerprint};

const LEDGER: &str = "ledger";
const TOKEN: &str = "token";

/// A private key of a Factory.
pub struct StoredKey {
    /// Whose it is.
    pub factory: FactoryId,
    /// The server certificate that it is for; `None`: a Device CA.
    pub purpose: Option<ServerPurpose>,
    /// SHA-256 of its public key.
    pub public_key: Fingerprint,
    /// Where it is.
    pub place: KeyPlace,
    /// The PKCS#10 request for the root to sign.
    pub request: Vec<u8>,
}

/// Where a private key is.
pub enum KeyPlace {
    /// In its row.
    Ledger {
        /// The key, encrypted under the key-encryption key.
        wrapped: Vec<u8>,
    },
    /// In the PKCS#11 token, under the SHA-256 of its public key.
    Token,
}

/// Why private keys were not wrapped anew: none was.
#[derive(Debug, thiserror::Error)]
pub enum RewrapFailure {
    /// One could not be.
    #[error("the private key {public_key}: {source}")]
    Key {
        /// Which key.
        public_key: Fingerprint,
        /// Why not.
        source: KeyError,
    },
    /// The secret of a webhook could not be.
    #[error("the secret of the webhook {webhook}: {source}")]
    WebhookSecret {
        /// Which webhook.
        webhook: WebhookName,
        /// Why not.
        source: KeyError,
    },
    /// The ledger's present state forbids it, or the ledger failed.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// How much was wrapped anew.
#[derive(Clone, Copy, Debug)]
pub struct RewrapCounts {
    /// How many private keys.
    pub keys: usize,
    /// How many secrets of webhooks.
    pub webhook_secrets: usize,
}

impl KeyPlace {
    fn columns(&self) -> (&'static str, &[u8]) {
        match self {
            Self::Ledger { wrapped } => (LEDGER, wrapped),
            Self::Token => (TOKEN, &[]),
        }
    }

    fn from_columns(store: String, wrapped: Vec<u8>) -> Result<Self, LedgerError> {
        match store.as_str() {
            LEDGER => Ok(Self::Ledger { wrapped }),
            TOKEN => Ok(Self::Token),
            _ => Err(LedgerError::Corrupt(store)),
        }
    }
}

impl Ledger {
    /// Stores keys that wait for their certificates, wrapped under the key-encryption key that has
    /// this check value. One for which another waits by now is passed over: two who ask at once get
    /// one key.
    ///
    /// # Errors
    /// When the ledger has another key-encryption key by now, or fails.
    pub async fn add_keys(
        &self,
        keys: &[StoredKey],
        check: Fingerprint,
        actor: &str,
    ) -> Result<(), ChangeError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        must_have_check(&mut transaction, check).await?;
        let now = UnixTime::now();
        for key in keys {
            let purpose = purpose_word(key.purpose);
            let waiting = Statement::new(
                "SELECT 1 AS one FROM private_key \
                 WHERE factory_id = $1 AND purpose = $2 AND installed = 0",
            );
            let waiting = waiting.bind(key.factory.0).bind(purpose);
            if !transaction.rows(waiting).await?.is_empty() {
                continue;
            }
            let (store, wrapped) = key.place.columns();
            let insert = Statement::new(
                "INSERT INTO private_key (public_key_sha256, factory_id, purpose, store, wrapped, \
                 request, installed, created_at) VALUES ",
            )
            .tuple([
                key.public_key.as_bytes().into(),
                key.factory.0.into(),
                purpose.into(),
                store.into(),
                wrapped.into(),
                key.request.as_slice().into(),
                0.into(),
                now.0.into(),
            ]);
            transaction.execute(insert).await?;
            let (subject, detail) =
                (key.public_key.to_string(), format!("{purpose}, in the {store}"));
            transaction.note(change(key.factory, actor, "make-key", subject, detail));
        }
        Ok(transaction.commit().await?)
    }

    /// Wraps every private key and every webhook's secret anew by `rewrap`, which takes what is
    /// wrapped and what it is bound to, and makes `new` the check value in the place of `old`.
    ///
    /// # Errors
    /// When a key cannot be wrapped anew, the ledger has another key-encryption key than `old`, or it
    /// fails. Then everything stays as it was.
    pub async fn rewrap_keys(
        &self,
        old: Fingerprint,
        new: Fingerprint,
        actor: &str,
        rewrap: impl Fn(&[u8], Fingerprint) -> Result<Vec<u8>, KeyError>,
    ) -> Result<RewrapCounts, RewrapFailure> {
        let failed = |why: sqlx::Error| RewrapFailure::Change(why.into());
        let mut transaction =
            WriteTransaction::begin(&self.database).await.map_err(ChangeError::from)?;
        must_have_check(&mut transaction, old).await?;
        let select =
            Statement::new("SELECT public_key_sha256, wrapped FROM private_key WHERE store = $1");
        let rows = transaction.rows(select.bind(LEDGER)).await.map_err(failed)?;
        for row in &rows {
            let public_key = row.bytes("public_key_sha256").map_err(failed)?;
            let public_key = read_digest(&public_key).map_err(ChangeError::from)?;
            let wrapped = rewrap(&row.bytes("wrapped").map_err(failed)?, public_key)
                .map_err(|source| RewrapFailure::Key { public_key, source })?;
            let update =
                Statement::new("UPDATE private_key SET wrapped = $1 WHERE public_key_sha256 = $2")
                    .bind(wrapped.as_slice())
                    .bind(public_key.as_bytes());
            transaction.execute(update).await.map_err(failed)?;
        }
        let webhook_secrets = rewrap_webhook_secrets(&mut transaction, rewrap).await?;
        let update = Statement::new("UPDATE ledger_head SET key_check = $1").bind(new.as_bytes());
        transaction.execute(update).await.map_err(failed)?;
        let counts = RewrapCounts { keys: rows.len(), webhook_secrets };
        transaction.note(rewrapped(actor, counts));
        transaction.commit().await.map_err(ChangeError::from)?;
        Ok(counts)
    }

    /// What tells whether a key-encryption key is this ledger's; `None` before the first.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn key_check(&self) -> Result<Option<Fingerprint>, LedgerError> {
        let select = Statement::new("SELECT key_check FROM ledger_head");
        let rows = self.database.rows(select).await?;
        let stored = rows.first().map(|row| row.maybe_bytes("key_check")).transpose()?.flatten();
        Ok(stored.and_then(|stored| Fingerprint::from_bytes(&stored)))
    }

    /// Makes a key-encryption key this ledger's, if it has none yet; gives the one that it has.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn claim_key_check(&self, check: Fingerprint) -> Result<Fingerprint, LedgerError> {
        let mut transaction = WriteTransaction::begin(&self.database).await?;
        let update =
            Statement::new("UPDATE ledger_head SET key_check = $1 WHERE key_check IS NULL");
        transaction.execute(update.bind(check.as_bytes())).await?;
        transaction.commit().await?;
        self.key_check().await?.ok_or_else(|| LedgerError::corrupt("no key check"))
    }

    /// The private keys whose certificates are installed.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn installed_keys(&self) -> Result<Vec<StoredKey>, LedgerError> {
        self.keys(Statement::new(
            "SELECT factory_id, purpose, public_key_sha256, store, wrapped, request \
             FROM private_key WHERE installed = 1",
        ))
        .await
    }

    /// The private keys of a Factory that wait for their certificates, oldest first.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn pending_keys(&self, factory: FactoryId) -> Result<Vec<StoredKey>, LedgerError> {
        let select = Statement::new(
            "SELECT factory_id, purpose, public_key_sha256, store, wrapped, request \
             FROM private_key WHERE installed = 0 AND factory_id = $1 \
             ORDER BY created_at, purpose",
        );
        self.keys(select.bind(factory.0)).await
    }

    async fn keys(&self, select: Statement) -> Result<Vec<StoredKey>, LedgerError> {
        let rows = self.database.rows(select).await?;
        rows.iter()
            .map(|row| {
                let purpose = row.text("purpose")?;
                Ok(StoredKey {
                    factory: FactoryId(row.integer("factory_id")?),
                    purpose: ServerPurpose::from_word(&purpose),
                    public_key: read_digest(&row.bytes("public_key_sha256")?)?,
                    place: KeyPlace::from_columns(row.text("store")?, row.bytes("wrapped")?)?,
                    request: row.bytes("request")?,
                })
            })
            .collect()
    }
}

/// Makes the key that waits for this certificate an installed one.
pub(super) async fn take_pending_key(
    transaction: &mut WriteTransaction,
    factory: FactoryId,
    purpose: Option<ServerPurpose>,
    certificate: &Certificate,
) -> Result<(), ChangeError> {
    let update = Statement::new(
        "UPDATE private_key SET installed = 1 WHERE public_key_sha256 = $1 AND factory_id = $2 \
         AND purpose = $3 AND installed = 0",
    )
    .bind(certificate.public_key().fingerprint().as_bytes())
    .bind(factory.0)
    .bind(purpose_word(purpose));
    match transaction.execute(update).await? {
        0 => Err(ChangeRefused::NoPendingKey(certificate.subject().to_string()).into()),
        _ => Ok(()),
    }
}

pub(super) async fn must_have_check(
    transaction: &mut WriteTransaction,
    check: Fingerprint,
) -> Result<(), ChangeError> {
    let same = Statement::new("SELECT id FROM ledger_head WHERE key_check = $1");
    if transaction.rows(same.bind(check.as_bytes())).await?.is_empty() {
        return Err(ChangeRefused::KeyEncryptionKeyReplaced.into());
    }
    Ok(())
}

fn purpose_word(purpose: Option<ServerPurpose>) -> &'static str {
    purpose.map_or("device-ca", ServerPurpose::as_str)
}

fn read_digest(bytes: &[u8]) -> Result<Fingerprint, LedgerError> {
    Fingerprint::from_bytes(bytes).ok_or_else(|| LedgerError::corrupt("a short digest of a key"))
}

fn rewrapped(actor: &str, counts: RewrapCounts) -> Entry {
    let RewrapCounts { keys, webhook_secrets } = counts;
    Entry {
        at: UnixTime::now(),
        factory: None,
        actor: actor.to_owned(),
        action: "rewrap-keys".to_owned(),
        subject: "key-encryption key".to_owned(),
        outcome: Outcome::Done,
        code: String::new(),
        detail: format!("{keys} private keys, {webhook_secrets} secrets of webhooks"),
    }
}
