//! A server behind the device gateway that speaks TLS.

use crate::host::Host;
use crate::offline_root::OfflineRoot;
use crate::process::Process;
use crate::receiver::Receiver;
use crate::support::wire::{Wire, post_with};
use crate::support::{Backend, Device, Tls};

async fn posts(server: &Process, root: &OfflineRoot, device: &Device) -> u16 {
    let certificate = root.certificate();
    let wire = Wire::connect(server.gateway, &certificate, Some(device), &Tls::default()).await;
    let headers = "Content-Type: application/json\r\n";
    wire.unwrap().send(&post_with("/hook", headers, b"{}")).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_the_gateway_must_have_a_certificate_that_the_host_trusts() {
    let (mut host, root) = Host::with_factory(Backend::Sqlite).await;
    let line = root.device_ca("line", &[]);
    let authority = OfflineRoot::new(host.path(), "authority", "/CN=authority");
    authority.request("receiver", "/CN=receiver");
    host.write("receiver.ext", "subjectAltName=DNS:localhost\n");
    authority.sign("receiver.csr", "receiver.pem", &["-extfile", "receiver.ext"]);
    let behind = Receiver::start_tls(host.path()).await;
    let url = behind.url();
    let upstream = url.strip_suffix("/hook?a=b").unwrap();
    host.write("estd.toml", format!("[gateway]\nupstream = '{upstream}'\n"));
    let device = line.device("device", "device-1");

    let server = host.serve().await;
    server.estd(&host, &["device-ca", "add", "line.pem"]).success();
    server.follows(&host).await;
    assert_eq!(posts(&server, &root, &device).await, 502);
    assert!(server.log().contains("UnknownIssuer"), "{}", server.log());
    assert_eq!(behind.deliveries().len(), 0);
    server.stop().await;

    host.environment.push(("SSL_CERT_FILE", "authority.pem".to_owned()));
    let server = host.serve().await;
    assert_eq!(posts(&server, &root, &device).await, 204, "as the receiver answers");
    let told = behind.received(1).await.remove(0);
    assert_eq!(told.header("estd-device"), "device-1");
    server.stop().await;
}
