//! A real nginx with the configuration in `deploy/`, which asks estd whom to let pass.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::model::HostName;
use estd::pki::to_pem;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::on_both_ledgers;
use crate::support::device::{name, new_key};
use crate::support::fioctl::Fioctl;
use crate::support::wire::Wire;
use crate::support::{Device, FACTORY, HOST, TestServer, Tls, eventually};

/// An nginx that ends with the test.
struct Nginx {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // By SIGTERM, so that its worker ends as well.
        let _gone = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ended = self.process.wait();
    }
}

impl Nginx {
    async fn start(server: &TestServer, upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, random) = (new_key(), SystemRandom::new());
        let (subject, host) = (name("gateway", FACTORY), HostName::parse(HOST).unwrap());
        let certificate = server
            .root
            .certify_server(&subject, &host, key.public_key(), UnixTime::now(), &random)
            .unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("gateway.pem"), to_pem("CERTIFICATE", certificate.der()).unwrap())
            .unwrap();
        std::fs::write(file("gateway.key"), key.to_pem().unwrap().as_bytes()).unwrap();

        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx.conf");
        let mut config = std::fs::read_to_string(path).unwrap();
        let api = server.server.api_address().to_string();
        for (written, meant) in [
            ("listen 8444", format!("listen {address}")),
            ("/etc/nginx/", format!("{}/", folder.path().display())),
            ("127.0.0.1:9000", upstream.to_string()),
            ("127.0.0.1:8080", api),
            ("\"TOKEN\"", format!("\"{}\"", Fioctl::new(server).token())),
        ] {
            assert!(config.contains(written), "deploy/nginx.conf has no {written}");
            config = config.replace(written, &meant);
        }
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.path().display()))
            .concat();
        let whole = format!(
            "daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{config}}}\n"
        );
        std::fs::write(file("nginx.conf"), whole).unwrap();
        let process = Command::new("nginx")
            .args(["-e", "stderr", "-p"])
            .arg(folder.path())
            .arg("-c")
            .arg(file("nginx.conf"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut nginx = Self { process, address, _folder: folder };
        eventually("nginx to listen", async || nginx.listens().await).await;
        nginx
    }

    async fn listens(&mut self) -> bool {
        if self.process.try_wait().unwrap().is_some() {
            let mut why = String::new();
            self.process.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("nginx has ended: {why}");
        }
        TcpStream::connect(self.address).await.is_ok()
    }

    /// The status of one request, and what stands behind it was told.
    async fn ask(&self, server: &TestServer, device: Option<&Device>) -> (u16, String) {
        let root = server.root.certificate();
        let wire = Wire::connect(self.address, root, device, &Tls::default()).await;
        let request = format!(
            "GET /config HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer its-own\r\n\r\n"
        );
        let answer = wire.unwrap().send(request.as_bytes()).await.unwrap();
        (answer.status, answer.text().to_owned())
    }
}

/// What stands behind the gateway: it answers with the device that it is told of.
async fn upstream() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let mut lines = request.lines();
                let device = lines.find_map(|line| line.strip_prefix("X-Device: ")).unwrap_or("");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", device.len());
                stream.write_all((head + device).as_bytes()).await.unwrap();
            });
        }
    });
    address
}

on_both_ledgers! {
    async fn nginx_lets_pass_whom_the_ledger_accepts(backend: Backend) {
        let server = TestServer::start(backend).await;
        let stranger = TestServer::start(crate::support::Backend::Sqlite).await;
        let nginx = Nginx::start(&server, upstream().await).await;
        let old = server.device("device-1");
        let passes = || (200, "device-1".to_owned());
        assert_eq!(nginx.ask(&server, Some(&old)).await, passes(), "registered at first contact");
        assert_eq!(nginx.ask(&server, None).await.0, 403);
        assert_eq!(nginx.ask(&server, Some(&stranger.device("device-1"))).await.0, 403);
        let forged = server.device("device-1");
        assert_eq!(nginx.ask(&server, Some(&forged)).await.0, 403, "I6");

        // I3: a session there proves the switch, and the old certificate ends at once.
        let new = server.rotate(&old).await;
        assert_eq!(nginx.ask(&server, Some(&old)).await, passes());
        assert_eq!(nginx.ask(&server, Some(&new)).await, passes());
        assert_eq!(server.states("device-1").await, ["superseded", "current"]);
        assert_eq!(nginx.ask(&server, Some(&old)).await.0, 403, "I7");

        let api = Fioctl::new(&server);
        api.post("/v1/devices/device-1/deny", &json!({})).await.json(200);
        assert_eq!(nginx.ask(&server, Some(&new)).await.0, 403);
        server.stop().await;
        stranger.stop().await;
    }
}

#[tokio::test]
async fn what_is_no_certificate_is_a_bad_request() {
    let server = TestServer::start(crate::support::Backend::Sqlite).await;
    let api = Fioctl::new(&server);
    let twice = "X-Client-Cert: x\r\nX-Client-Cert: y\r\n";
    for header in [
        twice,
        "X-Forwarded-Client-Cert: Cert=x\r\n",
        "",
        "X-Client-Cert: \r\n",
        "X-Client-Cert: x\r\n",
        "X-Client-Cert: %ff%00\r\n",
    ] {
        let headers = format!("OSF-TOKEN: {}\r\n{header}", api.token());
        let answer = api.send_with("GET", "/v1/authz", &headers, "").await;
        assert_eq!(answer.status, 400, "{header}: {answer:?}");
    }
    server.stop().await;
}
