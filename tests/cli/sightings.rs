//! What a gateway that is not ours says it saw: `POST /v1/sightings` and `estd device seen`.

use serde_json::{Value, json};

use crate::host::Host;
use crate::offline_root::OfflineRoot;
use crate::on_both_ledgers;
use crate::operator::{rotate, session};
use crate::process::{Answer, Process};
use crate::support::{Backend, Device};

/// A server and a factory line whose Device CA is enabled.
struct Field {
    host: Host,
    root: OfflineRoot,
    line: OfflineRoot,
    server: Process,
    token: String,
}

impl Field {
    async fn new(backend: Backend) -> Self {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        let create = ["token", "create", "gateway", "--role", "operator", "--factory", "factory"];
        let token = server.estd(&host, &create).success().trim().to_owned();
        Self { host, root, line, server, token }
    }

    fn post(&self, query: &str, body: &Value) -> Answer {
        let headers = format!("OSF-TOKEN: {}\r\nContent-Type: application/json\r\n", self.token);
        self.server.http("POST", &format!("/v1/sightings{query}"), &headers, &body.to_string())
    }

    /// What each of these came to: the device with the verdict or the code.
    fn report(&self, devices: &[&Device]) -> Vec<[String; 2]> {
        let pems: Vec<String> = devices.iter().map(|device| pem(device)).collect();
        let answer = self.post("", &json!({ "certificates": pems }));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        let told = answer["sightings"].as_array().unwrap().iter().map(|one| {
            let (verdict, code) = (one["verdict"].as_str(), one["code"].as_str());
            assert!(verdict.is_some() != code.is_some(), "{one}");
            assert_eq!(code.is_some(), one["message"].is_string(), "{one}");
            [one["device"].as_str(), verdict.or(code)].map(|text| text.unwrap().to_owned())
        });
        told.collect()
    }

    fn states(&self, device: &str) -> Vec<String> {
        let show = ["device", "show", device, "--json"];
        let story = self.server.estd(&self.host, &show).json();
        let states = story["credentials"].as_array().unwrap().iter();
        states.map(|one| one["state"].as_str().unwrap().to_owned()).collect()
    }

    /// The actor, action, subject, outcome and code of every audit row after this many, oldest first.
    fn audit(&self, skip: usize) -> Vec<Value> {
        let list = ["audit", "list", "--limit", "1000", "--json"];
        let all = self.server.estd(&self.host, &list).json();
        let keys = ["actor", "action", "subject", "outcome", "code"];
        let rows = all["rows"].as_array().unwrap().iter().rev().skip(skip);
        rows.map(|row| keys.iter().map(|key| row[*key].clone()).collect()).collect()
    }
}

pub fn pem(device: &Device) -> String {
    estd::pki::to_pem("CERTIFICATE", device.certificate.der()).unwrap()
}

on_both_ledgers! {
    /// What a session on our listener would do, in one report, each for itself.
    async fn i3_a_report_counts_like_a_session(backend: Backend) {
        let field = Field::new(backend).await;
        let Field { root, line, server, .. } = &field;
        let old = line.device("old", "device-1");
        let new = rotate(server, root, &old).await;
        assert_eq!(field.states("device-1"), ["current", "pending"]);
        let unknown = line.device("unknown", "device-2");
        let stranger = OfflineRoot::new(field.host.path(), "other", "/CN=line/OU=factory");
        let forged = stranger.device("forged", "device-1");
        let thief = line.device("thief", "device-1");
        let before = field.audit(0).len();

        let devices = [&old, &new, &forged, &unknown, &unknown, &old, &thief, &new];
        let expected = [
            ["device-1", "expected"],
            ["device-1", "confirmed"],
            ["device-1", "certificate-untrusted"],
            ["device-2", "first-contact"],
            ["device-2", "expected"],
            ["device-1", "credential-superseded"],
            ["device-1", "credential-unknown"],
            ["device-1", "expected"],
        ];
        assert_eq!(field.report(&devices), expected.map(|row| row.map(str::to_owned)));
        assert_eq!(field.states("device-1"), ["superseded", "current"]);
        assert_eq!(field.states("device-2"), ["current"]);
        let rows = field.audit(before);
        let subject = "OU=factory,CN=device-1";
        let expected = json!([
            ["device-1", "confirm", "device-1", "done", ""],
            ["gateway", "sighting", subject, "refused", "certificate-untrusted"],
            ["device-2", "register", "device-2", "done", ""],
            ["device-1", "connect", "device-1", "alarm", "credential-superseded"],
            ["device-1", "connect", "device-1", "alarm", "credential-unknown"],
        ]);
        assert_eq!(json!(rows), expected);
        assert!(server.get("/metrics").body.contains("\nestd_alarms_total 2\n"));
        session(server, root, &new).await;
        server.estd(&field.host, &["audit", "verify"]).success();

        let allow = ["device", "allow", "device-1"];
        server.estd(&field.host, &allow).success();
        assert_eq!(field.report(&[&old])[0][1], "allowed");
        field.server.stop().await;
    }

    async fn i5_a_disabled_device_ca_registers_nobody_by_a_report(backend: Backend) {
        let field = Field::new(backend).await;
        let Field { root, line, server, host, .. } = &field;
        let known = line.device("known", "device-1");
        session(server, root, &known).await;
        let serial = line.certificate().serial().to_string();
        server.estd(host, &["device-ca", "disable", &serial]).success();
        let unknown = line.device("unknown", "device-2");
        let told = field.report(&[&known, &unknown]);
        assert_eq!([&*told[0][1], &told[1][1]], ["expected", "ca-disabled-unregistered"]);
        server.estd(host, &["device", "show", "device-2"]).refused("no such device");
        server.estd(host, &["device-ca", "revoke", &serial, "--strand", "1"]).success();
        assert_eq!(field.report(&[&known])[0][1], "ca-revoked");
        field.server.stop().await;
    }

    async fn a_token_reports_in_its_own_factory_only(backend: Backend) {
        let field = Field::new(backend).await;
        let init = ["factory", "init", "--name", "two", "--est-host", "two.example"];
        let init = [&init[..], &["--root-key", "2.key", "--root", "2.pem"]].concat();
        field.host.estd(&init).success();
        field.server.follows(&field.host).await;
        let device = field.line.device("device", "device-1");
        let body = json!({ "certificate": pem(&device) });
        assert_eq!(field.post("?factory=two", &body).status, 404);
        let create = ["token", "create", "two", "--role", "operator", "--factory", "two"];
        let two = field.server.estd(&field.host, &create).success().trim().to_owned();
        let field = Field { token: two, ..field };
        // The certificate is of a Device CA, but none of that Factory.
        let told = field.report(&[&device]);
        assert_eq!(told, [["device-1".to_owned(), "ou-mismatch".to_owned()]]);
        let show = ["device", "show", "device-1", "--factory", "factory"];
        field.server.estd(&field.host, &show).refused("no such device");
        field.server.stop().await;
    }

    async fn the_command_reports_files(backend: Backend) {
        let field = Field::new(backend).await;
        let Field { host, line, server, .. } = &field;
        line.device("one", "device-1");
        line.device("two", "device-2");
        let seen = ["device", "seen", "one.pem", "two.pem", "--address", "192.0.2.7"];
        let told = server.estd(host, &seen).success();
        let lines: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected =
            [["DEVICE", "VERDICT"], ["device-1", "first-contact"], ["device-2", "first-contact"]];
        assert_eq!(lines, expected);
        assert!(server.log().contains("192.0.2.7"), "who said where from");

        line.device("thief", "device-1");
        let some = ["device", "seen", "--json", "thief.pem", "one.pem"];
        let done = server.estd(host, &some);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains("1 of 2 certificates are refused"), "{done:?}");
        let told: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(told["sightings"][0]["code"], "credential-unknown");
        assert_eq!(told["sightings"][1]["verdict"], "expected");
        let many = [&["device", "seen"][..], &["one.pem"; 101]].concat();
        assert_eq!(server.estd(host, &many).success().lines().count(), 102);
        server.estd(host, &["device", "seen", "one.key"]).refused("one.key");
        field.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_a_report_that_is_none_is_refused_whole() {
    let field = Field::new(Backend::Sqlite).await;
    let good = pem(&field.line.device("device", "device-1"));
    let before = field.audit(0).len();
    for (body, name) in [
        (json!({ "certificate": "" }), "certificate"),
        (json!({ "certificate": "-----BEGIN CERTIFICATE-----" }), "certificate"),
        (json!({ "certificates": [good, "x"] }), "certificates[1]"),
        (json!({ "certificates": vec![""; 101] }), "certificates"),
        (json!({ "certificate": good, "certificates": [good] }), "certificates"),
        (json!({}), "certificates"),
        (json!({ "certificate": good, "address": "here" }), "address"),
    ] {
        let answer = field.post("", &body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(told["errors"][name].is_string(), "{name}: {told}");
    }
    assert_eq!(field.post("", &json!({ "certificate": good, "device": "x" })).status, 422);
    let large = json!({ "certificate": format!("{good}{}", " ".repeat(256 * 1024)) });
    assert_eq!(field.post("", &large).status, 413);
    assert_eq!(field.audit(before), Vec::<Value>::new());
    for address in ["192.0.2.7", "192.0.2.7:4711", "2001:db8::7", "[2001:db8::7]:4711"] {
        let body = json!({ "certificate": good, "address": address });
        assert_eq!(field.post("", &body).status, 200, "{address}");
    }
    assert_eq!(field.report(&[]), Vec::<[String; 2]>::new());
    field.server.stop().await;
}
