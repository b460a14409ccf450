//! A Device CA from enabled to revoked, and back, by the command line.

use serde_json::json;

use crate::host::Host;
use crate::offline_root::OfflineRoot;
use crate::on_both_ledgers;
use crate::operator::{reenroll, rotate, session};
use crate::process::Process;

/// A Factory whose devices come from a line with a Device CA of its own; the line's serial number.
async fn factory_with_line(host: &Host, root: &OfflineRoot) -> (Process, OfflineRoot, String) {
    let (line, server) = host.serve_line(root).await;
    let serial = line.certificate().serial().to_string();
    (server, line, serial)
}

on_both_ledgers! {
    async fn i8_a_device_ca_is_revoked_when_nobody_depends_on_it(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (server, line, serial) = factory_with_line(&host, &root).await;
        let estd = |arguments: &[&str]| server.estd(&host, arguments);
        let device = line.device("device", "device-1");
        session(&server, &root, &device).await;

        let disabled = estd(&["device-ca", "disable", &serial, "--reason", "key stolen"]);
        assert!(disabled.success().ends_with("is disabled\n"));
        let show = estd(&["device-ca", "show", &serial]).success();
        assert!(show.contains("State        disabled") && show.contains("1 devices"), "{show}");
        assert_eq!(reenroll(&server, &root, &line.device("new", "device-2")).await, 403);

        let told = estd(&["device-ca", "phase-out", &serial]).success();
        assert!(told.contains("1 devices depend on it; 0 of them were not seen"), "{told}");
        assert!(told.lines().any(|line| line.starts_with("device-1 ") && line.contains("in use")));
        assert!(told.contains("`estd rotation start --ca"), "{told}");
        let late = ["--id", "certs-1", "--begin", "2100-01-01", "--per-minute", "1"];
        estd(&[&["rotation", "start", "--ca", &serial], &late[..]].concat()).success();
        let told = estd(&["device-ca", "phase-out", &serial]).success();
        let rotation = "The rotation certs-1 takes them off it and is running; its last slot comes \
                        2100-01-01T00:01:00Z.";
        assert!(told.contains(rotation), "{told}");
        estd(&["device-ca", "revoke", &serial]).refused(&format!(
            "`estd device-ca revoke {serial} --strand 1` revokes it all the same"
        ));
        estd(&["device-ca", "revoke", &serial, "--strand", "2"]).refused("--strand says 2");

        // Issued is not switched: the device may never have had the answer.
        let new = rotate(&server, &root, &device).await;
        let told = estd(&["--json", "device-ca", "phase-out", &serial]).json();
        assert_eq!((&told["count"], &told["unconfirmed"]), (&json!(1), &json!(1)), "{told}");
        assert_eq!(told["devices"][0]["name"], "device-1");
        session(&server, &root, &new).await;
        let told = estd(&["device-ca", "phase-out", &serial]).success();
        assert!(told.contains("No device depends on it"), "{told}");

        assert!(estd(&["device-ca", "revoke", &serial]).success().ends_with("is revoked\n"));
        assert!(!server.lets_in(&root.certificate(), &device).await);
        session(&server, &root, &new).await;
        server.stop().await;
    }

    async fn i8_an_operator_may_strand_an_exact_number(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (server, line, serial) = factory_with_line(&host, &root).await;
        let estd = |arguments: &[&str]| server.estd(&host, arguments);
        for name in ["device-1", "device-2"] {
            session(&server, &root, &line.device(name, name)).await;
        }
        estd(&["device-ca", "revoke", &serial, "--strand", "2", "--reason", "stolen"]).success();
        let audit = estd(&["--json", "audit", "list"]).json();
        let row = &audit["rows"][0];
        assert_eq!(row["action"], "revoke-device-ca");
        assert_eq!(row["detail"], "stolen; strands 2: device-1, device-2");

        let text = host.read("line.pem");
        estd(&["device-ca", "add", "line.pem"]).refused("`estd device-ca add --again` brings it");
        estd(&["device-ca", "enable", &serial]).refused("it is revoked");
        assert!(!estd(&["device-ca", "export"]).success().contains(text.trim()));
        estd(&["device-ca", "add", "--again", "line.pem"]).success();
        assert!(estd(&["device-ca", "export"]).success().contains(text.trim()));
        session(&server, &root, &line.device("another", "device-3")).await;
        estd(&["device-ca", "add", "--again", "line.pem"]).refused("it is enabled, not revoked");
        server.stop().await;
    }

    async fn a_device_ca_is_told_by_its_serial_number(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (server, _, serial) = factory_with_line(&host, &root).await;
        let estd = |arguments: &[&str]| server.estd(&host, arguments);
        let pairs: Vec<&str> = (0..serial.len()).step_by(2)
            .map(|at| &serial[at..(at + 2).min(serial.len())]).collect();
        if serial.len() % 2 == 0 {
            // As openssl prints it.
            let written = pairs.join(":").to_uppercase();
            assert!(estd(&["device-ca", "show", &written]).success().contains(&serial));
        }
        estd(&["device-ca", "show", "abcdef"]).refused("no Device CA with that serial number");
        estd(&["device-ca", "show", "line"]).refused("no Device CA with that serial number");
        estd(&["device-ca", "disable", "abcdef"]).refused("no Device CA with that serial number");
        server.stop().await;
    }

    async fn the_bundle_for_other_gateways_is_replaced_whole(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let (server, line, serial) = factory_with_line(&host, &root).await;
        host.write("cas.pem", "what was there before");
        server.estd(&host, &["device-ca", "disable", &serial]).success();
        server.estd(&host, &["device-ca", "export", "--out", "cas.pem"]).success();
        let bundle = host.read("cas.pem");
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2, "{bundle}");
        assert!(bundle.contains(host.read("line.pem").trim()));
        let subjects: Vec<_> = estd::pki::Certificate::from_pem(bundle.as_bytes()).unwrap();
        assert!(subjects.contains(&line.certificate()));
        server.stop().await;
    }

    async fn a_factory_is_added_without_a_pki_and_set_up_later(backend: Backend) {
        let host = Host::new(backend).await;
        let server = host.serve().await;
        let estd = |arguments: &[&str]| server.estd(&host, arguments);
        let one = ["factory", "add", "one", "--est-host", "one.example"];
        let gateway = ["--gateway-host", "gateway.one.example"];
        assert!(estd(&[&one[..], &gateway].concat()).success().contains("has no PKI yet"));
        estd(&one).refused("there is a Factory of this name already");
        estd(&["factory", "add", "two", "--est-host", "one.example"]).refused("another Factory has");
        let taken = ["--est-host", "two.example", "--gateway-host", "gateway.one.example"];
        estd(&[&["factory", "add", "two"], &taken[..]].concat()).refused("another Factory has");

        let init = ["factory", "init", "--name", "one"];
        let other = ["--est-host", "other.example"];
        host.estd(&[&init[..], &other].concat()).refused("was added with one.example");
        host.estd(&init).success();
        host.estd(&["factory", "init", "--name", "new"]).refused("is there already");
        server.follows(&host).await;
        let shown = estd(&["--json", "factory", "show"]).json();
        assert_eq!(shown["factories"][0]["gateway_host"], "gateway.one.example");
        assert!(shown["factories"][0]["est_tls"].is_object(), "{shown}");
        server.stop().await;
    }
}
