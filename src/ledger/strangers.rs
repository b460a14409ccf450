//! Refusals of those who have proved nothing: a stranger must not fill the audit log. The first of
//! an address within a minute are rows of their own; what comes beyond is counted, and one row says
//! how much that was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Ledger;
use crate::clock::UnixTime;
use crate::model::Refusal;
use crate::model::audit::{Entry, Outcome};

/// How many refusals of one address become rows of their own within a minute.
const ROWS_OF_ONE: u32 = 60;
/// The same of all addresses together.
const ROWS_OF_ALL: u32 = 2000;
/// How many addresses are told apart within a minute.
const ADDRESSES: usize = 4096;
const MINUTE: i64 = 60;
/// Who the audit log names for all addresses beyond.
const OTHERS: &str = "other addresses";

/// What strangers were refused in the present minute.
#[derive(Default)]
pub(super) struct Strangers(Mutex<Tally>);

#[derive(Default)]
struct Tally {
    minute: i64,
    rows: u32,
    rows_of: HashMap<String, u32>,
    counted: HashMap<Kind, u64>,
}

/// Refusals that are counted together.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    factory: Option<i64>,
    actor: String,
    action: String,
    code: String,
}

impl Ledger {
    /// Records that somebody was refused who has proved nothing, or counts it where there was a lot
    /// of that just now.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn note_stranger(&self, entry: Entry) -> Result<(), Refusal> {
        self.settle_strangers(entry.at).await?;
        if self.strangers.admits(&entry) { self.note(entry).await } else { Ok(()) }
    }

    /// Records what was counted in minutes that are over.
    ///
    /// # Errors
    /// When the ledger cannot record anything; the count is lost then, as its refusals would be.
    pub async fn settle_strangers(&self, now: UnixTime) -> Result<(), Refusal> {
        self.note_counted(self.strangers.over(now.0 / MINUTE, now)).await
    }

    /// Records what was counted so far, at the end.
    pub(super) async fn settle_all_strangers(&self) -> Result<(), Refusal> {
        self.note_counted(self.strangers.over(i64::MAX, UnixTime::now())).await
    }

    async fn note_counted(&self, counted: Vec<Entry>) -> Result<(), Refusal> {
        for entry in counted {
            self.note(entry).await?;
        }
        Ok(())
    }
}

impl Strangers {
    /// Whether the refusal becomes a row; otherwise it is counted.
    fn admits(&self, entry: &Entry) -> bool {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tally.rows_of.contains_key(&entry.actor) || tally.rows_of.len() < ADDRESSES;
        let actor = if known { entry.actor.as_str() } else { OTHERS }.to_owned();
        let rows = tally.rows;
        let of_one = tally.rows_of.entry(actor.clone()).or_default();
        if *of_one < ROWS_OF_ONE && rows < ROWS_OF_ALL {
            *of_one += 1;
            tally.rows += 1;
            return true;
        }
        let (action, code) = (entry.action.clone(), entry.code.clone());
        let kind = Kind { factory: entry.factory.map(|factory| factory.0), actor, action, code };
        *tally.counted.entry(kind).or_default() += 1;
        false
    }

    /// What was counted before this minute; the count begins anew.
    fn over(&self, minute: i64, now: UnixTime) -> Vec<Entry> {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tally.minute == minute {
            return Vec::new();
        }
        let over = std::mem::replace(&mut *tally, Tally { minute, ..Tally::default() });
        let row = |(kind, count): (Kind, u64)| Entry {
            at: now,
            factory: kind.factory.map(crate::model::FactoryId),
            actor: kind.actor,
            action: kind.action,
            subject: String::new(),
            outcome: Outcome::Refused,
            code: kind.code,
            detail: format!("{count} more within a minute"),
        };
        over.counted.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(actor: &str, at: i64) -> Entry {
        Entry {
            at: UnixTime(at),
            factory: None,
            actor: actor.to_owned(),
            action: "handshake".to_owned(),
            subject: "CN=x".to_owned(),
            outcome: Outcome::Refused,
            code: "certificate-untrusted".to_owned(),
            detail: String::new(),
        }
    }

    #[test]
    fn i11_a_stranger_gets_few_rows_and_one_that_counts_the_rest() {
        let strangers = Strangers::default();
        assert!(strangers.over(1, UnixTime(60)).is_empty());
        let admitted = (0..1000).filter(|_| strangers.admits(&entry("192.0.2.1", 61))).count();
        assert_eq!(admitted, 60);
        assert!(strangers.admits(&entry("192.0.2.2", 62)), "another is not held to account");
        assert!(strangers.over(1, UnixTime(119)).is_empty(), "the minute is not over");

        let rows = strangers.over(2, UnixTime(120));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].actor.as_str(), rows[0].subject.as_str()), ("192.0.2.1", ""));
        assert_eq!(rows[0].detail, "940 more within a minute");
        assert!(strangers.admits(&entry("192.0.2.1", 121)));
    }

    #[test]
    fn i11_many_strangers_together_get_no_more_than_their_share() {
        let strangers = Strangers::default();
        let admitted = (0..100_000)
            .filter(|number| strangers.admits(&entry(&format!("2001:db8::{number:x}"), 0)))
            .count();
        assert!(admitted <= 2000, "{admitted}");
        let tally = strangers.0.lock().unwrap();
        assert!(tally.rows_of.len() <= ADDRESSES + 1 && tally.counted.len() <= ADDRESSES + 1);
    }
}
