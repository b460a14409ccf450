//! What `factory install` refuses: with the reason, and with nothing half applied.

use std::collections::HashSet;

use data_encoding::BASE64;
use estd::ledger::AuditFilter;

use crate::host::{Host, SIGNED};
use crate::offline_root::{OfflineRoot, openssl};
use crate::on_both_ledgers;
use crate::support::Backend;

/// What is wrong with `bad.pem`, how it is made, and what the refusal says.
type Case = (&'static str, fn(&Host, &OfflineRoot), &'static str);

const CERTIFICATES: [Case; 12] = [
    ("of another root", other_root, "it is not signed by the Factory's root, "),
    ("of another root by the same name", namesake_root, "it is not signed by the Factory's root, "),
    ("of a CA below the root", below_device_ca, "it is not signed by the Factory's root, "),
    ("of a key that is not here", other_key, "no key made here waits for it"),
    ("expired", expired, "it is valid from 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z"),
    ("not yet valid", not_yet_valid, "it is valid from 2100-01-01T00:00:00Z"),
    ("of another host", other_host, "its SubjectAltName lacks the DNS name localhost"),
    ("of no host but its CN", no_host, "its SubjectAltName lacks the DNS name localhost"),
    ("for clients", for_clients, "its extended key usage lacks serverAuth"),
    ("of a Device CA that is no CA", no_ca, "it is not a CA certificate"),
    ("of a Device CA that signs nothing", no_cert_sign, "its key usage lacks keyCertSign"),
    ("a second root", second_root, "the Root of Trust is set already, and it is set once"),
];

on_both_ledgers! {
    async fn certificates_that_do_not_fit_are_refused(backend: Backend) {
        let host = Host::new(backend).await;
        let root = host.request_and_sign();
        for (what, make, reason) in CERTIFICATES {
            make(&host, &root);
            println!("{what}");
            host.estd(&install(&["root.pem", "device-ca.pem", "bad.pem"])).refused(reason);
            assert_nothing_installed(&host).await;
        }
        // None of it stands in the way of the right ones.
        let right = ["root.pem", "est-tls.pem", "tls.pem", "device-ca.pem"];
        host.estd(&install(&right)).success();
    }

    async fn i9_another_root_is_refused(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        second_root(&host, &root);
        host.estd(&install(&["bad.pem"])).refused("the Root of Trust is set already");

        // Renewed by its own key, it is another root all the same.
        let renew = ["x509", "-in", "root.pem", "-signkey", "root.key", "-days", "9000"];
        openssl(host.path(), &[&renew[..], &["-out", "renewed.pem"]].concat());
        host.estd(&install(&["renewed.pem"])).refused("the Root of Trust is set already");

        let ledger = host.ledger().await;
        let factory = ledger.factories().await.unwrap().remove(0).factory;
        assert_eq!(factory.root, Some(root.certificate()));
        ledger.close().await;
    }

    async fn a_certificate_before_its_root_is_refused(backend: Backend) {
        let host = Host::new(backend).await;
        host.request_and_sign();
        host.estd(&install(&["est-tls.pem"])).refused("the Factory has no root yet");
    }

    async fn install_needs_to_know_the_factory(backend: Backend) {
        let host = Host::new(backend).await;
        let root = OfflineRoot::new(host.path(), "root", "/CN=Factory-CA");
        host.estd(&install(&["root.pem"])).refused("there is no such Factory");
        for (name, est_host) in [("a", "a.example"), ("b", "b.example")] {
            let csr = ["factory", "csr", "--name", name, "--est-host", est_host, "--out", name];
            host.estd(&csr).success();
        }
        root.sign("b/est-tls.csr", "b.pem", &[]);
        let files = ["root.pem", "b.pem"];
        host.estd(&install(&files)).refused("there are several Factories: name one by --name");
        let named = |name: &'static str| [&install(&files)[..], &["--name", name]].concat();
        host.estd(&named("c")).refused("there is no such Factory");
        host.estd(&named("a")).refused("no key made here waits for it");
        host.estd(&named("b")).success();
    }

    async fn pem_with_prose_around_it_is_accepted(backend: Backend) {
        let host = Host::new(backend).await;
        host.request_and_sign();
        for name in ["root", "est-tls", "tls", "device-ca"] {
            let file = format!("{name}.pem");
            let prose = openssl(host.path(), &["x509", "-in", &file, "-text"]);
            assert!(prose.starts_with("Certificate:"), "{prose}");
            let prose = prose.replace('\n', "\r\n");
            host.write(&file, format!("From: the root\r\n\r\n{prose}\r\n-- \r\nthe root\r\n"));
        }
        let files = ["root.pem", "est-tls.pem", "tls.pem", "device-ca.pem"];
        assert!(host.estd(&install(&files)).success().contains("Nothing is missing"));
    }

    async fn all_of_it_may_come_in_one_file(backend: Backend) {
        let host = Host::new(backend).await;
        host.request_and_sign();
        let all = ["tls.pem", "device-ca.pem", "root.pem", "est-tls.pem"];
        let all = all.map(|name| host.read(name));
        host.write("all.pem", all.concat());
        assert!(host.estd(&install(&["all.pem"])).success().contains("Installed: 4 of 4"));
    }
}

/// Files that hold no certificate are refused by name, whatever comes with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_certificates_are_refused() {
    let host = Host::new(Backend::Sqlite).await;
    host.request_and_sign();
    let pem = host.read("est-tls.pem");
    let der = estd::pki::Certificate::from_pem(pem.as_bytes()).unwrap().remove(0).der().to_vec();
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty", Vec::new(), "there is no certificate in it"),
        ("prose", b"here it comes".to_vec(), "there is no certificate in it"),
        ("request", host.read("est-tls.csr").into(), "there is no certificate in it"),
        ("key", host.read("root.key").into(), "there is no certificate in it"),
        ("der", der.clone(), "there is no certificate in it"),
        ("rubbish within", pem.replacen('A', "!", 1).into(), "PEM text"),
        ("its end missing", pem.as_bytes()[..pem.len() / 2].to_vec(), "PEM text"),
        ("a byte missing", armour(&BASE64.encode(&der[1..])).into(), "certificate"),
        ("no certificate in it", armour("AQID").into(), "certificate"),
    ];
    for (what, contents, reason) in cases {
        host.write("bad.pem", contents);
        println!("{what}");
        let done = host.estd(&install(&["root.pem", "bad.pem"]));
        assert!(done.stderr.contains("bad.pem"), "{done:?}");
        done.refused(reason);
    }
    host.estd(&install(&["root.pem", "absent.pem"])).refused("absent.pem: No such file");
    host.estd(&install(&["root.pem", "data"])).refused("data: Is a directory");
    assert_nothing_installed(&host).await;
}

async fn assert_nothing_installed(host: &Host) {
    let ledger = host.ledger().await;
    let trust = ledger.factories().await.unwrap().remove(0);
    assert!(trust.factory.root.is_none() && trust.device_cas.is_empty());
    assert_eq!(ledger.pending_keys(trust.factory.id).await.unwrap().len(), SIGNED.len());
    let rows = ledger.audit_rows(&AuditFilter::default(), 100).await.unwrap();
    let done = rows.iter().filter(|row| row.outcome == "done");
    let actions: HashSet<&str> = done.map(|row| row.action.as_str()).collect();
    assert_eq!(actions, HashSet::from(["add-factory", "make-key"]));
    let refused = rows.iter().filter(|row| row.outcome != "done");
    assert!(refused.into_iter().all(|row| row.code == "install-refused"));
    ledger.close().await;
}

fn install<'a>(files: &[&'a str]) -> Vec<&'a str> {
    [&["factory", "install"], files].concat()
}

fn armour(base64: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

fn other_root(host: &Host, _root: &OfflineRoot) {
    OfflineRoot::new(host.path(), "other", "/CN=other").sign("tls.csr", "bad.pem", &[]);
}

fn namesake_root(host: &Host, _root: &OfflineRoot) {
    let subject = "/CN=Factory-CA/OU=factory";
    OfflineRoot::new(host.path(), "namesake", subject).sign("tls.csr", "bad.pem", &[]);
}

fn below_device_ca(_host: &Host, root: &OfflineRoot) {
    root.device_ca("between", &[]).sign("tls.csr", "bad.pem", &[]);
}

fn other_key(_host: &Host, root: &OfflineRoot) {
    root.device_ca("bad", &[]);
}

fn expired(_host: &Host, root: &OfflineRoot) {
    let dates = ["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"];
    root.sign_by_ca("tls.csr", "bad.pem", &dates);
}

fn not_yet_valid(_host: &Host, root: &OfflineRoot) {
    let dates = ["-startdate", "21000101000000Z", "-enddate", "21100101000000Z"];
    root.sign_by_ca("tls.csr", "bad.pem", &dates);
}

fn other_host(host: &Host, root: &OfflineRoot) {
    with_extensions(host, root, "tls", "subjectAltName=DNS:localhost.example,IP:127.0.0.1");
}

fn no_host(host: &Host, root: &OfflineRoot) {
    with_extensions(host, root, "tls", "basicConstraints=CA:FALSE");
}

fn for_clients(host: &Host, root: &OfflineRoot) {
    let extensions = "subjectAltName=DNS:localhost\nextendedKeyUsage=clientAuth";
    with_extensions(host, root, "tls", extensions);
}

/// Beside a Device CA that is right: the pending key of one is for one certificate alone.
fn no_ca(host: &Host, root: &OfflineRoot) {
    with_extensions(host, root, "device-ca", "basicConstraints=CA:FALSE");
}

fn no_cert_sign(host: &Host, root: &OfflineRoot) {
    let extensions = "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature";
    with_extensions(host, root, "device-ca", extensions);
}

fn second_root(host: &Host, _root: &OfflineRoot) {
    OfflineRoot::new(host.path(), "bad", "/CN=Factory-CA/OU=factory");
}

/// Signs the request with these extensions instead of its own.
fn with_extensions(host: &Host, root: &OfflineRoot, name: &str, extensions: &str) {
    host.write("bad.ext", extensions);
    let options = ["-copy_extensions", "none", "-extfile", "bad.ext"];
    root.sign(&format!("{name}.csr"), "bad.pem", &options);
}
