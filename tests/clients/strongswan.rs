//! strongSwan's `pki --estca` and `pki --est`, which speak TLS 1.2.

use crate::on_both_ledgers;
use crate::support::{Backend, TestServer};
use crate::workbench::Workbench;

const CONFIGURATION: &str = "
pki {
    load = random openssl x509 pubkey pkcs1 pkcs7 pkcs8 pem
}
";

/// The root goes to `ca.pem`, the Device CAs to `ca-1.pem` and so on.
const CACERTS: &str = "
pki --estca --url $URL --cacert root.pem --caout ca.pem --outform pem --force >&2
cat ca.pem ca-*.pem
";

const LABEL: &str = "[est.labels.line-2]\nvalidity_days = 30\n";

fn workbench(server: &TestServer) -> Workbench<'_> {
    let mut bench = Workbench::new(server, "device-1");
    bench.write("strongswan.conf", CONFIGURATION);
    bench.set("STRONGSWAN_CONF", bench.path("strongswan.conf"));
    bench
}

/// With the new certificate on standard output.
const REENROLL: &str = "
pki --est --url $REENROLL_URL --in new.der --cert device.pem --key device.key \
    --cacert root.pem --cacert ca-1.pem --cacert ca-2.pem --outform pem > new.pem
";

/// Rotates the device by what stands at `url`: the server, or a whole URL with its `?`.
async fn rotate(bench: &mut Workbench<'_>, url: &str) {
    let certificates = bench.run(CACERTS).await;
    bench.check_ca_certificates(&certificates).await;
    bench.request("-algorithm EC -pkeyopt ec_paramgen_curve:P-256").await;
    bench.set("REENROLL_URL", url);
    bench.run(REENROLL).await;
    bench.check_rotated().await;
}

on_both_ledgers! {
    /// H-01, H-03, H-11.
    async fn e_36_strongswan_rotates(backend: Backend) {
        let server = TestServer::start(backend).await;
        rotate(&mut workbench(&server), &server.url()).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_04_strongswan_rotates_under_a_label() {
    let server = TestServer::start_with(Backend::Sqlite, LABEL).await;
    let mut bench = workbench(&server);
    let url = format!("{}/.well-known/est/line-2/simplereenroll?", server.url());
    rotate(&mut bench, &url).await;
    bench.check_ends_in(30).await;
    server.stop().await;
}
