//! How far a webhook has come in the audit log: in order, one event at a time, and when a delivery
//! that failed is tried again.

use crate::clock::UnixTime;

/// How long, in seconds, to wait after each failed attempt to deliver an event.
const RETRY_DELAYS: [i64; 6] = [1, 5, 30, 2 * 60, 10 * 60, 60 * 60];

/// How far a webhook has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// It has nothing to do with rows of the audit log up to this number any more.
    pub done_to: i64,
    /// How many attempts at the event after that have failed.
    pub attempts: u32,
    /// When the next attempt is due.
    pub next_attempt_at: UnixTime,
    /// Why the latest attempt failed, if it did.
    pub last_error: Option<String>,
    /// When something was delivered last.
    pub delivered_at: Option<UnixTime>,
}

impl Progress {
    /// The event of that number was delivered.
    pub fn delivered(&mut self, number: i64, now: UnixTime) {
        self.done_to = number;
        self.attempts = 0;
        self.next_attempt_at = now;
        self.last_error = None;
        self.delivered_at = Some(now);
    }

    /// An attempt to deliver the event of that number has failed. `true` if it was the last one: the
    /// event is a dead letter, and the next one's turn has come.
    #[must_use]
    pub fn failed(&mut self, number: i64, error: &str, now: UnixTime) -> bool {
        self.attempts = self.attempts.saturating_add(1);
        self.last_error = Some(error.to_owned());
        if let Some(delay) = retry_delay(self.attempts) {
            self.next_attempt_at = now.plus(delay);
            return false;
        }
        self.done_to = number;
        self.attempts = 0;
        self.next_attempt_at = now;
        true
    }
}

/// In how many seconds to try again after `failed` attempts; `None`: not any more.
fn retry_delay(failed: u32) -> Option<i64> {
    let index = usize::try_from(failed.checked_sub(1)?).ok()?;
    RETRY_DELAYS.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1000);

    fn start() -> Progress {
        Progress {
            done_to: 7,
            attempts: 0,
            next_attempt_at: NOW,
            last_error: None,
            delivered_at: None,
        }
    }

    #[test]
    fn an_event_is_tried_seven_times_within_an_hour_and_a_quarter() {
        let delays: Vec<_> = (0..=8).map(retry_delay).collect();
        let some = [Some(1), Some(5), Some(30), Some(120), Some(600), Some(3600)];
        assert_eq!(delays, [&[None], &some[..], &[None, None]].concat());
        assert_eq!(retry_delay(u32::MAX), None);

        let (mut progress, mut now) = (start(), NOW);
        for attempt in 1..=6 {
            assert!(!progress.failed(9, "no", now));
            assert_eq!((progress.done_to, progress.attempts), (7, attempt));
            assert!(progress.next_attempt_at > now);
            now = progress.next_attempt_at;
        }
        assert_eq!(now, NOW.plus(1 + 5 + 30 + 120 + 600 + 3600));
        assert!(progress.failed(9, "no more", now), "the seventh is the last");
        assert_eq!((progress.done_to, progress.attempts), (9, 0));
        assert_eq!((progress.next_attempt_at, progress.delivered_at), (now, None));
        assert_eq!(progress.last_error.as_deref(), Some("no more"));
    }

    #[test]
    fn what_was_delivered_leaves_no_trace_of_failures() {
        let mut progress = start();
        assert!(!progress.failed(9, "no", NOW));
        progress.delivered(9, NOW.plus(1));
        let at = NOW.plus(1);
        let delivered = Some(at);
        let expected =
            Progress { done_to: 9, next_attempt_at: at, delivered_at: delivered, ..start() };
        assert_eq!(progress, expected);
        assert!(!progress.failed(10, "no", at), "the next event has all its attempts");
        assert_eq!(progress.next_attempt_at, at.plus(1));
    }
}
