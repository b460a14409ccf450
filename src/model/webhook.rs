//! Webhooks: which rows of the audit log are events, and where they are posted to.

use std::fmt;

use hyper::Uri;

use super::NotA;
use super::audit::Outcome;

/// The row of a webhook in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookId(pub i64);

/// What people call a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebhookName(String);

/// Where a webhook's events are posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A device has taken another certificate into use.
    DeviceRotated,
    /// Something was refused, and somebody should look at it.
    Alarm,
    /// A rotation was started, paused, resumed, aborted, repeated or has finished.
    Rotation,
    /// A Device CA came, or its state changed.
    DeviceCa,
}

/// The kinds of events that a webhook wants; of no kind means of every kind, also of those to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventKinds(Vec<EventKind>);

impl WebhookName {
    /// Reads a name.
    ///
    /// # Errors
    /// Unless it is 1 to 64 letters, digits, `.`, `_` and `-`: it is part of a header.
    pub fn parse(text: &str) -> Result<Self, NotA> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
            let rule = "1 to 64 letters, digits, '.', '_' and '-'";
            return Err(NotA::new("webhook name", text, rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WebhookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl WebhookUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// Unless it is `http://` or `https://` with a host, without a user or password (the signature
    /// tells who posts) and without a fragment.
    pub fn parse(text: &str) -> Result<Self, NotA> {
        let rule = "http:// or https:// with a host, without user, password and fragment";
        let wrong = || NotA::new("URL of a webhook", without_user(text), rule);
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.host().is_some_and(|host| !host.is_empty());
        let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if !scheme || !host || user || text.contains('#') {
            return Err(wrong());
        }
        Ok(Self(uri))
    }

    /// The URL in its parts.
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

/// A text that should have been a URL, for an error: no password is repeated.
fn without_user(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::DeviceRotated, Self::Alarm, Self::Rotation, Self::DeviceCa];

    /// The word for it in the API and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceRotated => "device-rotated",
            Self::Alarm => "alarm",
            Self::Rotation => "rotation",
            Self::DeviceCa => "device-ca",
        }
    }

    /// The kind that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The actions of the audit log that are such an event when they are done; an alarm is one
    /// whatever was asked.
    pub fn actions(self) -> &'static [&'static str] {
        match self {
            Self::DeviceRotated => &["confirm", "adopt", "readmit"],
            Self::Alarm => &[],
            Self::Rotation => &[
                "start-rotation",
                "pause-rotation",
                "resume-rotation",
                "abort-rotation",
                "retry-rotation",
                "finish-rotation",
            ],
            Self::DeviceCa => &[
                "add-device-ca",
                "disable-device-ca",
                "enable-device-ca",
                "revoke-device-ca",
                "readmit-device-ca",
            ],
        }
    }

    /// The kind of event that a row of the audit log is, if it is one.
    pub fn of(action: &str, outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Alarm => Some(Self::Alarm),
            Outcome::Done => Self::ALL.into_iter().find(|kind| kind.actions().contains(&action)),
            Outcome::Refused => None,
        }
    }
}

impl EventKinds {
    /// Reads the words of kinds.
    ///
    /// # Errors
    /// When one is none.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, NotA> {
        let rule = "device-rotated, alarm, rotation or device-ca";
        let kind =
            |word: &str| EventKind::from_word(word).ok_or(NotA::new("kind of event", word, rule));
        let mut kinds = words.into_iter().map(kind).collect::<Result<Vec<_>, _>>()?;
        kinds.sort_unstable();
        kinds.dedup();
        Ok(Self(kinds))
    }

    /// The kinds that are wanted.
    pub fn wanted(&self) -> &[EventKind] {
        if self.0.is_empty() { &EventKind::ALL } else { &self.0 }
    }

    /// The words of the kinds that were named; none means every kind.
    pub fn words(&self) -> Vec<&'static str> {
        self.0.iter().map(|kind| kind.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_plain_http_or_https_without_credentials() {
        for good in [
            "http://127.0.0.1:9000/",
            "https://hooks.example.com/estd?a=b",
            "https://[::1]:8443/x",
            "http://localhost",
        ] {
            let shown = WebhookUrl::parse(good).unwrap().to_string();
            assert_eq!(shown.trim_end_matches('/'), good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "hooks.example.com",
            "/path",
            "ftp://example.com/",
            "http://",
            "http:///path",
            "https://user@example.com/",
            "https://user:hunter2@example.com/",
            "https://example.com/#top",
            "https://exa mple.com/",
        ] {
            let why = WebhookUrl::parse(bad).unwrap_err().to_string();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn rows_of_the_audit_log_are_events_by_action_and_outcome() {
        use EventKind::{Alarm, DeviceCa, DeviceRotated, Rotation};
        use Outcome::{Done, Refused};
        for (action, outcome, kind) in [
            ("confirm", Done, Some(DeviceRotated)),
            ("readmit", Done, Some(DeviceRotated)),
            ("connect", Outcome::Alarm, Some(Alarm)),
            ("confirm", Outcome::Alarm, Some(Alarm)),
            ("finish-rotation", Done, Some(Rotation)),
            ("start-rotation", Refused, None),
            ("revoke-device-ca", Done, Some(DeviceCa)),
            ("revoke-device-ca", Refused, None),
            ("register", Done, None),
        ] {
            assert_eq!(EventKind::of(action, outcome), kind, "{action} {outcome:?}");
        }
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_word(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn no_event_named_means_every_event() {
        assert_eq!(EventKinds::parse([]).unwrap().wanted(), EventKind::ALL);
        let two = EventKinds::parse(["rotation", "alarm", "rotation"]).unwrap();
        assert_eq!(two.words(), ["alarm", "rotation"]);
        assert!(EventKinds::parse(["alarm", "alarms"]).is_err());
    }
}
