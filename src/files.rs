//! Files that are there whole, on disk, or not at all.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Puts a file in the place of another, if there is one: whoever reads it finds the old contents or
/// the new, at any moment, and the new are on disk when this returns.
///
/// # Errors
/// When it cannot be written; the old one stays then.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    written(path, contents, mode)?.persist(path)?;
    sync_folder(path)
}

/// Makes a file that is not there: it is on disk when this returns.
///
/// # Errors
/// When there is one, which stays as it is, or it cannot be written.
pub fn create(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    written(path, contents, mode)?.persist_noclobber(path)?;
    sync_folder(path)
}

/// Makes what became of names in the folder of `path` durable.
///
/// # Errors
/// When the folder cannot be read.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The contents on disk, under a name that does not matter.
fn written(path: &Path, contents: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(folder(path))?;
    file.write_all(contents)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
