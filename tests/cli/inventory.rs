//! The inventory: which devices use which certificates.

use crate::host::Host;
use crate::on_both_ledgers;
use crate::operator::{rotate, session};

on_both_ledgers! {
    async fn device_list_narrows_by_what_devices_use(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        for name in ["device-1", "device-2", "device-3"] {
            session(&server, &root, &line.device(name, name)).await;
        }
        // One has switched, one may have.
        let switched = rotate(&server, &root, &line.device("device-4", "device-4")).await;
        session(&server, &root, &switched).await;
        rotate(&server, &root, &line.device("device-5", "device-5")).await;

        let names = |options: &[&str]| {
            let list = server.estd(&host, &[&["--json", "device", "list"], options].concat()).json();
            let devices = list["devices"].as_array().unwrap().iter();
            let names = devices.map(|one| one["name"].as_str().unwrap().to_owned());
            names.map(|name| name.trim_start_matches("device-").to_owned()).collect::<String>()
        };
        let serial = line.certificate().serial().to_string();
        let online = switched.certificate.issuer().common_name().unwrap();
        assert_eq!(names(&[]), "12345");
        assert_eq!(names(&["--ca", &serial]), "1235");
        assert_eq!(names(&["--pending"]), "5");
        assert_eq!(names(&["--ca", &serial, "--pending"]), "5");
        assert_eq!(names(&["--key-algorithm", "P-256"]), "12345");
        assert_eq!(names(&["--key-algorithm", "RSA-2048"]), "");
        // What was issued here lives for a year; what the line issued, for ten.
        let soon = estd::clock::UnixTime::now().plus(400 * 24 * 3600).to_string();
        assert_eq!(names(&["--expires-before", &soon]), "4");
        assert_eq!(names(&["--expires-before", "2026-01-01"]), "");
        assert_eq!(names(&["--silent-since", "2026-01-01"]), "");
        assert_eq!(names(&["--silent-since", &soon]), "12345");
        assert_eq!(names(&["--group", "none"]), "");

        let csv = server.estd(&host, &["device", "list", "--csv", "--expires-before", &soon]);
        let csv = csv.success();
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines[0].starts_with("name,alias,group,denied,registered_at,"), "{csv}");
        assert!(lines[1].starts_with("device-4,,,false,20") && lines[1].contains(&online), "{csv}");
        assert_eq!(lines.len(), 2);
        let list = |options: &[&str]| server.estd(&host, &[&["device", "list"], options].concat());
        list(&["--expires-before", "soon"]).refused("expires_before must be a time in RFC 3339");
        list(&["--ca", "abc"]).refused("no Device CA with that serial number");
        server.stop().await;
    }

    /// Credentials that an earlier version has recorded are in the inventory too.
    async fn what_was_recorded_before_is_filled_in(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        session(&server, &root, &line.device("device-1", "device-1")).await;
        server.stop().await;
        host.sql("UPDATE credential SET key_algorithm = NULL, not_after = NULL").await;

        let server = host.serve().await;
        let list = ["--json", "device", "list", "--key-algorithm", "P-256"];
        let list = server.estd(&host, &list).json();
        assert_eq!(list["devices"][0]["name"], "device-1");
        assert!(list["devices"][0]["expires_at"].is_string(), "{list}");
        server.stop().await;
    }
}
