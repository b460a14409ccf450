//! A device's name: the common name of its subject.

use std::fmt;

use super::NotA;

/// Which device of a Factory: a UUID in Foundries fleets, any name elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceName(String);

impl DeviceName {
    /// Reads a name.
    ///
    /// # Errors
    /// Unless it is 1 to 255 bytes without control characters.
    pub fn parse(text: &str) -> Result<Self, NotA> {
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            let rule = "1 to 255 bytes without control characters";
            return Err(NotA::new("device name", text, rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
