//! Configuration files that operators set for devices: fleet, then group, then device.

use serde::{Deserialize, Serialize};

use super::{DeviceName, NotA};

/// How many bytes a file may have.
const VALUE_LIMIT: usize = 128 * 1024;

/// For whom a file is. Of several of one name a device gets that of the narrowest scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigScope {
    /// Every device of the Factory.
    Factory,
    /// The devices of a group.
    Group(String),
    /// One device.
    Device(DeviceName),
}

/// A configuration file, as fioctl writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConfigFile {
    /// Its name.
    pub name: String,
    /// What is in it; encrypted for the device's key unless it says otherwise.
    pub value: String,
    /// Whether it is not encrypted.
    #[serde(default)]
    pub unencrypted: bool,
    /// What a device runs when it has changed.
    #[serde(default)]
    pub on_changed: Vec<String>,
}

impl ConfigScope {
    /// How many files there may be of a scope.
    pub const FILES_LIMIT: i64 = 256;

    /// How many bytes all files of the scope may have together. A device gives its own back in one
    /// request when it switches to another key.
    pub fn size_limit(&self) -> i64 {
        match self {
            Self::Factory | Self::Group(_) => 1024 * 1024,
            Self::Device(_) => 128 * 1024,
        }
    }

    /// The word for it in the ledger.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Factory => "factory",
            Self::Group(_) => "group",
            Self::Device(_) => "device",
        }
    }

    /// The group or the device; nothing for the Factory.
    pub fn owner(&self) -> &str {
        match self {
            Self::Factory => "",
            Self::Group(group) => group,
            Self::Device(device) => device.as_str(),
        }
    }
}

impl ConfigFile {
    /// Says what is wrong with a file, if anything is: devices make a file of its name.
    ///
    /// # Errors
    /// Unless its name is 1 to 255 letters, digits, `.`, `_` and `-`, not beginning with a dot, and it
    /// is not too large.
    pub fn check(&self) -> Result<(), NotA> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let (name, length) = (&self.name, self.name.len());
        if !(1..=255).contains(&length) || name.starts_with('.') || !name.chars().all(allowed) {
            let rule = "1 to 255 letters, digits, '.', '_' and '-', not beginning with a dot";
            return Err(NotA::new("configuration file name", name, rule));
        }
        let whole = self.value.len() + self.on_changed.iter().map(String::len).sum::<usize>();
        if whole > VALUE_LIMIT || self.value.contains('\0') {
            let rule = "text of at most 128 KiB without NUL";
            return Err(NotA::new("configuration file", name, rule));
        }
        Ok(())
    }
}
