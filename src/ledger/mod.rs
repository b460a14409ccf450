//! The only SQL: Factories, Device CAs, devices, credentials, enrolments, tokens and the audit log,
//! in SQLite or PostgreSQL.
//!
//! Every transaction that writes locks the one row of `ledger_head` first, across replicas too. So
//! what it judges (is this Device CA still enabled?, I2) holds until it has committed.

mod audit;
mod batch;
mod bootstrap_cas;
mod change;
mod changes;
mod config_files;
mod contact;
mod database;
mod device_cas;
mod devices;
mod factories;
mod facts;
mod gateway;
mod held_requests;
mod inventory;
mod private_keys;
mod registry;
mod revocation_lists;
mod rotations;
mod tally;
mod tokens;
mod transaction;
mod webhooks;
mod work;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use audit::{AuditFilter, AuditRow, ChainFault, PkiChange, PkiHistory};
pub use change::{ChangeError, ChangeRefused};
pub use device_cas::{Dependent, Dependents, DeviceCaChange};
pub use devices::{CredentialStory, DeviceStory};
pub use factories::{FactoryChange, InstalledServerCertificate, NewFactory};
pub use gateway::Delivery;
pub use held_requests::{Decision, HeldRequest};
pub use inventory::{DevicePage, DeviceSummary, InventoryFilter};
pub use private_keys::{KeyPlace, RewrapCounts, RewrapFailure, StoredKey};
pub use registry::{DeviceFilter, DeviceKey, RegisteredDevice, RegistryPage};
pub use revocation_lists::{RefusedCredential, SignedRevocationList};
pub use rotations::{
    DryRun, NewRotation, RotationDevice, RotationDevicePage, RotationOfDevice, Started, Wanted,
};
pub use tokens::{NewToken, TokenSummary};
pub use webhooks::{
    DeadLetter, Due, NewWebhook, Turn, WebhookEvent, WebhookEvents, WebhookSummary,
};
pub use work::{Asker, Contact, Held, Introduced, Newcomer, Recorded, RefusedAsker, Registrar};
pub use writer::WriterMetrics;

use crate::clock::UnixTime;
use crate::keys::Signed;
use crate::model::{Refusal, Sighting, audit::Entry};
use crate::pki::Fingerprint;
use crate::policy::{Introduction, Unapproved};
use database::{Database, NulInText, Statement};
use tally::Tally;
use writer::Writer;

/// How long a transaction of the writer may take before the ledger counts as stalled.
const STALLED_SECONDS: i64 = 10;

/// The ledger, open.
#[derive(Clone)]
pub struct Ledger {
    database: Arc<Database>,
    writer: Writer,
    strangers: Arc<Tally>,
    repeats: Arc<Tally>,
}

/// The ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database failed.
    #[error("the ledger's database: {0}")]
    Database(#[source] sqlx::Error),
    /// A row holds what this program never writes.
    #[error("the ledger holds {0}")]
    Corrupt(String),
    /// Somebody sent what no ledger takes.
    #[error("text must not have a NUL character in it")]
    Nul,
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Encode(why) if why.is::<NulInText>() => Self::Nul,
            other => Self::Database(other),
        }
    }
}

impl LedgerError {
    /// Whether the database answered and disliked what it was given: a lock or a full disk is not
    /// the fault of any piece of work.
    fn is_about_the_work(&self) -> bool {
        match self {
            Self::Corrupt(_) | Self::Nul => true,
            Self::Database(sqlx::Error::Database(why)) => {
                let violates = why.kind() != sqlx::error::ErrorKind::Other;
                // PostgreSQL's classes of data exceptions, and of limits such as that of an index.
                let classes = ["22", "54"];
                let disliked = |code: &str| classes.iter().any(|class| code.starts_with(class));
                violates || why.code().is_some_and(|code| disliked(&code))
            }
            Self::Database(_) => false,
        }
    }

    fn corrupt(what: impl ToString) -> Self {
        Self::Corrupt(what.to_string())
    }
}

impl Ledger {
    /// Opens the ledger at `url`, `sqlite:PATH` or `postgres://…`, and brings its schema up to date.
    ///
    /// # Errors
    /// When the database cannot be reached, or its schema is of a later version.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        let database = Arc::new(Database::open(url).await?);
        transaction::found(&database).await?;
        let (strangers, repeats) = (Arc::new(Tally::of_strangers()), Arc::new(Tally::of_devices()));
        let writer = Writer::start(Arc::clone(&database), Arc::clone(&repeats));
        let ledger = Self { database, writer, strangers, repeats };
        ledger.fill_in_inventory().await?;
        Ok(ledger)
    }

    /// Records an issuance. The certificate comes back, and may leave, once it is on disk (I1).
    ///
    /// # Errors
    /// The refusal that only the ledger could know of, or that it cannot record anything.
    pub async fn record(&self, signed: Signed, asker: Asker) -> Result<Recorded, Refusal> {
        self.writer.record(signed, asker).await
    }

    /// Records that a device was seen with a certificate, and says what that means.
    ///
    /// # Errors
    /// The refusal, or that the ledger cannot record anything.
    pub async fn contact(&self, contact: Contact) -> Result<Sighting, Refusal> {
        if self.has_nothing_to_record(&contact).await {
            return Ok(Sighting::Expected);
        }
        self.writer.contact(contact).await
    }

    /// Gives the grant back if an operator has approved the same request before; else it waits.
    ///
    /// # Errors
    /// The operator's no, a refusal that only the ledger could know of, or that it cannot record
    /// anything.
    pub async fn hold(
        &self,
        unapproved: Unapproved,
        request: Fingerprint,
        asker: Asker,
    ) -> Result<Held, Refusal> {
        self.writer.hold(unapproved, request, asker).await
    }

    /// Registers a device with a certificate that it has, which is pending until it is seen in use.
    ///
    /// # Errors
    /// The refusal that only the ledger could know of, or that it cannot record anything.
    pub async fn introduce(
        &self,
        introduction: Introduction,
        registrar: Registrar,
    ) -> Result<Introduced, Refusal> {
        self.writer.introduce(introduction, registrar).await
    }

    /// Records a decision that no other verb records, a refusal above all.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn note(&self, entry: Entry) -> Result<(), Refusal> {
        self.writer.note(vec![entry]).await
    }

    /// Records that a device's request was refused before it came here, or counts it where there was
    /// a lot of that just now.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn note_refused(
        &self,
        entry: Entry,
        asker: RefusedAsker,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        self.writer.refuse(entry, asker, refusal).await
    }

    /// Whether the writer gets its work done: no transaction of it has been under way for longer
    /// than 10 seconds.
    pub fn records(&self) -> bool {
        let since = self.writer.metrics().busy_since.load(Ordering::Relaxed);
        since == 0 || UnixTime::now().0 - since <= STALLED_SECONDS
    }

    /// What the writer has done so far.
    pub fn writer_metrics(&self) -> &WriterMetrics {
        self.writer.metrics()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), LedgerError> {
        self.database.rows(Statement::new("SELECT 1 AS one")).await?;
        Ok(())
    }

    /// Waits for what is under way and closes every connection.
    pub async fn close(self) {
        // What cannot be recorded now never can.
        let _lost = self.settle_all().await;
        self.writer.stop().await;
        self.database.close().await;
    }
}
