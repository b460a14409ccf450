//! The one clock. Floor 1 never looks at it: time reaches the rules as an argument.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// The present in milliseconds since 1970-01-01T00:00:00Z, by the system's clock.
pub fn milliseconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A point in time in whole seconds since 1970-01-01T00:00:00Z, as the ledger stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The present, by the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from(since)
    }

    /// A time as people write it: RFC 3339, or a date, which begins at 0 h UTC. `None` if it is
    /// neither.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Some(Self(time.as_second()));
        }
        let date: jiff::civil::Date = text.parse().ok()?;
        let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(Self(start.timestamp().as_second()))
    }

    /// This time plus `seconds` (which may be negative); saturates.
    #[must_use]
    pub fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// The same as a duration since the epoch; times before it become the epoch.
    pub fn since_epoch(self) -> Duration {
        Duration::from_secs(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<Duration> for UnixTime {
    fn from(since_epoch: Duration) -> Self {
        Self(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX))
    }
}

/// RFC 3339 in UTC. The last day of the year 9999 (the "never expires" of RFC 5280 §4.1.2.5) is
/// outside what the calendar library can say and prints as its latest time.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extreme = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        write!(f, "{}", jiff::Timestamp::from_second(self.0).unwrap_or(extreme))
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::UnixTime;

    #[test]
    fn times_are_read_as_they_are_written_and_dates_begin_at_0_h() {
        let time = UnixTime(1_800_000_000);
        assert_eq!(UnixTime::parse(&time.to_string()), Some(time));
        assert_eq!(UnixTime::parse("2027-01-15"), Some(UnixTime(1_799_971_200)));
        assert_eq!(UnixTime::parse("2027-01-15T08:00:00Z"), Some(time));
        for text in ["", "tomorrow", "2027-13-01", "15.1.2027"] {
            assert_eq!(UnixTime::parse(text), None, "{text}");
        }
    }
}
