//! Webhooks: what is posted, signed and in order, and what becomes of what nobody takes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use estd::pki::to_pem;
use serde_json::{Value, json};

use crate::host::{Done, Host};
use crate::offline_root::OfflineRoot;
use crate::on_both_ledgers;
use crate::operator::{reenroll, rotate, session};
use crate::process::{Process, eventually};
use crate::receiver::{Delivery, Receiver, Reply};
use crate::support::{Backend, Device};

on_both_ledgers! {
    async fn every_kind_of_event_is_posted_signed_and_in_order(backend: Backend) {
        let field = Field::new(backend).await;
        let receiver = Receiver::start().await;
        let secret = field.add("all", &receiver, &[]);
        let old = field.line.device("device", "device-1");
        session(&field.server, &field.root, &old).await;
        let new = rotate(&field.server, &field.root, &old).await;
        session(&field.server, &field.root, &new).await;
        assert_eq!(reenroll(&field.server, &field.root, &old).await, 403, "an alarm");
        field.estd(&["device", "allow", "device-1"]).success();
        session(&field.server, &field.root, &old).await;
        field.estd(&["rotation", "start", "--device", "device-1", "--id", "one"]).success();
        field.estd(&["rotation", "pause", "one"]).success();
        field.disable_and_enable();

        let deliveries = receiver.received(7).await;
        let events: Vec<_> = deliveries.iter().map(|one| one.header("estd-event")).collect();
        let expected = ["device-rotated", "alarm", "device-rotated", "rotation", "rotation"];
        assert_eq!(events, [&expected[..], &["device-ca"; 2]].concat());
        for pair in deliveries.windows(2) {
            assert!(pair[0].number() < pair[1].number(), "{pair:?}");
        }
        for delivery in &deliveries {
            let body = delivery.json();
            assert!(delivery.is_signed_by(&secret) && !delivery.is_signed_by(&"00".repeat(32)));
            assert_eq!(delivery.request_line(), "POST /hook?a=b HTTP/1.1");
            assert_eq!(delivery.header("content-type"), "application/json");
            assert_eq!(delivery.header("host"), format!("localhost:{}", receiver.address.port()));
            assert_eq!(delivery.header("estd-delivery"), format!("all/{}", delivery.number()));
            assert_eq!(body["event"], delivery.header("estd-event"));
            assert_eq!(body["factory"], "factory");
            assert!(body["at"].as_str().unwrap().starts_with("20"), "{body}");
        }
        let credential = |device: &Device| {
            let key = device.certificate.public_key();
            json!({
                "certificate_sha256": device.certificate.fingerprint().to_string(),
                "public_key": to_pem("PUBLIC KEY", key.der()).unwrap(),
            })
        };
        for (at, old, new) in [(0, &old, &new), (2, &new, &old)] {
            let body = deliveries[at].json();
            assert_eq!(body["device"], "device-1");
            assert_eq!([&body["old"], &body["new"]], [&credential(old), &credential(new)]);
        }
        let told = |at: usize, keys: &[&str]| {
            let body = deliveries[at].json();
            keys.iter().map(|key| body[*key].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(told(1, &["subject", "code"]), ["device-1", "credential-superseded"]);
        assert_eq!(told(3, &["actor", "action", "subject"]), ["admin", "start-rotation", "one"]);
        assert_eq!(told(4, &["action", "subject"]), ["pause-rotation", "one"]);
        assert_eq!(told(5, &["action", "detail"]), ["disable-device-ca", "a try"]);
        let audit = field.estd(&["audit", "list", "--limit", "1000", "--json"]).json();
        for delivery in &deliveries {
            let mut rows = audit["rows"].as_array().unwrap().iter();
            assert!(rows.any(|row| row["number"] == delivery.json()["id"]), "{delivery:?}");
        }
        field.idle("all").await;
        let metrics = field.server.get("/metrics").body;
        assert!(metrics.contains("estd_webhook_deliveries_total{result=\"delivered\"} 7\n"));
        assert_eq!(receiver.deliveries().len(), 7, "each once");
        field.estd(&["audit", "verify"]).success();
        field.server.stop().await;
    }

    /// The first delays are 1 and 5 seconds; what comes meanwhile waits behind.
    async fn what_fails_is_tried_again_also_after_a_restart(backend: Backend) {
        let field = Field::new(backend).await;
        let receiver = Receiver::start().await;
        receiver.replies(Reply::Status(500));
        let secret = field.add("hook", &receiver, &["device-ca"]);
        field.disable_and_enable();
        receiver.received(2).await;
        let failed = field.until("hook", |one| one["failed_attempts"] == 2).await;
        assert_eq!(failed["last_error"], "the receiver answered 500 Internal Server Error");
        assert_eq!((&failed["pending"], &failed["dead_letters"]), (&json!(2), &json!(0)));
        assert!(failed["pending_since"].is_string() && failed["next_attempt_at"].is_string());
        assert_eq!(failed["delivered_at"], Value::Null);
        let list = field.estd(&["webhook", "list"]).success();
        assert!(list.contains("hook  Factory factory") && list.contains("answered 500"), "{list}");

        let field = field.restart(Host::serve).await;
        assert_eq!(receiver.deliveries().len(), 2, "not before its time");
        receiver.replies(Reply::Status(200));
        let deliveries = receiver.received(4).await;
        let numbers: Vec<_> = deliveries.iter().map(Delivery::number).collect();
        assert!(numbers[..3] == [numbers[0]; 3] && numbers[3] == numbers[0] + 1, "{numbers:?}");
        assert!(deliveries.iter().all(|one| one.is_signed_by(&secret)));
        let idle = field.idle("hook").await;
        assert_eq!((&idle["failed_attempts"], &idle["last_error"]), (&json!(0), &Value::Null));
        assert!(idle["delivered_at"].is_string() && idle["next_attempt_at"].is_null());
        field.server.stop().await;
    }

    async fn what_nobody_takes_is_a_dead_letter_until_an_operator_says_again(backend: Backend) {
        let field = Field::new(backend).await;
        let receiver = Receiver::start().await;
        receiver.replies(Reply::Status(503));
        field.add("hook", &receiver, &["device-ca"]);
        field.disable_and_enable();
        for dead in 1..=2 {
            field.until("hook", |one| one["failed_attempts"] == 1).await;
            field.last_attempt().await;
            field.until("hook", |one| one["dead_letters"] == dead).await;
        }
        let list = field.estd(&["webhook", "dead-letters", "hook", "--json"]).json();
        let letters = list["dead_letters"].as_array().unwrap();
        assert_eq!(letters[0]["action"], "disable-device-ca");
        assert_eq!(letters[1]["action"], "enable-device-ca");
        assert_eq!(letters[0]["error"], "the receiver answered 503 Service Unavailable");
        let text = field.estd(&["webhook", "dead-letters", "hook"]).success();
        assert!(text.contains("enable-device-ca") && text.lines().count() == 3, "{text}");

        // The first that fails ends it for that time; the others are tried by and by.
        let redeliver = ["webhook", "redeliver", "hook"];
        let before = receiver.deliveries().len();
        let told = field.estd(&redeliver).success();
        assert_eq!(told, "Dead letters that are delivered again: 2\n");
        receiver.received(before + 2).await;
        eventually("both to be dead again", async || {
            let list = field.estd(&["webhook", "dead-letters", "hook", "--json"]).json();
            let mut letters = list["dead_letters"].as_array().unwrap().iter();
            letters.all(|one| one["again"] == false).then_some(())
        })
        .await;

        receiver.replies(Reply::Status(201));
        let before = receiver.deliveries().len();
        field.estd(&redeliver).success();
        field.until("hook", |one| one["dead_letters"] == 0).await;
        field.disable_and_enable();
        let after = receiver.received(before + 4).await;
        let numbers: Vec<_> = after[before..].iter().map(|one| json!(one.number())).collect();
        assert_eq!(numbers[..2], [letters[0]["number"].clone(), letters[1]["number"].clone()]);
        let audit = field.estd(&["audit", "list"]).success();
        let rows = audit.lines().filter(|line| line.contains("redeliver-webhook"));
        assert!(rows.clone().all(|row| row.contains("2 dead letters")) && rows.count() == 2);
        field.estd(&["audit", "verify"]).success();
        field.server.stop().await;
    }

    /// The attempt that is under way fails, and the one after it would be in an hour.
    async fn an_operator_who_says_again_is_heard_during_an_attempt(backend: Backend) {
        let field = Field::new(backend).await;
        let receiver = Receiver::start().await;
        receiver.replies(Reply::Silence);
        field.add("hook", &receiver, &["device-ca"]);
        field.host.sql("UPDATE webhook SET attempts = 5").await;
        field.disable_and_enable();
        receiver.received(1).await;
        receiver.replies(Reply::Status(204));
        field.estd(&["webhook", "redeliver", "hook"]).success();
        assert_eq!(receiver.received(3).await.len(), 3, "the first event twice");
        field.idle("hook").await;
        field.server.stop().await;
    }

    /// Else each look at the audit log would go through all of them again.
    async fn rows_that_are_none_of_its_business_are_noted_by_the_thousand(backend: Backend) {
        let field = Field::new(backend).await;
        let receiver = Receiver::start().await;
        field.add("hook", &receiver, &["alarm"]);
        field.add_events(1001).await;
        let rows = field.rows().await;
        eventually("them to be noted", async || {
            (field.done_to().await >= rows).then_some(())
        })
        .await;
        field.add_events(10).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(field.done_to().await, rows, "a few are not worth a transaction");
        assert_eq!(receiver.deliveries().len(), 0);
        field.server.stop().await;
    }

    /// Two servers of one ledger, and more events than fit in one page.
    async fn several_servers_deliver_each_event_once(backend: Backend) {
        let field = Field::new(backend).await;
        let replica = field.host.serve().await;
        let receiver = Receiver::start().await;
        field.add("hook", &receiver, &["device-ca"]);
        let before = field.rows().await;
        field.add_events(250).await;
        let deliveries = receiver.received(250).await;
        field.idle("hook").await;
        let numbers: Vec<_> = deliveries.iter().map(Delivery::number).collect();
        assert_eq!(numbers, (before + 1..=before + 250).collect::<Vec<_>>());
        assert_eq!(receiver.deliveries().len(), 250);
        replica.stop().await;
        field.server.stop().await;
    }

    /// Its turn ends by itself, and whoever is next goes on where it was.
    async fn a_server_that_dies_in_its_turn_holds_nothing_up_for_long(backend: Backend) {
        let field = Field::new(backend).await;
        let receiver = Receiver::start().await;
        field.add("hook", &receiver, &["device-ca"]);
        field.host.sql("UPDATE webhook SET leased_until = 9999999999").await;
        field.disable_and_enable();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(receiver.deliveries().len(), 0, "it is the other's turn");
        field.host.sql("UPDATE webhook SET leased_until = 1").await;
        assert_eq!(receiver.received(2).await.len(), 2);
        field.idle("hook").await;
        field.server.stop().await;
    }

    /// One that was removed, or has its turn elsewhere by now, is not written to.
    async fn a_turn_that_is_over_changes_nothing(backend: Backend) {
        let field = Field::new(backend).await;
        let receiver = Receiver::start().await;
        receiver.replies(Reply::Silence);
        field.add("gone", &receiver, &["device-ca"]);
        field.add("elsewhere", &receiver, &["device-ca"]);
        field.host.sql("UPDATE webhook SET attempts = 6").await;
        field.disable_and_enable();
        receiver.received(2).await;
        field.estd(&["webhook", "remove", "gone"]).success();
        field.host.sql("UPDATE webhook SET leased_until = 9999999999").await;
        let given_up = async || (field.server.log().matches("a dead letter").count() == 2).then_some(());
        eventually("both to be given up", given_up).await;
        let held = "SELECT COUNT(*) FROM webhook WHERE attempts = 6 AND leased_until = 9999999999";
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(field.host.number(held).await, 1);
        assert_eq!(field.host.number("SELECT COUNT(*) FROM webhook_dead_letter").await, 0);
        field.server.stop().await;
    }

    async fn a_webhook_of_one_factory_is_told_of_that_one_only(backend: Backend) {
        let field = Field::new(backend).await;
        let init = ["factory", "init", "--name", "two", "--est-host", "two.example"];
        field.host.estd(&[&init[..], &["--root-key", "2.key", "--root", "2.pem"]].concat()).success();
        field.server.follows(&field.host).await;
        let [here, there, everywhere] =
            [Receiver::start().await, Receiver::start().await, Receiver::start().await];
        let token = ["token", "create", "chief", "--role", "admin", "--factory", "two"];
        let token = field.estd(&token).success();
        let as_chief = |arguments: &[&str]| {
            let mut command = field.server.command(&field.host, arguments);
            command.env("ESTD_TOKEN", token.trim());
            Done::of(command)
        };
        field.add("here", &here, &[]);
        let url = there.url();
        let told = as_chief(&["webhook", "add", "there", &url]);
        assert!(told.stderr.contains("all events of Factory two"), "{told:?}");
        field.estd(&["webhook", "add", "everywhere", &everywhere.url()]).success();

        for arguments in [
            &["webhook", "remove", "here"][..],
            &["webhook", "redeliver", "here"],
            &["webhook", "dead-letters", "here"],
            &["webhook", "dead-letters", "everywhere"],
        ] {
            as_chief(arguments).refused("the Factory two has no such webhook");
        }
        let other = ["webhook", "add", "x", &url, "--factory", "factory"];
        as_chief(&other).refused("there is no such Factory");
        let seen = as_chief(&["webhook", "list", "--json"]).json();
        let seen = seen["webhooks"].as_array().unwrap();
        assert_eq!((seen.len(), &seen[0]["name"]), (1, &json!("there")));

        field.disable_and_enable();
        here.received(2).await;
        everywhere.received(2).await;
        let begin = ["--begin", "2100-01-01", "--id", "x"];
        as_chief(&[&["rotation", "start", "--silent-since", "2030-01-01"], &begin[..]].concat());
        for name in ["here", "there", "everywhere"] {
            field.idle(name).await;
        }
        assert_eq!(here.deliveries().len(), 2);
        assert!(there.deliveries().iter().all(|one| one.json()["factory"] == "two"));
        assert_eq!(as_chief(&["webhook", "remove", "there"]).success(), "The webhook there is removed.\n");
        as_chief(&["webhook", "remove", "there"]).refused("the Factory two has no such webhook");
        field.server.stop().await;
    }

    /// The running server still has the old key: what it cannot sign waits.
    async fn the_secret_is_kept_wrapped_and_survives_a_rewrap(backend: Backend) {
        let field = Field::new(backend).await;
        let receiver = Receiver::start().await;
        let secret = field.add("hook", &receiver, &[]);
        let told = field.host.estd(&["keys", "rewrap"]).success();
        assert!(told.starts_with("Rewrapped: 3 private keys, the secret of 1 webhook, under"), "{told}");
        let add = ["webhook", "add", "late", &receiver.url()];
        field.estd(&add).refused("restart this server");
        field.disable_and_enable();
        field.server.logged("its secret cannot be used, and its events wait", 1).await;
        assert_eq!(receiver.deliveries().len(), 0);
        let field = field.restart(Host::serve).await;
        let deliveries = receiver.received(2).await;
        assert!(deliveries.iter().all(|one| one.is_signed_by(&secret)), "{deliveries:?}");
        field.estd(&add).success();
        field.server.stop().await;
    }

    async fn a_webhook_is_made_listed_and_removed(backend: Backend) {
        let field = Field::new(backend).await;
        let add = ["webhook", "add", "erp", "http://127.0.0.1:9/x", "--event", "alarm"];
        let made = field.estd(&[&add[..], &["--event", "rotation"]].concat());
        let told = "The webhook erp: alarm, rotation of every Factory, to http://127.0.0.1:9/x.";
        assert!(made.stderr.starts_with(told), "{made:?}");
        let secret = made.success();
        assert!(secret.len() == 65 && secret.trim().chars().all(|c| c.is_ascii_hexdigit()));
        field.estd(&add).refused("there is another webhook of this name");
        let list = field.estd(&["webhook", "list", "--json"]).json();
        let erp = &list["webhooks"][0];
        assert_eq!((&erp["name"], &erp["url"]), (&json!("erp"), &json!("http://127.0.0.1:9/x")));
        assert_eq!((&erp["events"], &erp["factory"]), (&json!(["alarm", "rotation"]), &Value::Null));
        assert_eq!((&erp["pending"], &erp["created_by"]), (&json!(0), &json!("admin")));
        assert!(!list.to_string().contains(secret.trim()));

        // What it waits with goes too.
        field.estd(&["device-ca", "add", "--online"]).success();
        let remove = ["webhook", "remove", "erp"];
        assert_eq!(field.estd(&remove).success(), "The webhook erp is removed.\n");
        for arguments in [
            &remove[..],
            &["webhook", "redeliver", "erp"],
            &["webhook", "dead-letters", "erp"],
        ] {
            field.estd(arguments).refused("there is no such webhook");
        }
        let rows = field.estd(&["audit", "list", "--json"]).json();
        let rows = rows["rows"].as_array().unwrap().iter();
        let rows: Vec<_> = rows
            .filter(|row| row["action"].as_str().unwrap().ends_with("-webhook"))
            .map(|row| json!([row["action"], row["subject"], row["outcome"], row["code"], row["detail"]]))
            .rev()
            .collect();
        let expected = json!([
            ["create-webhook", "erp", "done", "", "alarm, rotation to http://127.0.0.1:9/x"],
            ["create-webhook", "erp", "refused", "webhook-name-taken",
                "there is another webhook of this name"],
            ["remove-webhook", "erp", "done", "", "http://127.0.0.1:9/x"],
        ]);
        assert_eq!(json!(rows), expected);
        field.server.stop().await;
    }
}

/// And nobody else waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_receivers_do_no_harm() {
    let field = Field::new(Backend::Sqlite).await;
    let [silent, endless, elsewhere, well] = [
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    ];
    silent.replies(Reply::Silence);
    endless.replies(Reply::Endless);
    elsewhere.replies(Reply::Redirect);
    let receivers =
        [("silent", &silent), ("endless", &endless), ("elsewhere", &elsewhere), ("well", &well)];
    for (name, receiver) in receivers {
        field.add(name, receiver, &[]);
    }
    field.estd(&["webhook", "add", "nobody", "http://localhost:1/"]).success();
    field.disable_and_enable();
    well.received(2).await;
    assert_eq!(silent.deliveries().len(), 1, "it is still waited for");
    endless.received(2).await;
    field.idle("endless").await;
    let failed = |one: &Value| one["failed_attempts"] != 0;
    for (name, reason) in [
        ("nobody", "cannot talk to localhost:1: "),
        ("elsewhere", "the receiver answered 307 Temporary Redirect, and redirects are not"),
        ("silent", "the server did not answer in time"),
    ] {
        let shown = field.until(name, failed).await["last_error"].to_string();
        assert!(shown.contains(reason), "{shown}");
    }
    let mut redirected = elsewhere.deliveries().into_iter();
    assert!(redirected.all(|one| one.request_line().starts_with("POST /hook")));
    // What is on its way is waited for, for ten seconds at most.
    field.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_https_receiver_must_have_a_certificate_that_the_host_trusts() {
    let field = Field::new(Backend::Sqlite).await;
    let folder = field.host.path();
    let authority = OfflineRoot::new(folder, "authority", "/CN=authority");
    authority.request("receiver", "/CN=receiver");
    field.host.write("receiver.ext", "subjectAltName=DNS:localhost\n");
    authority.sign("receiver.csr", "receiver.pem", &["-extfile", "receiver.ext"]);
    let receiver = Receiver::start_tls(folder).await;
    field.add("hook", &receiver, &[]);
    field.disable_and_enable();
    let failed = field.until("hook", |one| one["failed_attempts"] != 0).await;
    let reason = failed["last_error"].as_str().unwrap();
    assert!(reason.starts_with("the certificate of localhost:"), "{reason}");
    assert!(reason.contains("is not trusted: ") && reason.contains("UnknownIssuer"), "{reason}");
    assert_eq!(receiver.deliveries().len(), 0);

    let mut field = field;
    field.host.environment.push(("SSL_CERT_FILE", "authority.pem".to_owned()));
    let field = field.restart(Host::serve).await;
    receiver.received(2).await;
    field.idle("hook").await;
    field.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_cannot_be_is_refused_with_every_reason() {
    let field = Field::new(Backend::Sqlite).await;
    let bad = ["webhook", "add", "a b", "https://user:hunter2@example.com/"];
    let refused = field.estd(&bad);
    assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    let reason = "such a webhook cannot be\n  \"a b\" is not a webhook name: 1 to 64 letters, \
         digits, '.', '_' and '-'\n  \"example.com/\" is not a URL of a webhook: http://";
    refused.refused(reason);
    let beyond = field.estd(&["webhook", "add", "x", "http://localhost:99999/"]);
    beyond.refused("its port is not a number from 0 to 65535");
    let unknown = field.estd(&["webhook", "add", "x", "http://localhost/", "--event", "alarms"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    let admin = field.host.read("data/admin-token");
    let headers = format!("OSF-TOKEN: {}\r\nContent-Type: application/json\r\n", admin.trim());
    let post = |body: &str| field.server.http("POST", "/v1/webhooks", &headers, body);
    let answer = post(r#"{"name":"x","url":"http://localhost/","events":["alarms"]}"#);
    assert!(answer.status == 400 && answer.body.contains("is not a kind of event"), "{answer:?}");
    assert_eq!(post(r#"{"name":"x","url":"http://localhost/","secret":"mine"}"#).status, 422);
    assert_eq!(field.estd(&["webhook", "list", "--json"]).json(), json!({ "webhooks": [] }));
    field.server.stop().await;
}

/// By the commands of docs/operating.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_verified_as_documented_and_the_log_holds_no_secret() {
    let field = Field::new(Backend::Sqlite).await;
    let field = field.restart(async |host| Process::start(host, &["--log-filter", "trace"]).await);
    let field = field.await;
    let receiver = Receiver::start().await;
    let secret = field.add("hook", &receiver, &[]);
    field.disable_and_enable();
    let delivery = receiver.received(1).await.remove(0);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split("\n## ").find(|part| part.starts_with("Webhooks\n")).unwrap();
    let commands = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let verifies = |body: &str| {
        field.host.write("body", body);
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", commands]).current_dir(field.host.path());
        command.env("SECRET", &secret).env("SIGNATURE", delivery.header("estd-signature"));
        command.status().unwrap().success()
    };
    assert!(verifies(&delivery.body));
    assert!(!verifies(&delivery.body.replace("a try", "no try")));

    field.server.signal("TERM");
    let (_, log) = field.server.ended().await;
    let bytes = data_encoding::HEXLOWER.decode(secret.as_bytes()).unwrap();
    assert!(log.contains("create-webhook") || log.contains("posted"), "this is where it would be");
    assert!(!log.contains(&secret) && !log.contains(&format!("{bytes:?}")), "{log}");
}

/// A Factory with a factory line, and its server.
struct Field {
    host: Host,
    root: OfflineRoot,
    line: OfflineRoot,
    server: Process,
}

impl Field {
    async fn new(backend: Backend) -> Self {
        let (host, root) = Host::with_factory(backend).await;
        let (line, server) = host.serve_line(&root).await;
        Self { host, root, line, server }
    }

    fn estd(&self, arguments: &[&str]) -> Done {
        self.server.estd(&self.host, arguments)
    }

    /// Adds a webhook of the Factory; gives its secret.
    fn add(&self, name: &str, receiver: &Receiver, events: &[&str]) -> String {
        let url = receiver.url();
        let mut add = vec!["webhook", "add", name, &url, "--factory", "factory"];
        add.extend(events.iter().flat_map(|event| ["--event", event]));
        self.estd(&add).success().trim().to_owned()
    }

    /// Two events.
    fn disable_and_enable(&self) {
        let serial = self.line.certificate().serial().to_string();
        let on = ["--factory", "factory", "device-ca"];
        let disable = ["disable", &serial, "--reason", "a try"];
        self.estd(&[&on[..], &disable].concat()).success();
        self.estd(&[&on[..], &["enable", &serial]].concat()).success();
    }

    /// The webhook as the list has it, once `condition` holds.
    async fn until(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(name, async || {
            let list = self.estd(&["webhook", "list", "--json"]).json();
            let webhooks = list["webhooks"].as_array().unwrap();
            let webhook = webhooks.iter().find(|one| one["name"] == name).unwrap();
            condition(webhook).then(|| webhook.clone())
        })
        .await
    }

    /// Waits until nothing waits for the webhook.
    async fn idle(&self, name: &str) -> Value {
        self.until(name, |one| one["pending"] == 0).await
    }

    /// The next attempt is the last one, and now.
    async fn last_attempt(&self) {
        self.host.sql("UPDATE webhook SET attempts = 6, next_attempt_at = 0").await;
    }

    /// How far the only webhook has come, as the ledger notes it.
    async fn done_to(&self) -> i64 {
        self.host.number("SELECT done_to FROM webhook").await
    }

    /// How many rows the audit log has.
    async fn rows(&self) -> i64 {
        let ledger = self.host.ledger().await;
        let rows = ledger.verify_audit().await.unwrap().unwrap();
        ledger.close().await;
        rows
    }

    /// Adds events in one go.
    async fn add_events(&self, count: usize) {
        let ledger = self.host.ledger().await;
        let event = estd::model::audit::Entry {
            at: estd::clock::UnixTime::now(),
            factory: Some(ledger.factories().await.unwrap()[0].factory.id),
            actor: "test".to_owned(),
            action: "enable-device-ca".to_owned(),
            subject: "line".to_owned(),
            outcome: estd::model::audit::Outcome::Done,
            code: String::new(),
            detail: String::new(),
        };
        for _ in 0..count {
            ledger.note(event.clone()).await.unwrap();
        }
        ledger.close().await;
    }

    async fn restart(self, start: impl AsyncFnOnce(&Host) -> Process) -> Self {
        let Self { host, root, line, server } = self;
        server.stop().await;
        let server = start(&host).await;
        Self { host, root, line, server }
    }
}
