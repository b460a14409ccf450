//! The README's five minutes, run as they are written, but for the ports.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The shell blocks of a section, joined.
fn commands(section: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let section = text.split("\n## ").find(|part| part.starts_with(section)).unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn the_five_minutes_of_the_readme_work() {
    let (est, api) = (free_port().to_string(), free_port().to_string());
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_estd")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let script = commands("Five minutes")
        .replace(":8443", &format!(":{est}"))
        .replace(":8080", &format!(":{api}"));
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n{script}");

    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("ESTD_GATEWAY_LISTEN", "127.0.0.1:0")
        .env("ESTD_EST_LISTEN", format!("0.0.0.0:{est}"))
        .env("ESTD_API_LISTEN", format!("127.0.0.1:{api}"))
        .env("ESTD_URL", format!("http://127.0.0.1:{api}"))
        .output()
        .unwrap();

    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    let states: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| ["pending", "current", "superseded"].contains(word))
        .collect();
    assert_eq!(states, ["current", "pending", "superseded", "current"], "{told}");
    assert!(told.contains("Intact:"), "{told}");
}
