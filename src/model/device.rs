//! A device's name: the common name of its subject; and what people call it.

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
        if !is_short_text(text) {
            return Err(NotA::new("device name", text, SHORT_TEXT));
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

/// What people say of a device, beside what its certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceMetadata {
    /// Its name for people. No other device of its Factory has it.
    pub alias: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// What kind of hardware it is.
    pub hardware_id: Option<String>,
}

impl DeviceMetadata {
    /// Reads what was said; what is empty was not said.
    ///
    /// # Errors
    /// Unless each is at most 255 bytes without control characters.
    pub fn parse(
        alias: Option<&str>,
        group: Option<&str>,
        hardware_id: Option<&str>,
    ) -> Result<Self, NotA> {
        let read = |what: &'static str, text: Option<&str>| match text {
            None | Some("") => Ok(None),
            Some(text) if is_short_text(text) => Ok(Some(text.to_owned())),
            Some(text) => Err(NotA::new(what, text, SHORT_TEXT)),
        };
        Ok(Self {
            alias: read("device's name for people", alias)?,
            group: read("device group", group)?,
            hardware_id: read("hardware id", hardware_id)?,
        })
    }
}

const SHORT_TEXT: &str = "1 to 255 bytes without control characters";

fn is_short_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control)
}
