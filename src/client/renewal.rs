//! When to renew, and when to ask again. Pure: time and chance are arguments.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SecureRandom;

use crate::clock::UnixTime;
use crate::pki::Validity;

/// How often a server is asked that does not say how often, in seconds.
const POLL: u64 = 6 * 3600;
/// The longest pause between two looks at the window.
const LONGEST_POLL: u64 = 24 * 3600;
/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: u64 = 30;
/// The longest pause that this makes of it.
const LONGEST_PAUSE: u64 = 6 * 3600;

/// From when until when to renew; `end` is not before `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub start: UnixTime,
    /// The last.
    pub end: UnixTime,
}

/// A number in [0, 1), drawn once for each certificate: where in any window its moment is. So a
/// window that has not changed has the same moment each time it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Draw(u32);

impl Draw {
    /// Draws one.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn new(random: &dyn SecureRandom) -> Result<Self, Unspecified> {
        let mut bytes = [0; 4];
        random.fill(&mut bytes)?;
        Ok(Self(u32::from_be_bytes(bytes)))
    }

    /// This share of `whole`.
    fn of(self, whole: u64) -> u64 {
        let share = (u128::from(self.0) * u128::from(whole)) >> u32::BITS;
        u64::try_from(share).unwrap_or(whole)
    }
}

impl Window {
    /// The window of a certificate whose server suggests none: a twentieth of its lifetime, after two
    /// thirds of it.
    pub fn of_lifetime(validity: Validity) -> Self {
        let life = validity.not_after.0.saturating_sub(validity.not_before.0).max(0);
        let start = validity.not_before.plus(life / 3 * 2);
        Self { start, end: start.plus(life / 20) }
    }

    /// The part of it in which a certificate is still renewed with time to spare: a tenth of its
    /// lifetime is left for what may go wrong, so that a window later than that is at its beginning.
    /// `None` if the certificate would have ended before the window.
    pub fn within(self, validity: Validity) -> Option<Self> {
        let life = validity.not_after.0.saturating_sub(validity.not_before.0).max(0);
        let latest = validity.not_after.plus(-(life / 10));
        let (start, end) = (self.start.min(latest), self.end.min(latest));
        (self.start <= validity.not_after).then_some(Self { start, end })
    }

    /// The moment in it to renew at.
    pub fn moment(self, draw: Draw) -> UnixTime {
        let length = u64::try_from(self.end.0.saturating_sub(self.start.0)).unwrap_or(0);
        self.start.plus(i64::try_from(draw.of(length)).unwrap_or(0))
    }
}

/// In how many seconds to look at the window again, or to renew if that comes first: after what the
/// server says and up to a tenth more, so that what polls together does not stay together.
pub fn poll_again(retry_after: Option<u64>, now: UnixTime, moment: UnixTime, draw: Draw) -> u64 {
    let poll = retry_after.unwrap_or(POLL).clamp(1, LONGEST_POLL);
    let poll = (poll + draw.of(poll / 10 + 1)).min(LONGEST_POLL);
    let until = u64::try_from(moment.0.saturating_sub(now.0)).unwrap_or(0);
    poll.min(until).max(1)
}

/// In how many seconds to try again after this many failures in a row (at least one): never earlier
/// than the server says, but for more than a day; twice as long after each, and up to half as long
/// again.
pub fn back_off(failures: u32, retry_after: Option<u64>, draw: Draw) -> u64 {
    let doubled = 2_u64.saturating_pow(failures.saturating_sub(1));
    let pause = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
    let pause = retry_after.unwrap_or(0).min(LONGEST_POLL).max(pause);
    pause + draw.of(pause / 2 + 1)
}

/// The pause after a failure, shortened so that several attempts come before the certificate ends: to
/// a quarter of what is left of it, but not below 30 seconds.
pub fn in_time(pause: u64, now: UnixTime, not_after: UnixTime) -> u64 {
    match u64::try_from(not_after.0.saturating_sub(now.0)) {
        Ok(left @ 1..) => pause.min((left / 4).max(FIRST_PAUSE)),
        _ => pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    const DRAWS: [Draw; 4] = [Draw(0), Draw(1), Draw(u32::MAX / 2), Draw(u32::MAX)];

    fn window(start: i64, end: i64) -> Window {
        Window { start: NOW.plus(start), end: NOW.plus(end) }
    }

    #[test]
    fn moments_are_spread_evenly_over_the_window() {
        let window = window(0, 1000);
        let quarters = (0..4_u32).map(|part| window.moment(Draw(part << 30)).0 - NOW.0);
        assert_eq!(quarters.collect::<Vec<_>>(), [0, 250, 500, 750]);
        assert_eq!(window.moment(Draw(u32::MAX)), NOW.plus(999));
        for draw in DRAWS {
            let point = Window { start: NOW, end: NOW };
            assert_eq!(point.moment(draw), NOW);
        }
    }

    #[test]
    fn lifetimes_have_a_window_after_two_thirds() {
        let of = |life: i64| {
            Window::of_lifetime(Validity { not_before: NOW, not_after: NOW.plus(life) })
        };
        assert_eq!(of(300), window(200, 215));
        assert_eq!(of(0), window(0, 0));
        assert_eq!(of(-5), window(0, 0), "no lifetime at all");
        let endless = Validity { not_before: UnixTime(0), not_after: UnixTime(i64::MAX) };
        assert!(Window::of_lifetime(endless).end < UnixTime(i64::MAX));
    }

    #[test]
    fn windows_leave_a_tenth_of_the_lifetime_for_what_may_go_wrong() {
        let validity = Validity { not_before: NOW, not_after: NOW.plus(100) };
        assert_eq!(window(50, 60).within(validity), Some(window(50, 60)));
        assert_eq!(window(-9, 900).within(validity), Some(window(-9, 90)));
        assert_eq!(window(99, 900).within(validity), Some(window(90, 90)));
        assert_eq!(window(101, 900).within(validity), None);
    }

    #[test]
    fn polls_are_within_a_second_and_a_day_and_end_at_the_moment() {
        let far = NOW.plus(1_000_000);
        for (told, moment, least, most) in [
            (Some(600), far, 600, 660),
            (Some(0), far, 1, 1),
            (Some(u64::MAX), far, DAY, DAY),
            (None, far, 6 * HOUR, 6 * HOUR + HOUR * 6 / 10),
            (Some(600), NOW.plus(5), 5, 5),
            (Some(600), NOW, 1, 1),
            (Some(600), NOW.plus(-5), 1, 1),
        ] {
            for draw in DRAWS {
                let pause = poll_again(told, NOW, moment, draw);
                assert!((least..=most).contains(&pause), "{told:?} {moment} {draw:?}: {pause}");
            }
        }
    }

    #[test]
    fn failures_are_retried_later_and_later_and_never_before_the_server_says() {
        for (failures, told, least) in [
            (1, None, 30),
            (2, None, 60),
            (5, None, 480),
            (40, None, 6 * HOUR),
            (u32::MAX, None, 6 * HOUR),
            (1, Some(5), 30),
            (1, Some(120), 120),
            (3, Some(u64::MAX), DAY),
        ] {
            for draw in DRAWS {
                let pause = back_off(failures, told, draw);
                assert!((least..=least * 3 / 2).contains(&pause), "{failures} {told:?}: {pause}");
            }
        }
    }

    #[test]
    fn failures_are_retried_several_times_before_the_certificate_ends() {
        let pause = 6 * HOUR;
        for (left, shortened) in [
            (30 * 24 * 3600, pause),
            (4 * 3600, HOUR),
            (120, 30),
            (1, 30),
            (0, pause),
            (-5, pause),
            (i64::MAX, pause),
        ] {
            assert_eq!(in_time(pause, NOW, NOW.plus(left)), shortened, "{left}");
        }
        assert_eq!(in_time(30, NOW, NOW.plus(7 * 24 * 3600)), 30);
    }
}
