//! How fast slots are given out.

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;

/// After a pause of the server, slots of at most this long, in milliseconds, are given out at once.
const BACKLOG: i64 = 10_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// The fastest pace, in devices a minute.
const FASTEST: u32 = 1_000_000;

/// Devices a minute, the canaries first, at some hours of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How many devices get their slot in a minute.
    pub per_minute: u32,
    /// How many devices go first: the others wait until all of these are confirmed.
    pub canary: u32,
    /// When slots are given out; `None`: always.
    pub window: Option<DailyWindow>,
    /// No slot comes before this, in unix seconds.
    pub begin: Option<i64>,
    /// No slot comes after this, in unix seconds.
    pub until: Option<i64>,
}

/// A part of every day, in UTC; it may pass midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DailyWindow {
    /// Its first minute of the day.
    from: u16,
    /// The minute of the day after its last.
    until: u16,
}

/// Why a pace is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaceRefused {
    /// It would never end, or is beyond what any server can do.
    #[error("a pace is 1 to {FASTEST} devices a minute")]
    PerMinute,
    /// A window is `HH:MM-HH:MM`.
    #[error("a window is HH:MM-HH:MM in UTC, from one minute of the day to another")]
    Window,
    /// Everything would be over before it began.
    #[error("`until` must be later than now, and than `begin`")]
    Over,
}

impl DailyWindow {
    /// Reads `HH:MM-HH:MM`.
    ///
    /// # Errors
    /// When it is none, or is empty.
    pub fn parse(text: &str) -> Result<Self, PaceRefused> {
        let minute = |text: &str| {
            let time = jiff::civil::Time::strptime("%H:%M", text).ok()?;
            u16::try_from(i16::from(time.hour()) * 60 + i16::from(time.minute())).ok()
        };
        let (from, until) = text.split_once('-').ok_or(PaceRefused::Window)?;
        let from = minute(from).ok_or(PaceRefused::Window)?;
        let until = minute(until).ok_or(PaceRefused::Window)?;
        if from == until {
            return Err(PaceRefused::Window);
        }
        Ok(Self { from, until })
    }

    /// How long each day it is open, in milliseconds.
    fn length(self) -> i64 {
        (i64::from(self.until) - i64::from(self.from)).rem_euclid(24 * 60) * MINUTE
    }

    /// How long ago it opened, in milliseconds, if it is open; else how long until it opens, negative.
    fn open_since(self, at: i64) -> i64 {
        let since = (at - i64::from(self.from) * MINUTE).rem_euclid(DAY);
        if since < self.length() { since } else { since - DAY }
    }
}

impl TryFrom<String> for DailyWindow {
    type Error = PaceRefused;

    fn try_from(text: String) -> Result<Self, PaceRefused> {
        Self::parse(&text)
    }
}

impl From<DailyWindow> for String {
    fn from(window: DailyWindow) -> Self {
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        format!("{}-{}", time(window.from), time(window.until))
    }
}

impl Pace {
    /// Says what is wrong with a pace, if anything is.
    ///
    /// # Errors
    /// When it is 0, or too fast, or its time is over at `now`.
    pub fn check(&self, now: UnixTime) -> Result<(), PaceRefused> {
        if !(1..=FASTEST).contains(&self.per_minute) {
            return Err(PaceRefused::PerMinute);
        }
        let first = self.begin.map_or(now.0, |begin| begin.max(now.0));
        match self.until {
            Some(until) if until <= first => Err(PaceRefused::Over),
            _ => Ok(()),
        }
    }

    /// Whether no slot comes any more.
    pub fn is_over(&self, now: UnixTime) -> bool {
        self.until.is_some_and(|until| until < now.0)
    }

    /// How many slots have come since `credit_at`, `most` at most, and up to when they are then given
    /// out. Times are milliseconds since 1970. What was missed, while the server was down for
    /// instance, is not made up for at once.
    pub fn due(&self, credit_at: i64, now: i64, most: i64) -> (i64, i64) {
        let early = self.begin.is_some_and(|begin| now < begin.saturating_mul(1000));
        let closed = self.window.is_some_and(|window| window.open_since(now) < 0);
        if early || closed {
            return (0, now);
        }
        let per_minute = i64::from(self.per_minute);
        let from = self.counted_from(credit_at, now);
        let count = ((now - from) * per_minute / MINUTE).min(most);
        (count, from + rounded_up(count * MINUTE, per_minute))
    }

    /// When the slot comes that has `ahead` slots before it, in milliseconds since 1970.
    pub fn slot(&self, credit_at: i64, ahead: i64, now: i64) -> i64 {
        let from = self.counted_from(credit_at, now);
        let open =
            rounded_up((ahead.max(0) + 1).saturating_mul(MINUTE), i64::from(self.per_minute));
        let Some(window) = self.window else {
            return from.saturating_add(open);
        };
        let since = window.open_since(from);
        let opened = from - since;
        let open = open + since.max(0);
        // The last moment of a day's window, not the first of the next day's.
        let days = (open - 1) / window.length();
        opened.saturating_add(days.saturating_mul(DAY)) + (open - days * window.length())
    }

    fn counted_from(&self, credit_at: i64, now: i64) -> i64 {
        let longest = BACKLOG.max(rounded_up(MINUTE, i64::from(self.per_minute)));
        let begin = self.begin.map_or(i64::MIN, |begin| begin.saturating_mul(1000));
        credit_at.clamp(now - longest, now).max(begin)
    }
}

fn rounded_up(dividend: i64, divisor: i64) -> i64 {
    dividend / divisor + i64::from(dividend % divisor > 0)
}
