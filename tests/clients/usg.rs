//! The crate usg-est-client, by the small program in `tests/foreign`.

use crate::support::{Backend, TestServer};
use crate::workbench::Workbench;

const LABEL: &str = "[est.labels.line-2]\nvalidity_days = 30\n";

const CACERTS: &str = "$USG_EST cacerts --url $URL --root root.pem";

const REENROLL: &str = "
$USG_EST reenroll --url $URL $LABEL --root root.pem --cert device.pem --key device.key \
    --out new.pem --out-key new.key
";

/// A workbench with the program, and with these words of its command line.
fn workbench<'a>(server: &'a TestServer, label: &str) -> Workbench<'a> {
    let mut bench = Workbench::new(server, "device-1");
    let program = std::env::var_os("ESTD_TEST_USG_EST")
        .expect("ESTD_TEST_USG_EST: run the tests by tests/run, which builds this client");
    bench.set("USG_EST", program);
    bench.set("LABEL", label);
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_36_usg_est_client_rotates() {
    let server = TestServer::start(Backend::Sqlite).await;
    let bench = workbench(&server, "");
    let certificates = bench.run(CACERTS).await;
    bench.check_ca_certificates(&certificates).await;
    bench.run(REENROLL).await;
    bench.check_rotated().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_04_usg_est_client_rotates_under_a_label() {
    let server = TestServer::start_with(Backend::Sqlite, LABEL).await;
    let bench = workbench(&server, "--label line-2");
    bench.run(REENROLL).await;
    bench.check_rotated().await;
    bench.check_ends_in(30).await;
    server.stop().await;
}
