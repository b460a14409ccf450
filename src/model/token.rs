//! A token of the API: who bears it, what it may do, where, and until when.

use std::fmt;

use super::{FactoryId, NotA};
use crate::clock::UnixTime;

/// What the bearer of a token may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Runs the fleet: lets devices come back, decides held requests.
    Operator,
    /// Changes the PKI and the tokens.
    Admin,
}

/// Who the audit log names for what was done with a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenName(String);

/// A token as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub name: TokenName,
    /// What its bearer may do.
    pub role: Role,
    /// The only Factory that it is good for; `None`: every Factory.
    pub factory: Option<FactoryId>,
    /// When it ends by itself.
    pub expires_at: Option<UnixTime>,
    /// When somebody ended it.
    pub revoked_at: Option<UnixTime>,
}

/// Whether a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It is.
    Active,
    /// It has ended by itself.
    Expired,
    /// Somebody has ended it.
    Revoked,
}

impl Role {
    /// Every role, the smallest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TokenName {
    /// Who the audit log names for what was done with the admin token of the data folder. No other
    /// token has this name.
    pub const ADMIN: &str = "admin";

    /// Reads a name.
    ///
    /// # Errors
    /// Unless it is 1 to 64 letters, digits, `.`, `_` and `-`, and not the name of the admin token.
    pub fn parse(text: &str) -> Result<Self, NotA> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        // The audit log's "command line" and "unknown token" are none either: they have a space.
        let reserved = text.eq_ignore_ascii_case(Self::ADMIN);
        if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) || reserved {
            let rule = "1 to 64 letters, digits, '.', '_' and '-', other than \"admin\"";
            return Err(NotA::new("token name", text, rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Token {
    /// Whether it is good at the time `now`.
    pub fn state(&self, now: UnixTime) -> TokenState {
        if self.revoked_at.is_some() {
            TokenState::Revoked
        } else if self.expires_at.is_some_and(|end| end <= now) {
            TokenState::Expired
        } else {
            TokenState::Active
        }
    }
}

impl TokenState {
    /// The word for it in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_grow() {
        let [viewer, operator, admin] = Role::ALL;
        assert!(viewer < operator && operator < admin);
        for role in Role::ALL {
            assert_eq!(Role::from_word(role.as_str()), Some(role));
        }
        assert_eq!(["", "Admin", "root"].map(Role::from_word), [None; 3]);
    }

    #[test]
    fn a_token_name_is_plain_and_nobody_elses() {
        for good in ["ci", "A.b_c-9", "..", "administrator", &"x".repeat(64)] {
            assert_eq!(TokenName::parse(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(65);
        let reserved = ["admin", "Admin", "command line", "unknown token"];
        for bad in ["", " ", "a b", "a/b", "a\n", "é", &long].into_iter().chain(reserved) {
            assert!(TokenName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_good_until_it_ends_or_is_ended() {
        let state = |expires_at: Option<i64>, revoked_at: Option<i64>| {
            let token = Token {
                name: TokenName::parse("ci").unwrap(),
                role: Role::Viewer,
                factory: None,
                expires_at: expires_at.map(UnixTime),
                revoked_at: revoked_at.map(UnixTime),
            };
            token.state(UnixTime(100))
        };
        assert_eq!(state(None, None), TokenState::Active);
        assert_eq!(state(Some(101), None), TokenState::Active);
        assert_eq!(state(Some(100), None), TokenState::Expired);
        assert_eq!(state(None, Some(100)), TokenState::Revoked);
        // By a clock that was ahead of this one.
        assert_eq!(state(None, Some(200)), TokenState::Revoked);
        assert_eq!(state(Some(99), Some(98)), TokenState::Revoked);
    }
}
