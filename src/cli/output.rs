//! What commands print. Everything that came from a device is escaped: it ends on a terminal.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::files;

/// Prints JSON, indented.
pub(super) fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a line.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Prints a line for whoever reads along: what runs for ever does so without them, or on a full disk.
pub(super) fn report(text: &str) {
    let _unread = writeln!(io::stdout(), "{text}");
}

/// The same for what went wrong, on standard error.
pub(super) fn complain(text: &str) {
    let _unread = writeln!(io::stderr(), "estd: {text}");
}

/// Prints rows below a head, in columns.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let head = head.get(column).map_or(0, |cell| cell.chars().count());
        cells.chain([head]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let print = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    print(head.to_vec())?;
    rows.iter().try_for_each(|row| print(row.iter().map(String::as_str).collect()))
}

/// Prints these fields of JSON objects as CSV, absent ones empty.
pub(super) fn csv(keys: &[&str], objects: &[Value]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(io::stdout());
    writer.write_record(keys)?;
    for object in objects {
        let text = |key: &&str| match object.get(*key) {
            None | Some(Value::Null) => String::new(),
            Some(_) => field(object, key),
        };
        writer.write_record(keys.iter().map(text))?;
    }
    Ok(writer.flush()?)
}

/// A field of a JSON object as text: strings bare, absent ones as `-`, control characters escaped.
pub(super) fn field(object: &Value, key: &str) -> String {
    let text = match object.get(key) {
        None | Some(Value::Null) => return "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let escape = |c: char| {
        if c.is_control() { c.escape_default().to_string() } else { c.into() }
    };
    text.chars().map(escape).collect()
}

/// Says that one of these files is there, before anything is done that would need its place.
pub(super) fn must_be_new(paths: &[&Path]) -> anyhow::Result<()> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => bail!("{} is there already and is not overwritten", path.display()),
        None => Ok(()),
    }
}

/// Writes a new file that only its owner can read; one that is there is never overwritten.
pub(super) fn write_secret(path: &Path, contents: &str) -> anyhow::Result<()> {
    create(path, contents, 0o600)
}

/// Writes a new file; one that is there is never overwritten.
pub(super) fn write_new(path: &Path, contents: &str) -> anyhow::Result<()> {
    create(path, contents, 0o644)
}

/// Writes a file whole: whoever reads it meanwhile sees the old one or the new one.
pub(super) fn replace(path: &Path, contents: &str) -> anyhow::Result<()> {
    let replaced = files::replace(path, contents.as_bytes(), 0o644);
    replaced.with_context(|| path.display().to_string())
}

fn create(path: &Path, contents: &str, mode: u32) -> anyhow::Result<()> {
    let created = files::create(path, contents.as_bytes(), mode);
    created.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn new_files_are_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_secret(&path, "one").unwrap();
        let refused = format!("{:#}", write_secret(&path, "two").unwrap_err());
        assert!(refused.contains("File exists"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        write_new(&folder.path().join("certificate"), "three").unwrap();
        let names = std::fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 2, "nothing else is left");
    }
}
