//! A request that waits for an operator's decision (RFC 7030 §4.2.3, status 202).

/// How many requests of one device may wait; beyond, the oldest is forgotten. An agent that retries
/// with a new key each time makes a new request each time.
pub const HELD_LIMIT: usize = 16;

/// A held request's row in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeldRequestId(pub i64);

/// What an operator has said to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldState {
    /// Nothing yet.
    Waiting,
    /// The device gets its certificate when it asks again.
    Approved,
    /// The device is refused when it asks again.
    Rejected,
}

impl HeldState {
    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }

    /// The state that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Approved, Self::Rejected]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}
