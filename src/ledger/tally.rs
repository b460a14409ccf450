//! What comes again and again must not fill the audit log: the first are rows of their own; what comes
//! beyond is counted, and one row says how much that was. So it is with strangers, who have proved
//! nothing, with a device that fails at the same for ever, and with what a device says of itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Ledger;
use crate::clock::UnixTime;
use crate::model::audit::{Entry, Outcome};
use crate::model::{FactoryId, Refusal};

/// Entries within a window of time, each a row or counted.
pub(super) struct Tally {
    bounds: Bounds,
    counts: Mutex<Counts>,
}

struct Bounds {
    /// In seconds, and in words.
    window: (i64, &'static str),
    /// What is told apart: entries that are alike share their rows.
    alike: fn(&Entry) -> Kind,
    /// How many of the same become rows of their own within a window.
    rows_of_one: u32,
    /// The same of all together.
    rows_of_all: u32,
    /// How many kinds are told apart within a window.
    kinds: usize,
    /// What becomes of those beyond: counted together under a name, or rows of their own.
    beyond: Option<&'static str>,
}

#[derive(Default)]
struct Counts {
    window: i64,
    rows: u32,
    rows_of: HashMap<Kind, u32>,
    counted: HashMap<Kind, u64>,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Kind {
    factory: Option<i64>,
    actor: String,
    action: String,
    subject: String,
    outcome: Option<Outcome>,
    code: String,
    detail: String,
}

/// How many rows are written at once.
const ROWS_AT_ONCE: usize = 500;

impl Ledger {
    /// Records that somebody was refused who has proved nothing, or counts it where there was a lot
    /// of that just now.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn note_stranger(&self, entry: Entry) -> Result<(), Refusal> {
        self.note_all(self.strangers.over(entry.at)).await?;
        if self.strangers.admits(&entry) { self.note(entry).await } else { Ok(()) }
    }

    /// Records what a device says of itself, or that it is not listened to, or counts it where there
    /// was a lot of that just now.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn note_said(&self, entry: Entry) -> Result<(), Refusal> {
        self.note_all(self.sayings.over(entry.at)).await?;
        if self.sayings.admits(&entry) { self.note(entry).await } else { Ok(()) }
    }

    /// Records what was counted in times that are over.
    ///
    /// # Errors
    /// When the ledger cannot record anything; the count is lost then, as its refusals would be.
    pub async fn settle(&self, now: UnixTime) -> Result<(), Refusal> {
        self.note_all(self.strangers.over(now)).await?;
        self.note_all(self.sayings.over(now)).await?;
        self.note_all(self.repeats.over(now)).await
    }

    /// Records what was counted so far, at the end.
    pub(super) async fn settle_all(&self) -> Result<(), Refusal> {
        let now = UnixTime::now();
        self.note_all(self.strangers.rest(now)).await?;
        self.note_all(self.sayings.rest(now)).await?;
        self.note_all(self.repeats.rest(now)).await
    }

    async fn note_all(&self, entries: Vec<Entry>) -> Result<(), Refusal> {
        for entries in entries.chunks(ROWS_AT_ONCE) {
            self.writer.note(entries.to_vec()).await?;
        }
        Ok(())
    }
}

impl Tally {
    /// By address.
    pub(super) fn of_strangers() -> Self {
        Self::new(Bounds {
            window: (60, "a minute"),
            alike: |entry| Kind { actor: entry.actor.clone(), ..Kind::default() },
            rows_of_one: 60,
            rows_of_all: 2000,
            kinds: 4096,
            beyond: Some("other addresses"),
        })
    }

    /// By device, and by what it is refused and why, certificate and all: whoever misuses its name with
    /// another is on record.
    pub(super) fn of_devices() -> Self {
        Self::new(Bounds {
            window: (3600, "an hour"),
            alike: kind,
            rows_of_one: 16,
            rows_of_all: u32::MAX,
            kinds: 65_536,
            beyond: None,
        })
    }

    /// By device, and by what became of it: the words are the device's own.
    pub(super) fn of_sayings() -> Self {
        Self::new(Bounds {
            window: (3600, "an hour"),
            alike: |entry| Kind { subject: String::new(), detail: String::new(), ..kind(entry) },
            rows_of_one: 16,
            rows_of_all: u32::MAX,
            kinds: 65_536,
            beyond: Some("other devices"),
        })
    }

    fn new(bounds: Bounds) -> Self {
        Self { bounds, counts: Mutex::default() }
    }

    /// Whether the refusal becomes a row; otherwise it is counted.
    pub(super) fn admits(&self, entry: &Entry) -> bool {
        let bounds = &self.bounds;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut one, mut counted) = ((bounds.alike)(entry), kind(entry));
        if !counts.rows_of.contains_key(&one) && counts.rows_of.len() >= bounds.kinds {
            let Some(others) = bounds.beyond else { return true };
            others.clone_into(&mut one.actor);
            others.clone_into(&mut counted.actor);
        }
        let rows = counts.rows;
        let of_one = counts.rows_of.entry(one).or_default();
        if *of_one < bounds.rows_of_one && rows < bounds.rows_of_all {
            *of_one += 1;
            counts.rows += 1;
            return true;
        }
        if bounds.beyond.is_some() {
            (counted.subject, counted.detail) = (String::new(), String::new());
        }
        *counts.counted.entry(counted).or_default() += 1;
        false
    }

    /// What was counted before the window that it is now; the count begins anew.
    fn over(&self, now: UnixTime) -> Vec<Entry> {
        self.counted_before(now.0 / self.bounds.window.0, now)
    }

    /// What was counted so far.
    fn rest(&self, now: UnixTime) -> Vec<Entry> {
        self.counted_before(i64::MAX, now)
    }

    fn counted_before(&self, window: i64, now: UnixTime) -> Vec<Entry> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.window == window {
            return Vec::new();
        }
        let over = std::mem::replace(&mut *counts, Counts { window, ..Counts::default() });
        let row = |(kind, count): (Kind, u64)| Entry {
            at: now,
            factory: kind.factory.map(FactoryId),
            actor: kind.actor,
            action: kind.action,
            subject: kind.subject,
            outcome: kind.outcome.unwrap_or(Outcome::Refused),
            code: kind.code,
            detail: more(&kind.detail, count, self.bounds.window.1),
        };
        over.counted.into_iter().map(row).collect()
    }
}

fn more(detail: &str, count: u64, window: &str) -> String {
    let said = if detail.is_empty() { String::new() } else { format!("{detail}: ") };
    format!("{said}{count} more within {window}")
}

fn kind(entry: &Entry) -> Kind {
    Kind {
        factory: entry.factory.map(|factory| factory.0),
        actor: entry.actor.clone(),
        action: entry.action.clone(),
        subject: entry.subject.clone(),
        outcome: Some(entry.outcome),
        code: entry.code.clone(),
        detail: entry.detail.clone(),
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
        let strangers = Tally::of_strangers();
        assert!(strangers.over(UnixTime(60)).is_empty());
        let admitted = (0..1000).filter(|_| strangers.admits(&entry("192.0.2.1", 61))).count();
        assert_eq!(admitted, 60);
        assert!(strangers.admits(&entry("192.0.2.2", 62)), "another is not held to account");
        assert!(strangers.over(UnixTime(119)).is_empty(), "the minute is not over");

        let rows = strangers.over(UnixTime(120));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].actor.as_str(), rows[0].subject.as_str()), ("192.0.2.1", ""));
        assert_eq!(rows[0].detail, "940 more within a minute");
        assert!(strangers.admits(&entry("192.0.2.1", 121)));
    }

    #[test]
    fn i11_many_strangers_together_get_no_more_than_their_share() {
        let strangers = Tally::of_strangers();
        let admitted = (0..100_000)
            .filter(|number| strangers.admits(&entry(&format!("2001:db8::{number:x}"), 0)))
            .count();
        assert!(admitted <= 2000, "{admitted}");
        let counts = strangers.counts.lock().unwrap();
        assert!(counts.rows_of.len() <= 4097 && counts.counted.len() <= 4097);
    }

    #[test]
    fn i11_a_device_that_fails_at_the_same_gets_few_rows_and_one_that_counts_the_rest() {
        let devices = Tally::of_devices();
        assert!(devices.over(UnixTime(3600)).is_empty());
        let alarm = Entry { outcome: Outcome::Alarm, code: "x".to_owned(), ..entry("device", 0) };
        let admitted = (0..100).filter(|_| devices.admits(&entry("device", 3601))).count();
        assert_eq!(admitted, 16);
        assert!(devices.admits(&alarm), "something else is not counted with it");
        assert!(devices.admits(&entry("device-2", 3601)), "nor another device");

        let rows = devices.over(UnixTime(7200));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].subject.as_str(), rows[0].outcome), ("CN=x", Outcome::Refused));
        assert_eq!(rows[0].detail, "84 more within an hour");
    }

    #[test]
    fn i11_a_device_that_says_ever_new_things_gets_few_rows_and_one_that_counts_the_rest() {
        let sayings = Tally::of_sayings();
        let said = |number: u32| {
            let detail = format!("it went well: {number}");
            Entry { outcome: Outcome::Done, detail, code: String::new(), ..entry("device", 1) }
        };
        assert_eq!((0..100).filter(|number| sayings.admits(&said(*number))).count(), 16);
        let rows = sayings.over(UnixTime(7200));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].actor.as_str(), rows[0].outcome), ("device", Outcome::Done));
        assert_eq!(rows[0].detail, "84 more within an hour");
    }

    #[test]
    fn i10_whoever_is_not_told_apart_any_more_is_on_record() {
        let devices = Tally::of_devices();
        let name = |number: u32| format!("device-{number}");
        assert!((0..100_000).all(|number| devices.admits(&entry(&name(number), 0))));
        assert!((0..10).all(|_| devices.admits(&entry(&name(99_999), 0))));
    }
}
