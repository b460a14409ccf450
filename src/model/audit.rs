//! The audit log's rows and the chain that binds them (I10).

use aws_lc_rs::digest::{Context, SHA256};

use super::FactoryId;
use crate::clock::UnixTime;
use crate::pki::Fingerprint;

/// How a decision went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
    /// It was refused, and somebody should look at it.
    Alarm,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Alarm];

    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Alarm => "alarm",
        }
    }

    /// The outcome that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// How much of a subject goes on record, in characters: rows are found by it, and an index has limits.
const SUBJECT_LIMIT: usize = 256;

/// What goes on record of a subject that somebody else has chosen.
pub fn shortened(subject: &str) -> String {
    subject.chars().take(SUBJECT_LIMIT).collect()
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was taken.
    pub at: UnixTime,
    /// In which Factory, if that is known.
    pub factory: Option<FactoryId>,
    /// Who asked: a device, an address, an operator.
    pub actor: String,
    /// What was asked, for instance `simplereenroll`.
    pub action: String,
    /// About what: a device, a Device CA.
    pub subject: String,
    /// How it went.
    pub outcome: Outcome,
    /// The refusal's code, or empty.
    pub code: String,
    /// What else a reader should know.
    pub detail: String,
}

/// The hash before the first row.
pub const GENESIS: [u8; 32] = [0; 32];

/// The hash of a row: SHA-256 over the hash of the row before, its number, and every field with its
/// length, so that no two rows read alike.
pub fn link(previous: &[u8], number: i64, entry: &Entry) -> Fingerprint {
    let factory = entry.factory.map_or(-1, |FactoryId(id)| id);
    let mut context = Context::new(&SHA256);
    context.update(previous);
    for integer in [number, entry.at.0, factory] {
        context.update(&integer.to_be_bytes());
    }
    let fields = [
        entry.actor.as_str(),
        &entry.action,
        &entry.subject,
        entry.outcome.as_str(),
        &entry.code,
        &entry.detail,
    ];
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field.as_bytes());
    }
    Fingerprint::from_digest(&context.finish())
}
