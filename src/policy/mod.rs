//! Verdicts: `(request, peer, snapshot, now) -> Grant | Refusal`. Pure.
//!
//! What only the ledger knows (is this credential current, is this CA still enabled?) is judged by
//! [`crate::model::Sighting::judge`] inside the transaction that records.

mod enrolment;
mod registration;
mod requester;

pub use enrolment::{EnrolmentRequest, Grant, Judged, Unapproved, judge};
pub use registration::{Introduction, judge_introduction, judge_registration, judge_report};
pub use requester::{Requester, Standing, authenticate};
