//! The house keeps its shape: a floor uses those below it, some crates have one door each, and what
//! the documents list is what the code has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use estd::model::Refusal;

/// Every module with its floor. Modules beside the floors may be used by all.
const FLOORS: &[(&str, u8)] = &[
    ("pki", 1),
    ("model", 1),
    ("policy", 1),
    ("ledger", 2),
    ("keys", 2),
    ("client", 2),
    ("enrol", 3),
    ("factory", 3),
    ("fleet", 3),
    ("listener", 4),
    ("est", 5),
    ("gateway", 5),
    ("api", 5),
    ("cli", 6),
    ("demo", 6),
    ("serve", 6),
];
const BESIDE: &[&str] = &["clock", "config", "files", "telemetry"];

/// What may be named only here.
const DOORS: &[(&str, &[&str])] = &[
    ("sqlx", &["ledger"]),
    ("rustls", &["listener", "client"]),
    ("tokio_rustls", &["listener", "client"]),
    ("axum", &["est", "gateway", "api"]),
    ("clap", &["cli", "config"]),
    ("cryptoki", &["keys"]),
];

struct Source {
    path: PathBuf,
    /// The first segment below `src`, without `.rs`.
    module: String,
    /// Without its tests.
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join("src"), &mut found);
    assert!(found.len() > 50, "the sources are not where this test looks for them");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.to_string_lossy().ends_with("_tests.rs")
        {
            let text = fs::read_to_string(&path).unwrap();
            let inside = path.strip_prefix(root().join("src")).unwrap();
            let module = inside.iter().next().unwrap().to_string_lossy();
            found.push(Source {
                module: module.trim_end_matches(".rs").to_owned(),
                text: text.split("#[cfg(test)]").next().unwrap().to_owned(),
                path,
            });
        }
    }
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// Each `crate::MODULE` outside comments.
fn used_modules(source: &Source) -> Vec<String> {
    let code = source.text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|module: &String| floor(module).is_some())
        .collect()
}

#[test]
fn every_module_has_its_floor() {
    for source in sources() {
        let known = floor(&source.module).is_some() || BESIDE.contains(&source.module.as_str());
        let top = ["lib", "main"].contains(&source.module.as_str());
        assert!(known || top, "{} stands on no floor", source.path.display());
    }
}

#[test]
fn a_floor_uses_only_those_below_it() {
    for source in sources() {
        let Some(own) = floor(&source.module) else { continue };
        for used in used_modules(&source).into_iter().filter(|used| *used != source.module) {
            let below = floor(&used).unwrap();
            let beside_is_fine = own != 3 && own != 5;
            assert!(
                below < own || (below == own && beside_is_fine),
                "{} (floor {own}) uses {used} (floor {below})",
                source.path.display()
            );
        }
    }
}

/// It goes to devices as well, where there is no server.
#[test]
fn the_client_uses_pki_and_nothing_else_of_the_house() {
    for source in sources().into_iter().filter(|source| source.module == "client") {
        let others: Vec<_> =
            used_modules(&source).into_iter().filter(|used| used != "pki").collect();
        assert!(others.is_empty(), "{} uses {others:?}", source.path.display());
    }
}

#[test]
fn a_crate_with_a_door_is_named_only_behind_it() {
    for source in sources() {
        for (name, doors) in DOORS.iter().filter(|(_, doors)| !doors.contains(&&*source.module)) {
            let mut lines = source.text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let named = |line: &str| {
                line.split(&format!("{name}::")).next().is_some_and(|before| {
                    before.len() < line.len()
                        && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                })
            };
            let found = lines.find(|line| named(line));
            assert!(found.is_none(), "{}: {name}, which is for {doors:?}", source.path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for source in sources() {
        assert!(source.text.starts_with("//! "), "{}", source.path.display());
    }
}

#[test]
fn the_page_of_refusals_lists_every_code_and_no_other() {
    let page = fs::read_to_string(root().join("docs/refusals.md")).unwrap();
    let listed: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let codes: Vec<&str> = Refusal::ALL.iter().map(|(code, _)| *code).collect();
    for code in &codes {
        assert!(listed.contains(code), "{code} is not in docs/refusals.md");
    }
    for code in listed {
        assert!(codes.contains(&code), "docs/refusals.md lists {code}, which is no refusal");
    }
}
