//! What comes again and again must not fill the audit log: the first are rows of their own; what comes
//! beyond is counted, and one row says how much that was. So it is with strangers, who have proved
//! nothing, with a device that fails at the same for ever, and with what a device says of itself.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Ledger;
use crate::clock::UnixTime;
use crate::model::audit::{Entry, Outcome};
use crate::model::{FactoryId, Refusal};
use crate::pki::Fingerprint;

/// Refusals within a window of time, each a row or counted.
pub(super) struct Tally {
    bounds: Bounds,
    counts: Mutex<Counts>,
}

struct Bounds {
    /// In seconds, and in words.
    window: (i64, &'static str),
    /// What is told apart: refusals that are alike share their rows.
    alike: fn(&Kind) -> Kind,
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
    /// SHA-256 of the certificate that was shown.
    shown: Option<Fingerprint>,
}

/// How many rows are written at once.
const ROWS_AT_ONCE: usize = 500;

/// What the refusals of a transaction would add to a tally, until it has committed.
pub(super) struct Draft<'a> {
    tally: &'a Tally,
    rows_of: HashMap<Kind, u32>,
    counted: HashMap<Kind, u64>,
}

impl Ledger {
    /// Records that somebody was refused who has proved nothing, or counts it where there was a lot
    /// of that just now.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn note_stranger(&self, entry: Entry) -> Result<(), Refusal> {
        self.settle_one(&self.strangers, entry.at.0 / self.strangers.bounds.window.0).await?;
        self.note_unless_repeated(&self.strangers, entry).await
    }

    /// Records what a device says of itself, or that it is not listened to, or counts it where there
    /// was a lot of that just now.
    ///
    /// # Errors
    /// When the ledger cannot record anything.
    pub async fn note_said(&self, entry: Entry) -> Result<(), Refusal> {
        self.note_unless_repeated(&self.repeats, entry).await
    }

    async fn note_unless_repeated(&self, tally: &Tally, entry: Entry) -> Result<(), Refusal> {
        let mut draft = tally.draft();
        if draft.admits(&entry, None) {
            self.note(entry).await?;
        }
        draft.commit();
        Ok(())
    }

    /// Records what was counted in times that are over.
    ///
    /// # Errors
    /// When the ledger cannot record anything: the counts wait for the next time.
    pub async fn settle(&self, now: UnixTime) -> Result<(), Refusal> {
        for tally in [&self.strangers, &self.repeats] {
            self.settle_one(tally, now.0 / tally.bounds.window.0).await?;
        }
        Ok(())
    }

    /// Records what was counted so far, at the end.
    pub(super) async fn settle_all(&self) -> Result<(), Refusal> {
        // What still waits for the writer may be counted too.
        self.writer.note(Vec::new()).await?;
        for tally in [&self.strangers, &self.repeats] {
            self.settle_one(tally, i64::MAX).await?;
        }
        Ok(())
    }

    async fn settle_one(&self, tally: &Tally, window: i64) -> Result<(), Refusal> {
        let mut over = tally.over(window);
        while !over.is_empty() {
            let some = over.split_off(over.len().saturating_sub(ROWS_AT_ONCE));
            let now = UnixTime::now();
            let rows = some.iter().map(|(kind, count)| tally.row(kind, *count, now)).collect();
            if let Err(why) = self.writer.note(rows).await {
                tally.put_back(over.into_iter().chain(some));
                return Err(why);
            }
        }
        Ok(())
    }
}

impl Tally {
    /// By address.
    pub(super) fn of_strangers() -> Self {
        Self::new(Bounds {
            window: (60, "a minute"),
            alike: |kind| Kind { actor: kind.actor.clone(), ..Kind::default() },
            rows_of_one: 60,
            rows_of_all: 2000,
            kinds: 4096,
            beyond: Some("other addresses"),
        })
    }

    /// By device, by what it is refused and why, and by the certificate that was shown: whoever misuses
    /// its name with another is on record.
    pub(super) fn of_devices() -> Self {
        Self::new(Bounds {
            window: (3600, "an hour"),
            alike: Kind::clone,
            rows_of_one: 16,
            rows_of_all: u32::MAX,
            kinds: 65_536,
            beyond: None,
        })
    }

    fn new(bounds: Bounds) -> Self {
        Self { bounds, counts: Mutex::default() }
    }

    pub(super) fn draft(&self) -> Draft<'_> {
        Draft { tally: self, rows_of: HashMap::new(), counted: HashMap::new() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted before this window; the count begins anew.
    fn over(&self, window: i64) -> Vec<(Kind, u64)> {
        let mut counts = self.counts();
        if counts.window == window {
            return Vec::new();
        }
        let over = std::mem::replace(&mut *counts, Counts { window, ..Counts::default() });
        over.counted.into_iter().collect()
    }

    fn put_back(&self, over: impl Iterator<Item = (Kind, u64)>) {
        let mut counts = self.counts();
        for (kind, count) in over {
            *counts.counted.entry(kind).or_default() += count;
        }
        // They are over, whatever the time is when this is looked at again.
        counts.window = -1;
    }

    fn row(&self, kind: &Kind, count: u64, now: UnixTime) -> Entry {
        let shown = kind.shown.map(|shown| format!(" (certificate {shown})"));
        let shown = shown.unwrap_or_default();
        Entry {
            at: now,
            factory: kind.factory.map(FactoryId),
            actor: kind.actor.clone(),
            action: kind.action.clone(),
            subject: kind.subject.clone(),
            outcome: kind.outcome.unwrap_or(Outcome::Refused),
            code: kind.code.clone(),
            detail: format!("{count} more within {}{shown}", self.bounds.window.1),
        }
    }
}

impl Draft<'_> {
    /// Whether the refusal becomes a row; otherwise it is counted.
    pub(super) fn admits(&mut self, entry: &Entry, shown: Option<Fingerprint>) -> bool {
        let bounds = &self.tally.bounds;
        let counts = self.tally.counts();
        let mut kind = kind(entry, shown);
        let mut one = (bounds.alike)(&kind);
        let known = counts.rows_of.contains_key(&one) || self.rows_of.contains_key(&one);
        if !known && counts.rows_of.len() + self.rows_of.len() >= bounds.kinds {
            let Some(others) = bounds.beyond else { return true };
            others.clone_into(&mut one.actor);
            others.clone_into(&mut kind.actor);
        }
        let rows = counts.rows + self.rows_of.values().sum::<u32>();
        let before = counts.rows_of.get(&one).copied().unwrap_or_default();
        let of_one = self.rows_of.entry(one).or_default();
        if before + *of_one < bounds.rows_of_one && rows < bounds.rows_of_all {
            *of_one += 1;
            return true;
        }
        if bounds.beyond.is_some() {
            kind.subject = String::new();
        }
        *self.counted.entry(kind).or_default() += 1;
        false
    }

    /// The rows are on record.
    pub(super) fn commit(self) {
        let mut counts = self.tally.counts();
        for (one, rows) in self.rows_of {
            counts.rows += rows;
            *counts.rows_of.entry(one).or_default() += rows;
        }
        for (kind, count) in self.counted {
            *counts.counted.entry(kind).or_default() += count;
        }
    }
}

fn kind(entry: &Entry, shown: Option<Fingerprint>) -> Kind {
    Kind {
        factory: entry.factory.map(|factory| factory.0),
        actor: entry.actor.clone(),
        action: entry.action.clone(),
        subject: entry.subject.clone(),
        outcome: Some(entry.outcome),
        code: entry.code.clone(),
        shown,
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

    fn admits(tally: &Tally, entry: &Entry, shown: Option<Fingerprint>) -> bool {
        let mut draft = tally.draft();
        let admitted = draft.admits(entry, shown);
        draft.commit();
        admitted
    }

    fn rows(tally: &Tally, window: i64) -> Vec<Entry> {
        let over = tally.over(window);
        over.iter().map(|(kind, count)| tally.row(kind, *count, UnixTime(0))).collect()
    }

    #[test]
    fn i11_a_stranger_gets_few_rows_and_one_that_counts_the_rest() {
        let strangers = Tally::of_strangers();
        assert!(rows(&strangers, 1).is_empty());
        let shown = entry("192.0.2.1", 61);
        assert_eq!((0..1000).filter(|_| admits(&strangers, &shown, None)).count(), 60);
        assert!(
            admits(&strangers, &entry("192.0.2.2", 62), None),
            "another is not held to account"
        );
        assert!(rows(&strangers, 1).is_empty(), "the minute is not over");

        let rows = rows(&strangers, 2);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].actor.as_str(), rows[0].subject.as_str()), ("192.0.2.1", ""));
        assert_eq!(rows[0].detail, "940 more within a minute");
        assert!(admits(&strangers, &entry("192.0.2.1", 121), None));
    }

    #[test]
    fn i11_many_strangers_together_get_no_more_than_their_share() {
        let strangers = Tally::of_strangers();
        let admitted = (0..100_000)
            .filter(|number| admits(&strangers, &entry(&format!("2001:db8::{number:x}"), 0), None))
            .count();
        assert!(admitted <= 2000, "{admitted}");
        let counts = strangers.counts();
        assert!(counts.rows_of.len() <= 4097 && counts.counted.len() <= 4097);
    }

    #[test]
    fn i11_a_device_that_fails_at_the_same_gets_few_rows_and_one_that_counts_the_rest() {
        let devices = Tally::of_devices();
        let certificate = Fingerprint::of(b"its own");
        let own = Some(certificate);
        let refused = |detail: &str| Entry { detail: detail.to_owned(), ..entry("device", 0) };
        let admitted = (0..100).filter(|n| admits(&devices, &refused(&n.to_string()), own)).count();
        assert_eq!(admitted, 16, "what it says itself makes nothing new of it");
        let alarm = Entry { outcome: Outcome::Alarm, ..refused("") };
        assert!(admits(&devices, &alarm, own), "something else is not counted with it");
        assert!(admits(&devices, &refused(""), None), "nor another certificate");
        assert!(admits(&devices, &entry("device-2", 0), own), "nor another device");

        let rows = rows(&devices, 1);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].subject.as_str(), rows[0].outcome), ("CN=x", Outcome::Refused));
        let expected = format!("84 more within an hour (certificate {certificate})");
        assert_eq!(rows[0].detail, expected);
    }

    #[test]
    fn i10_whoever_is_not_told_apart_any_more_is_on_record() {
        let devices = Tally::of_devices();
        let name = |number: u32| format!("device-{number}");
        assert!((0..100_000).all(|number| admits(&devices, &entry(&name(number), 0), None)));
        assert!((0..100).all(|_| admits(&devices, &entry(&name(99_999), 0), None)));
    }

    #[test]
    fn i10_what_did_not_come_on_record_counts_for_nothing() {
        let devices = Tally::of_devices();
        for _lost in 0..100 {
            assert!(devices.draft().admits(&entry("device", 0), None));
        }
        let mut draft = devices.draft();
        assert_eq!((0..20).filter(|_| draft.admits(&entry("device", 0), None)).count(), 16);
        draft.commit();
        assert!(!admits(&devices, &entry("device", 0), None));
        let over = devices.over(1);
        devices.put_back(over.into_iter());
        assert_eq!(rows(&devices, 1)[0].detail, "5 more within an hour", "not written yet");
        assert!(rows(&devices, 1).is_empty());
    }
}
