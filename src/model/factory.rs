//! A Factory: one tenant.

use std::fmt;

use super::NotA;
use crate::pki::Certificate;

/// A Factory's row in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FactoryId(pub i64);

/// A Factory's name, as it stands in its devices' subjects (OU) and in API paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FactoryName(String);

/// One tenant: a Root of Trust, its server certificates, Device CAs and devices.
#[derive(Clone, Debug)]
pub struct Factory {
    /// Its row in the ledger.
    pub id: FactoryId,
    /// Its name.
    pub name: FactoryName,
    /// The host name of its EST server certificate.
    pub est_host: HostName,
    /// The host name of its device gateway's certificate.
    pub gateway_host: HostName,
    /// Whether its devices' subjects may carry another OU than the Factory's name.
    pub any_organizational_unit: bool,
    /// The Root of Trust, once it is set (I9).
    pub root: Option<Certificate>,
}

/// What a server certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerPurpose {
    /// `est-tls-crt`: the EST listener.
    Est,
    /// `tls-crt`: the device gateway.
    Gateway,
}

impl ServerPurpose {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Est, Self::Gateway];

    /// The word for it in the ledger, the API and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Est => "est-tls",
            Self::Gateway => "tls",
        }
    }

    /// The purpose that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text)
    }
}

impl Factory {
    /// The host name that the server certificate for `purpose` must bear.
    pub fn host(&self, purpose: ServerPurpose) -> &HostName {
        match purpose {
            ServerPurpose::Est => &self.est_host,
            ServerPurpose::Gateway => &self.gateway_host,
        }
    }
}

impl FactoryName {
    /// Reads a name.
    ///
    /// # Errors
    /// Unless it is 1 to 64 letters, digits, `.`, `_` and `-`, and not a dot or two.
    pub fn parse(text: &str) -> Result<Self, NotA> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        // A folder may bear it.
        let dotted = matches!(text, "." | "..");
        if text.is_empty() || text.len() > 64 || dotted || !text.chars().all(allowed) {
            let rule = "1 to 64 letters, digits, '.', '_' and '-', and not a dot or two";
            return Err(NotA::new("Factory name", text, rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FactoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A DNS host name, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl HostName {
    /// Reads a host name.
    ///
    /// # Errors
    /// Unless it is DNS labels of letters, digits and `-`, 253 characters at most.
    pub fn parse(text: &str) -> Result<Self, NotA> {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(NotA::new("host name", text, "DNS labels joined by dots, without a port"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
