//! Configuration files that operators set: merged as fleet, then group, then device; given back by a
//! device that switches to another key.

use serde_json::{Value, json};

use crate::agent::{NEW, announce, config, send};
use crate::on_both_ledgers;
use crate::support::fioctl::Fioctl;
use crate::support::{Device, TestServer};

const FLEET: &str = "/ota/factories/factory/config/";
const GROUP: &str = "/ota/factories/factory/device-groups/beta/config/";
const DEVICE: &str = "/ota/devices/device-1/config/?factory=factory&by-uuid=1";

fn files(files: &[(&str, &str)]) -> Value {
    let file = |(name, value): &(&str, &str)| json!({ "name": name, "value": value, "unencrypted": true, "on-changed": ["/bin/true"] });
    json!({ "reason": "a try", "files": files.iter().map(file).collect::<Vec<_>>() })
}

/// What the device gets, by name.
async fn got(server: &TestServer, device: &Device) -> Vec<(String, String)> {
    let answer = config(server, device, NEW).await;
    if answer.status == 204 {
        return Vec::new();
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let files: Value = serde_json::from_str(answer.text()).unwrap();
    let files = files.as_object().unwrap().iter();
    files.map(|(name, file)| (name.clone(), file["Value"].as_str().unwrap().to_owned())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

on_both_ledgers! {
    async fn files_are_merged_fleet_group_device(backend: Backend) {
        let server = TestServer::start(backend).await;
        let api = Fioctl::new(&server);
        let [device, other] = ["device-1", "device-2"].map(|name| server.device(name));
        for device in [&device, &other] {
            assert_eq!(got(&server, device).await, []);
        }
        server.sql("UPDATE device SET device_group = 'beta' WHERE name = 'device-1'").await;
        api.patch(FLEET, &files(&[("a", "fleet"), ("b", "fleet"), ("c", "fleet")])).await.json(200);
        api.patch(GROUP, &files(&[("b", "group"), ("c", "group")])).await.json(200);
        api.patch(DEVICE, &files(&[("c", "device")])).await.json(200);
        let all = pairs(&[("a", "fleet"), ("b", "group"), ("c", "device")]);
        assert_eq!(got(&server, &device).await, all);
        assert_eq!(got(&server, &other).await, pairs(&[("a", "fleet"), ("b", "fleet"), ("c", "fleet")]));

        let shown = api.get(GROUP).await.json(200);
        assert_eq!(shown["config"][0]["files"][0]["name"], "b");
        assert_eq!(shown["config"][0]["files"][0]["on-changed"], json!(["/bin/true"]));
        api.delete("/ota/devices/device-1/config/c/?factory=factory").await.json(200);
        api.delete("/ota/factories/factory/device-groups/beta/config/b/").await.json(200);
        let left = pairs(&[("a", "fleet"), ("b", "fleet"), ("c", "group")]);
        assert_eq!(got(&server, &device).await, left);
        assert_eq!(api.delete("/ota/factories/factory/config/none/").await.status, 404);
        let audit = server.audit().await;
        let changes = audit.iter().filter(|row| row.action.ends_with("-config"));
        assert_eq!(changes.filter(|row| row.actor == "admin").count(), 5);
        server.stop().await;
    }

    async fn a_removed_file_is_a_change(backend: Backend) {
        let server = TestServer::start(backend).await;
        let api = Fioctl::new(&server);
        let device = server.device("device-1");
        got(&server, &device).await;
        api.patch(FLEET, &files(&[("a", "1"), ("b", "2")])).await.json(200);
        server.sql("UPDATE config_file SET changed_at = changed_at - 61").await;
        let date = config(&server, &device, NEW).await.header("Date").unwrap().replace("GMT", "UTC");
        let headers = format!("If-Modified-Since: {date}\r\n");
        let again = send(&server, &device, ("GET", "/config"), &headers, "").await;
        assert_eq!(again.status, 304);
        api.delete("/ota/factories/factory/config/b/").await.json(200);
        let changed = send(&server, &device, ("GET", "/config"), &headers, "").await;
        assert_eq!(changed.status, 200);
        assert!(!changed.text().contains("\"b\""), "{}", changed.text());
        // An agent leaves everything as it is where it is told nothing: the last one is told too.
        api.delete("/ota/factories/factory/config/a/").await.json(200);
        let last = send(&server, &device, ("GET", "/config"), &headers, "").await;
        assert_eq!((last.status, last.text()), (200, "{}"));
        server.stop().await;
    }

    /// From the announcement of the next key until it is seen, only the device writes its own files.
    async fn a_device_that_switches_gives_its_files_back(backend: Backend) {
        let server = TestServer::start(backend).await;
        let api = Fioctl::new(&server);
        let device = server.device("device-1");
        got(&server, &device).await;
        let secret = json!({ "reason": "", "files": [{ "name": "wifi", "value": "Zm9yIHRoZSBvbGQga2V5" }] });
        api.patch(DEVICE, &secret).await.json(200);
        let own = send(&server, &device, ("GET", "/config-device"), "", "").await;
        assert_eq!(own.status, 200);
        let told: Value = serde_json::from_str(own.text()).unwrap();
        assert_eq!(told["wifi"], json!({ "Value": "Zm9yIHRoZSBvbGQga2V5", "OnChanged": [], "Unencrypted": false }));

        let back = json!({
            "reason": "Rotated", "public-key": "-----BEGIN PUBLIC KEY-----",
            "files": [{ "name": "wifi", "value": "for the new key", "unencrypted": false, "on-changed": [] }],
        });
        let give = async |device: &Device| {
            send(&server, device, ("PATCH", "/config"), "", &back.to_string()).await
        };
        assert_eq!(server.audit().await.iter().filter(|row| row.code == "no-next-key").count(), 0);
        let early = give(&device).await;
        assert_eq!(early.status, 409);
        assert!(early.text().ends_with("(no-next-key)\n"), "{}", early.text());
        assert_eq!(server.audit().await.iter().filter(|row| row.code == "no-next-key").count(), 1);

        let (key, body) = device.request();
        let certificate = server.reenroll(&device, &body).await.certificate();
        assert_eq!(announce(&server, &device, &key).await.status, 200);
        let refused = api.patch(DEVICE, &secret).await.json(409);
        assert!(refused["message"].as_str().unwrap().contains("announced its next key"), "{refused}");
        // Of the fleet it may change meanwhile: that is not encrypted for a device.
        api.patch(FLEET, &files(&[("a", "fleet")])).await.json(200);
        // One that gave up does not keep its files from the operator for ever; but one that was off
        // for a day goes on where it was, and must find none that it cannot read.
        server.sql("UPDATE device SET next_key_at = next_key_at - 90000").await;
        api.patch(DEVICE, &files(&[("other", "x")])).await.json(200);
        assert_eq!(api.patch(DEVICE, &secret).await.status, 409);
        assert_eq!(announce(&server, &device, &key).await.status, 200);
        assert_eq!(api.patch(DEVICE, &files(&[("other", "x")])).await.status, 409, "it begins anew");
        server.sql("UPDATE device SET next_key_at = next_key_at - 2600000").await;
        api.patch(DEVICE, &secret).await.json(200);
        assert_eq!(give(&device).await.status, 204);
        let planted = json!({ "files": [
            { "name": "planted", "value": "x" }, { "name": "other", "value": "changed" },
        ] });
        let kept = send(&server, &device, ("PATCH", "/config"), "", &planted.to_string()).await;
        assert_eq!(kept.status, 204, "only its own encrypted files are its to change");

        let new = Device::switched(certificate, key);
        let files = got(&server, &new).await;
        assert_eq!(files, pairs(&[("a", "fleet"), ("other", "x"), ("wifi", "for the new key")]));
        api.patch(DEVICE, &secret).await.json(200);
        server.stop().await;
    }
}

/// A device must be able to give all of its files back at once.
#[tokio::test]
async fn what_a_device_could_not_give_back_is_refused() {
    let server = TestServer::start(crate::support::Backend::Sqlite).await;
    let api = Fioctl::new(&server);
    let device = server.device("device-1");
    got(&server, &device).await;
    let value = "x".repeat(100 * 1024);
    api.patch(DEVICE, &files(&[("a", &value)])).await.json(200);
    let more = api.patch(DEVICE, &files(&[("b", &value)])).await.json(409);
    assert!(more["message"].as_str().unwrap().contains("more than 128 KiB"), "{more}");
    api.patch(DEVICE, &files(&[("a", "small"), ("b", &value)])).await.json(200);
    let names: Vec<String> = (0..256).map(|n| format!("file-{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    assert_eq!(api.patch(DEVICE, &files(&many)).await.status, 409);
    let code = |row: &&estd::ledger::AuditRow| row.code == "too-much-config";
    assert_eq!(server.audit().await.iter().filter(code).count(), 2);
    assert_eq!(got(&server, &device).await.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    let server = TestServer::start(crate::support::Backend::Sqlite).await;
    let api = Fioctl::new(&server);
    for (name, value) in
        [("", "x"), ("../etc", "x"), ("a/b", "x"), (".hidden", "x"), ("a", "\u{0}")]
    {
        let answer = api.patch(FLEET, &files(&[("good", "x"), (name, value)])).await;
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
    }
    assert_eq!(api.get(FLEET).await.json(200)["config"], json!([]), "nothing half applied");
    // What fioctl takes to be encrypted by the server would reach devices as it is.
    let plain = json!({ "files": [{ "name": "a", "value": "x" }] });
    for several in [FLEET, GROUP] {
        let why = api.patch(several, &plain).await.json(400);
        assert!(why["message"].as_str().unwrap().contains("not encrypted"), "{why}");
    }
    got(&server, &server.device("device-1")).await;
    let why =
        api.patch(DEVICE, &json!({ "files": [{ "name": "a", "value": "plain text!" }] })).await;
    assert!(why.json(400)["message"].as_str().unwrap().contains("base64"), "{why:?}");
    let elsewhere = "/ota/factories/other/config/";
    assert_eq!(api.patch(elsewhere, &files(&[("a", "x")])).await.status, 404);
    server.stop().await;
}
