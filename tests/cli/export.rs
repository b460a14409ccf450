//! Files for gateways that are not ours: written when something changes, and told of by a command.

use std::fs;

use crate::host::Host;
use crate::offline_root::openssl;
use crate::on_both_ledgers;
use crate::operator::{rotate, session};
use crate::process::eventually;
use crate::support::Backend;

const HOOK: &str = "[export]\nfolder = 'out'\n\
                    hook = ['sh', '-c', 'env > env; cat \"$ESTD_EXPORT/factory/cas.pem\" >> told']\n";

fn certificates(text: &str) -> usize {
    text.matches("BEGIN CERTIFICATE").count()
}

async fn becomes(host: &Host, file: &str, count: usize) {
    eventually(&format!("{count} certificates in {file}"), async || {
        let text = fs::read_to_string(host.file(file)).unwrap_or_default();
        (certificates(&text) == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_is_told_of() {
    let (host, _root) = Host::with_factory(Backend::Sqlite).await;
    host.write(
        "estd.toml",
        "[export]\nfolder = 'out'\nhook = ['sh', '-c', 'echo not now >&2; exit 3']\n",
    );
    let server = host.serve().await;
    server.logged("export.hook failed", 1).await;
    assert!(server.log().contains("exit status: 3") && server.log().contains("not now"));
    becomes(&host, "out/factory/cas.pem", 1).await;
    eventually("the metric", async || {
        server.get("/metrics").body.contains("estd_export_wrong 1").then_some(())
    })
    .await;
    server.stop().await;
}

on_both_ledgers! {
    async fn what_is_trusted_and_refused_is_in_files_and_told(backend: Backend) {
        let (mut host, root) = Host::with_factory(backend).await;
        let line = root.device_ca("line", &[]);
        host.write("estd.toml", HOOK);
        let server = host.serve().await;
        becomes(&host, "told", 1).await;
        assert_eq!(certificates(&host.read("out/factory/cas.pem")), 1);

        server.estd(&host, &["device-ca", "add", "line.pem"]).success();
        becomes(&host, "out/factory/cas.pem", 2).await;
        becomes(&host, "told", 3).await;
        let device = line.device("device", "device-1");
        server.follows(&host).await;
        session(&server, &root, &device).await;
        let new = rotate(&server, &root, &device).await;
        session(&server, &root, &new).await;
        server.estd(&host, &["device", "deny", "device-1"]).success();
        server.stop().await;

        // It starts anew: what it told before it ended nobody knows.
        host.environment.push(("ESTD_LOG_FILTER", "info".to_owned()));
        let server = host.serve().await;
        becomes(&host, "told", 5).await;
        let serial = data_encoding::HEXUPPER.encode(new.certificate.serial().contents());
        let shown = openssl(host.path(), &["crl", "-in", "out/factory/crls.pem", "-noout", "-text"]);
        assert!(shown.contains(serial.trim_start_matches("00")), "{serial} is not in {shown}");
        assert!(!host.read("env").contains("ESTD_LOG_FILTER"), "its environment is not the server's");
        let metrics = server.get("/metrics").body;
        assert!(metrics.contains("estd_export_wrong 0"), "{metrics}");

        // What cannot be written is told.
        fs::rename(host.file("out/factory"), host.file("out/elsewhere")).unwrap();
        fs::write(host.file("out/factory"), "no folder").unwrap();
        server.logged("files for other gateways cannot be written", 1).await;
        eventually("the metric", async || {
            server.get("/metrics").body.contains("estd_export_wrong 1").then_some(())
        })
        .await;
        server.stop().await;
    }
}
