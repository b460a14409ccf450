//! Bootstrap CAs by the command line.

use crate::host::Host;
use crate::offline_root::OfflineRoot;
use crate::on_both_ledgers;
use crate::operator::session;

on_both_ledgers! {
    async fn e_17_a_bootstrap_ca_is_added_and_removed(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let manufacturer = OfflineRoot::new(host.path(), "manufacturer", "/CN=Manufacturer");
        let server = host.serve().await;
        let estd = |arguments: &[&str]| server.estd(&host, arguments);
        let key = manufacturer.certificate().public_key().fingerprint().to_string();
        let added = estd(&["bootstrap-ca", "add", "manufacturer.pem"]).success();
        assert!(added.contains("CN=Manufacturer") && added.contains(&key), "{added}");
        estd(&["bootstrap-ca", "add", "manufacturer.pem"]).refused("is known already");
        let device = manufacturer.device("device", "device-1");
        session(&server, &root, &device).await;

        assert!(!estd(&["bootstrap-ca", "remove", &key]).success().contains("Manufacturer"));
        assert!(!server.lets_in(&root.certificate(), &device).await);
        estd(&["bootstrap-ca", "remove", &key]).refused("no bootstrap CA with that key");
        estd(&["bootstrap-ca", "remove", "x"]).refused("64 hex digits");
        let leaf = estd(&["bootstrap-ca", "add", "device.pem"]);
        leaf.refused("it is not a CA certificate");
        let audit = estd(&["--json", "audit", "list"]).json();
        let rows = audit["rows"].as_array().unwrap().iter();
        let rows = rows.filter(|row| row["action"].as_str().unwrap().contains("bootstrap"));
        let outcomes: Vec<_> = rows.map(|row| row["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["done", "refused", "done"], "removed, added twice, added");
        server.stop().await;
    }
}
