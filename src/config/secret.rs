//! Where a secret comes from: the environment, a systemd credential or a file. It never stands in the
//! configuration file, and never prints.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// What only its owner's group and everybody else could read by.
const READ_BY_OTHERS: u32 = 0o077;

/// A secret. It prints as nothing.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

/// Where a secret is read.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// An environment variable.
    Environment(&'static str, Secret),
    /// A systemd credential: a file that systemd has made, with the rights that it chose.
    Credential(PathBuf),
    /// A file of the operator's, which nobody else may read.
    File(PathBuf),
}

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file can be read by others.
    #[error("{path} can be read by others (mode {mode:04o}): chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl Secret {
    /// Takes a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl SecretSource {
    /// What the environment of this process says: the variable, else the systemd credential.
    pub(super) fn of_this_process(variable: &'static str, credential: &str) -> Option<Self> {
        if let Some(value) = std::env::var_os(variable) {
            return Some(Self::Environment(variable, Secret::new(value.to_string_lossy().into())));
        }
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
        let path = Path::new(&folder).join(credential);
        path.exists().then_some(Self::Credential(path))
    }

    /// Reads the secret, without the line's end.
    ///
    /// # Errors
    /// When the file cannot be read, or others can read it.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let path = match self {
            Self::Environment(_, secret) => return Ok(secret.clone()),
            Self::Credential(path) => path,
            Self::File(path) => {
                must_be_private(path)?;
                path
            }
        };
        let io_error = |source| SecretError::Io { path: path.clone(), source };
        let text = Zeroizing::new(fs::read_to_string(path).map_err(io_error)?);
        Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

fn must_be_private(path: &Path) -> Result<(), SecretError> {
    let metadata =
        fs::metadata(path).map_err(|source| SecretError::Io { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & READ_BY_OTHERS != 0 {
        return Err(SecretError::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(variable, _) => f.write_str(variable),
            Self::Credential(path) | Self::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Secret, SecretError, SecretSource};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_can_read_is_refused_with_what_to_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, "1234\n").unwrap();
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = SecretSource::File(path.clone()).read();
            assert_eq!(read.is_ok(), fine, "{mode:o}");
            if let Err(why) = read {
                assert!(matches!(why, SecretError::Mode { .. }));
                assert!(why.to_string().ends_with(&format!("chmod 600 {}", path.display())));
            }
        }
        // systemd has chosen the rights of a credential.
        assert_eq!(SecretSource::Credential(path).read().unwrap().as_str(), "1234");
    }

    #[test]
    fn a_secret_never_prints() {
        let source = SecretSource::Environment("NAME", Secret::new("swordfish".to_owned()));
        assert!(!format!("{source} {source:?}").contains("swordfish"));
    }
}
