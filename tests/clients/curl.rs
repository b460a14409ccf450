//! curl and openssl, as the README has it.

use crate::on_both_ledgers;
use crate::support::{Backend, TestServer};
use crate::workbench::Workbench;

const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";

const CACERTS: &str = "curl $EST/cacerts | certificates";

/// Sends the request of [`Workbench::request`], prints curl's account of its TLS session.
async fn enroll(bench: &Workbench<'_>, operation: &str, flags: &str) -> String {
    let script = format!(
        "as_device {flags} --verbose --header 'Content-Type: application/pkcs10' \
            --data-binary @new.b64 $EST/{operation} 2> log.txt > answer.b64 || (cat log.txt; false)
         certificates < answer.b64 | openssl x509 -out new.pem
         cat log.txt"
    );
    bench.run(&script).await
}

on_both_ledgers! {
    /// C-03, E-38: curl's request in lines of base64; openssl reads the answer.
    async fn e_36_curl_and_openssl_rotate(backend: Backend) {
        let server = TestServer::start(backend).await;
        let bench = Workbench::new(&server, "device-1");
        let certificates = bench.run(CACERTS).await;
        bench.check_ca_certificates(&certificates).await;
        bench.request(P256).await;
        enroll(&bench, "simplereenroll", "").await;
        bench.check_rotated().await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_12_curl_rotates_by_either_operation_on_either_version_of_tls() {
    const CASES: [(&str, &str, &str); 4] = [
        ("simpleenroll", "--tls-max 1.2", "TLSv1.2"),
        ("simplereenroll", "--tls-max 1.2", "TLSv1.2"),
        ("simpleenroll", "--tlsv1.3", "TLSv1.3"),
        ("simplereenroll", "--tlsv1.3", "TLSv1.3"),
    ];
    let server = TestServer::start(Backend::Sqlite).await;
    for (operation, flags, version) in CASES {
        let bench = Workbench::new(&server, &format!("{operation}-{version}"));
        bench.request(P256).await;
        let log = enroll(&bench, operation, flags).await;
        assert!(log.contains(&format!("SSL connection using {version} ")), "{log}");
        bench.check_rotated().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_33_curl_rotates_to_a_key_of_each_kind_and_uses_it() {
    const CASES: [(&str, &str, &str); 5] = [
        ("rsa-2048", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "(2048 bit)"),
        ("rsa-3072", "-algorithm RSA -pkeyopt rsa_keygen_bits:3072", "(3072 bit)"),
        ("p-256", P256, "NIST CURVE: P-256"),
        ("p-384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384", "NIST CURVE: P-384"),
        ("ed25519", "-algorithm ED25519", "ED25519 Public-Key"),
    ];
    let server = TestServer::start(Backend::Sqlite).await;
    for (name, key, kind) in CASES {
        let bench = Workbench::new(&server, name);
        bench.request(key).await;
        enroll(&bench, "simplereenroll", "").await;
        let text = bench.run("openssl x509 -in new.pem -noout -text").await;
        assert!(text.contains(kind), "{name}: {text}");
        bench.check_rotated().await;
        for version in ["--tls-max 1.2", "--tlsv1.3"] {
            bench.run(&format!("as_new_device {version} $EST/cacerts")).await;
        }
    }
    server.stop().await;
}
