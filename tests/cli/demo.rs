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
    assert_eq!(line("factory line 1"), [count("25", "0"), count("25", "25")], "{told}");
    assert_eq!(line("demo-factory online Device CA"), [count("25", "0")], "{told}");
    for words in [
        "25 of 25 registered",
        "25 of 25 re-enrolled",
        "25 of 25 switched",
        "superseded  issued by OU=demo-factory,CN=factory line 1",
        "refused, and on record as an alarm: ",
        "(credential-unknown)",
        "its chain is intact",
    ] {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    for folder in [temporary, here] {
        let left: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_takes_as_many_devices_as_asked() {
    let host = Host::new(Backend::Sqlite).await;
    assert!(host.estd(&["demo", "--devices", "1"]).success().contains("1 of 1 switched"));
    for wrong in ["0", "10001", "x"] {
        assert_eq!(host.estd(&["demo", "--devices", wrong]).code, Some(2), "{wrong}");
    }
}
