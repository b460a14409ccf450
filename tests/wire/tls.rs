//! TLS itself, with openssl where our own library cannot even speak what must be refused.

use std::process::{Command, Stdio};

use crate::support::wire::get_with;
use crate::support::{TestServer, Tls, root_file};
use crate::{CACERTS, server};

/// Whether `openssl s_client` with these options gets a session.
async fn openssl_connects(server: &TestServer, options: &[&str]) -> bool {
    let port = server.server.est_address().port();
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &format!("127.0.0.1:{port}"),
        "-servername",
        "localhost",
    ]);
    command.args(["-CAfile", root_file(server).to_str().unwrap(), "-verify_return_error"]);
    command.args(options).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success()
        && text.contains("Verification: OK")
        && !text.contains("Cipher is (NONE)")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_12_tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let server = server().await;
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(openssl_connects(&server, &[version]).await, "{version}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let options = [version, "-cipher", "DEFAULT@SECLEVEL=0"];
        assert!(!openssl_connects(&server, &options).await, "{version}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_08_null_and_anonymous_suites_are_refused() {
    let server = server().await;
    for suites in ["NULL@SECLEVEL=0", "aNULL@SECLEVEL=0", "eNULL@SECLEVEL=0"] {
        assert!(!openssl_connects(&server, &["-tls1_2", "-cipher", suites]).await, "{suites}");
    }
    assert!(openssl_connects(&server, &["-tls1_2", "-cipher", "ECDHE+AESGCM"]).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e_15_the_server_certificate_bears_the_name_of_the_url() {
    let server = server().await;
    assert!(openssl_connects(&server, &["-verify_hostname", "localhost"]).await);
    assert!(!openssl_connects(&server, &["-verify_hostname", "elsewhere.example"]).await);
    server.stop().await;
}

#[tokio::test]
async fn e_27_cacerts_needs_no_client_certificate() {
    let server = server().await;
    for tls in [Tls::tls12(), Tls::tls13()] {
        let mut wire = server.connect(None, &tls).await.unwrap();
        assert_eq!(wire.send(&get_with(CACERTS, "")).await.unwrap().status, 200);
    }
    server.stop().await;
}
