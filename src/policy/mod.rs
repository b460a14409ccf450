//! Verdicts: `(request, peer, snapshot, now) -> Grant | Refusal`. Pure.
//!
//! What only the ledger knows (is this credential current, is this CA still enabled?) is judged by
//! [`crate::model::Sighting::judge`] inside the transaction that records.

mod enrolment;
mod requester;

pub use enrolment::{Grant, Judged, Unapproved, judge};
pub use requester::{Requester, Standing, authenticate};
