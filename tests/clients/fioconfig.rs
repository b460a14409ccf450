//! A request in the very shape of Foundries' device agent, sent by curl.

use crate::support::{Backend, TestServer};
use crate::workbench::{Workbench, pem_blocks};

const EXTENSIONS: &str = "
[agent]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, clientAuth
";

const REQUEST: &str = "
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out new.key
openssl req -new -config request.cnf -reqexts agent -key new.key -outform DER -out new.der
openssl base64 -A -in new.der -out new.b64
";

/// The agent puts `/simplereenroll` after a configured URL that may end in a slash.
const REENROLL: &str = "
as_device --path-as-is --user-agent Go-http-client/1.1 --header 'Accept-Encoding: gzip' \
    --header 'Content-Type: application/pkcs10' --data-binary @new.b64 \
    --output answer.b64 --write-out '%{http_code} %{content_type}' $EST/fioconfig//simplereenroll
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h_13_the_device_agent_rotates_under_its_label() {
    let server = TestServer::start(Backend::Sqlite).await;
    let bench = Workbench::new(&server, "00000000-0000-4000-8000-000000000001");
    bench.write("request.cnf", &(bench.read("request.cnf") + EXTENSIONS));
    bench.run(REQUEST).await;

    assert_eq!(bench.run(REENROLL).await, "201 application/pkcs7-mime");
    let bag = pem_blocks(&bench.run("certificates < answer.b64").await);
    assert_eq!(bag.len(), 1, "only the issued certificate (E-38)");
    bench.write("new.pem", &bag[0]);
    check_usage(&bench).await;
    bench.check_rotated().await;
    server.stop().await;
}

/// The agent compares the extension's bytes.
async fn check_usage(bench: &Workbench<'_>) {
    let usage = "openssl asn1parse -in new.pem | grep --after-context 2 'X509v3 Key Usage'";
    let usage = bench.run(usage).await;
    assert!(usage.contains("OCTET STRING      [HEX DUMP]:03020780\n"), "{usage}");
}
