//! `estd rotation`: what a fleet manager sees of a rotation.

use serde_json::json;

use crate::host::{Done, Host};
use crate::on_both_ledgers;
use crate::operator::{rotate, session};

on_both_ledgers! {
    async fn a_rotation_from_the_command_line(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        let names = ["device-1", "device-2", "device-3"];
        let devices = names.map(|name| line.device(name, name));
        for device in &devices {
            session(&server, &root, device).await;
        }
        let serial = line.certificate().serial().to_string();
        let rotation = |arguments: &[&str]| server.estd(&host, &[&["rotation"], arguments].concat());

        let dry = rotation(&["start", "--ca", &serial, "--dry-run"]).success();
        assert_eq!(dry.lines().next(), Some("3 devices would be in it."), "{dry}");
        assert_eq!(dry.lines().count(), 4, "{dry}");
        assert_eq!(rotation(&["list"]).success().lines().count(), 1, "nothing has started");

        host.write("names", "device-1\n\n device-2 \n");
        let late = ["--begin", "2100-01-01", "--id", "two", "--reason", "a try"];
        let start = [&["start", "--devices-from", "names"], &late[..]].concat();
        let started = rotation(&start).success();
        assert!(started.starts_with("two has started: 2 devices.\n"), "{started}");
        let list = rotation(&["list"]).success();
        assert!(list.lines().nth(1).unwrap().starts_with("two       running  2        0"), "{list}");
        let show = rotation(&["show", "two"]).success();
        assert!(show.contains("Devices     2: 2 waiting\n"), "{show}");
        assert!(show.contains("Selection   named 2\n"), "{show}");
        assert!(show.contains("begin 2100-01-01T00:00:00Z"), "{show}");
        assert_eq!(rotation(&["pause", "two"]).success(), "two is paused.\n");
        assert_eq!(rotation(&["resume", "two"]).success(), "two is running.\n");
        let export = rotation(&["export", "two", "--state", "waiting"]).success();
        let lines: Vec<_> = export.lines().collect();
        assert_eq!(lines[0], "name,ordinal,state,since,reason,detail,last_seen_at");
        assert!(lines[1].starts_with("device-") && lines[1].contains(",1,waiting,20"), "{export}");
        let file = rotation(&["export", "two", "--fioconfig"]).json();
        let value = file["files"][0]["value"].as_str().unwrap();
        assert!(value.starts_with("ESTSERVER=https://localhost:"), "{value}");
        assert!(value.ends_with("/.well-known/est\nPKEYIDS=01,07\nCERTIDS=03,09\nROTATIONID=two\n"));
        assert_eq!((&file["reason"], &file["files"][0]["name"]), (&json!("a try"), &json!("fio-rotate-certs")));
        assert_eq!(rotation(&["abort", "two", "--reason", "enough"]).success(), "two is aborted.\n");

        // In a pipe: a line for each change, until it ends.
        let fast = ["start", "--ca", &serial, "--id", "all", "--per-minute", "600000", "--json"];
        assert_eq!(rotation(&fast).json()["devices"], 3);
        let watch = server.command(&host, &["rotation", "watch", "all"]);
        let watch = std::thread::spawn(move || Done::of(watch));
        for device in &devices {
            session(&server, &root, &rotate(&server, &root, device).await).await;
        }
        let watched = watch.join().unwrap().success();
        assert_eq!(watched.lines().last(), Some("finished; 3 confirmed"), "{watched}");
        let story = server.estd(&host, &["device", "show", "device-1"]).success();
        assert!(story.contains("ROTATION") && story.contains("confirmed"), "{story}");
        server.stop().await;
    }
}

#[tokio::test]
async fn what_is_no_rotation_is_told_plainly() {
    let (host, _root) = Host::with_factory(crate::support::Backend::Sqlite).await;
    let server = host.serve().await;
    let rotation = |arguments: &[&str]| server.estd(&host, &[&["rotation"], arguments].concat());
    for (usage, why) in [
        (&["start"][..], "required arguments were not provided"),
        (&["start", "--all", "--group", "x"], "cannot be used with"),
    ] {
        let done = rotation(usage);
        assert!(done.code == Some(2) && done.stderr.contains(why), "{done:?}");
    }
    rotation(&["start", "--group", "x"]).refused("no device is in the group \"x\"");
    rotation(&["start", "--all"]).refused("no device is left to rotate");
    rotation(&["start", "--all", "--per-minute", "0"]).refused("a pace is 1 to");
    rotation(&["start", "--devices-from", "nowhere"]).refused("nowhere");
    host.write("empty", "\n");
    rotation(&["start", "--devices-from", "empty"]).refused("1 to 10000 devices");
    rotation(&["show", "a/b"]).refused("there is no such rotation");
    rotation(&["watch", "none"]).refused("there is no such rotation");
    server.stop().await;
}
