//! `estd demo`: what a newcomer sees first.

use crate::host::{Done, Host};
use crate::support::Backend;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_shows_the_fleet_before_and_after_and_leaves_nothing_behind() {
    let host = Host::new(Backend::Sqlite).await;
    let (temporary, here) = (host.file("temporary"), host.file("here"));
    std::fs::create_dir(&temporary).unwrap();
    std::fs::create_dir(&here).unwrap();
    let mut command = host.bare_command();
    command.arg("demo").env("TMPDIR", &temporary).current_dir(&here);
    let told = Done::of(command).success();

    let line = |ca: &str| {
        let counts =
            told.lines().filter(|line| line.contains(ca) && line.trim().starts_with("OU="));
        let counts = counts.map(|line| line.split_whitespace().rev().take(2).collect::<Vec<_>>());
        counts.map(|counts| (counts[1].to_owned(), counts[0].to_owned())).collect::<Vec<_>>()
    };
    let count = |current: &str, pending: &str| (current.to_owned(), pending.to_owned());
    assert_eq!(line("factory line 1"), [count("25", "0"), count("1", "0")], "{told}");
    let online = line("demo-factory online Device CA");
    assert_eq!(online, [count("24", "0"), count("25", "0")], "{told}");
    for words in [
        "25 of 25 registered",
        "for a device that nobody knows: the server answered 403: ",
        "(ca-disabled-unregistered)",
        "for a device that is known: the server answered 403: ",
        "(credential-unknown)",
        "1 first, then 600 a minute",
        "24 of 24 switched",
        "1 of them came back with the certificate of before",
        "No: refused, since it would strand the 1 that are switched off.",
        "1 of 1 switched",
        "25 of 25 connected, each with its current credential",
        "the rotation has finished: 25 confirmed",
        "superseded  issued by OU=demo-factory,CN=factory line 1",
        "its Device CA is revoked",
        "its chain is intact",
    ] {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    for folder in [temporary, here] {
        let left: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A fleet with its accidents: the demo itself proves that no device ends without an accepted
/// credential, that the rotation's counts are what has happened, and that the gate opens only then.
/// By hand with more: `cargo run --release -- demo --devices 10000`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_i8_a_fleet_with_accidents_rotates_whole() {
    let host = Host::new(Backend::Sqlite).await;
    let told = host.estd(&["demo", "--devices", "400"]).success();
    for words in [
        "8 of them came back with the certificate of before",
        "since it would strand the 16 that are switched off",
        "400 of 400 connected, each with its current credential",
        "the rotation has finished: 400 confirmed",
    ] {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_takes_as_many_devices_as_asked() {
    let host = Host::new(Backend::Sqlite).await;
    let one = host.estd(&["demo", "--devices", "1"]).success();
    assert!(one.contains("1 of 1 switched") && one.contains("Yes: no device depends on it."));
    for wrong in ["0", "10001", "x"] {
        assert_eq!(host.estd(&["demo", "--devices", wrong]).code, Some(2), "{wrong}");
    }
}
