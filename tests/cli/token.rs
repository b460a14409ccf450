//! Tokens: who may do what, in which Factory, until when, and under which name it goes on record.

use std::collections::BTreeSet;

use estd::model::Role;
use serde_json::{Value, json};

use crate::document::{routes_in, source};
use crate::host::{Done, Host};
use crate::on_both_ledgers;
use crate::process::{Answer, Process};
use crate::support::Backend;
use crate::support::wire::{get_with, post};

/// Every route of the API, with the smallest role that may use it.
pub const ROUTES: &[(&str, &str, Role)] = &[
    ("GET", "/v1/authz", Role::Operator),
    ("POST", "/v1/authz", Role::Operator),
    ("GET", "/v1/factories", Role::Viewer),
    ("POST", "/v1/factories", Role::Admin),
    ("GET", "/v1/bootstrap-cas", Role::Viewer),
    ("POST", "/v1/bootstrap-cas", Role::Admin),
    ("DELETE", "/v1/bootstrap-cas/{key}", Role::Admin),
    ("GET", "/v1/device-cas", Role::Viewer),
    ("POST", "/v1/device-cas", Role::Admin),
    ("POST", "/v1/device-cas/requests", Role::Admin),
    ("GET", "/v1/device-cas/bundle", Role::Viewer),
    ("GET", "/v1/device-cas/{serial}", Role::Viewer),
    ("POST", "/v1/device-cas/{serial}/disable", Role::Operator),
    ("POST", "/v1/device-cas/{serial}/enable", Role::Admin),
    ("POST", "/v1/device-cas/{serial}/revoke", Role::Admin),
    ("GET", "/v1/device-cas/{serial}/dependents", Role::Viewer),
    ("GET", "/v1/device-keys", Role::Viewer),
    ("GET", "/v1/devices", Role::Viewer),
    ("GET", "/v1/devices/{name}", Role::Viewer),
    ("POST", "/v1/devices/{name}/allow", Role::Operator),
    ("DELETE", "/v1/devices/{name}/allow", Role::Operator),
    ("POST", "/v1/devices/{name}/deny", Role::Operator),
    ("GET", "/v1/held-requests", Role::Viewer),
    ("POST", "/v1/held-requests/{id}/approve", Role::Operator),
    ("POST", "/v1/held-requests/{id}/reject", Role::Operator),
    ("GET", "/v1/rotations", Role::Viewer),
    ("POST", "/v1/rotations", Role::Operator),
    ("GET", "/v1/rotations/{id}", Role::Viewer),
    ("GET", "/v1/rotations/{id}/devices", Role::Viewer),
    ("GET", "/v1/rotations/{id}/events", Role::Viewer),
    ("GET", "/v1/rotations/{id}/fioconfig", Role::Viewer),
    ("POST", "/v1/rotations/{id}/pause", Role::Operator),
    ("POST", "/v1/rotations/{id}/resume", Role::Operator),
    ("POST", "/v1/rotations/{id}/abort", Role::Operator),
    ("POST", "/v1/rotations/{id}/retry", Role::Operator),
    ("POST", "/v1/sightings", Role::Operator),
    ("GET", "/v1/tokens", Role::Admin),
    ("POST", "/v1/tokens", Role::Admin),
    ("DELETE", "/v1/tokens/{name}", Role::Admin),
    ("GET", "/v1/webhooks", Role::Viewer),
    ("POST", "/v1/webhooks", Role::Admin),
    ("DELETE", "/v1/webhooks/{name}", Role::Admin),
    ("GET", "/v1/webhooks/{name}/dead-letters", Role::Viewer),
    ("POST", "/v1/webhooks/{name}/redeliver", Role::Admin),
    ("GET", "/v1/audit", Role::Viewer),
    ("GET", "/v1/audit/verification", Role::Viewer),
];

/// A new route is on nobody's list until it is on the one above.
#[test]
fn the_table_of_routes_is_whole() {
    let source = source("mod.rs");
    // What comes after the fallback takes no token.
    let (v1, _) = source.split_once(".fallback(").unwrap();
    let found = routes_in(v1).into_keys().collect::<BTreeSet<_>>();
    let listed = ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()));
    assert_eq!(found, listed.collect::<BTreeSet<_>>());
}

/// A path of this shape.
pub fn filled(template: &str, name: &str) -> String {
    let number = ["{id}", "{serial}", "{key}"];
    number.iter().fold(template.replace("{name}", name), |path, what| path.replace(what, "1"))
}

on_both_ledgers! {
    /// By either header; a refusal names the role that it takes, and is on record.
    async fn every_route_takes_its_role(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let mut refused = Vec::new();
        for role in Role::ALL {
            let name = format!("a-{role}");
            let token = create(&server, &host, &[&name, "--role", role.as_str()]);
            for (index, (method, template, needed)) in ROUTES.iter().enumerate() {
                let path = filled(template, "x");
                let header = ["OSF-TOKEN:", "Authorization: Bearer"][index % 2];
                let answer = server.http(method, &path, &format!("{header} {token}\r\n"), "");
                let what = format!("{role}: {method} {path}: {answer:?}");
                if role < *needed {
                    assert_eq!(answer.status, 403, "{what}");
                    assert!(answer.body.contains(&format!("needs the role {needed};")), "{what}");
                    refused.push(json!([name, format!("{method} {template}"), path]));
                } else {
                    assert!(![401, 403].contains(&answer.status), "{what}");
                }
                assert_eq!(server.http(method, &path, "", "").status, 401, "{method} {path}");
            }
        }
        let rows = audit(&server, &host, &["role-too-small"], &["actor", "action", "subject"]);
        assert_eq!(rows, refused);
        server.stop().await;
    }

    /// For scripts: the token alone on standard output. A revoke holds at once, on a replica too.
    async fn a_token_is_made_listed_and_revoked(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let replica = host.serve().await;
        let made = server.estd(&host, &["token", "create", "ci", "--role", "viewer"]);
        let told = "role viewer, every Factory, until it is revoked";
        assert!(made.stderr.contains(told), "{made:?}");
        let token = made.success();
        let digits = token.strip_prefix("estd_").and_then(|rest| rest.strip_suffix('\n')).unwrap();
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        assert!(digits.len() == 64 && digits.chars().all(is_hex), "{token}");
        let bound = ["token", "create", "line.1", "--role", "operator", "--days", "30"];
        let bound = [&bound[..], &["--factory", "factory", "--json"]].concat();
        let bound = server.estd(&host, &bound).json();
        assert_eq!((&bound["factory"], &bound["role"]), (&json!("factory"), &json!("operator")));
        assert!(bound["expires_at"].is_string());
        for server in [&server, &replica] {
            assert_eq!(get(server, token.trim(), "/v1/devices").status, 200);
        }

        let list = server.estd(&host, &["token", "list"]).success();
        assert_eq!(list.lines().count(), 3, "{list}");
        let line = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("ci ").contains("viewer    every Factory    active"), "{list}");
        assert!(line("line.1 ").contains("operator  Factory factory  active"), "{list}");
        let only = server.estd(&host, &["token", "list", "--factory", "factory"]).success();
        assert!(only.contains("line.1") && only.lines().count() == 2, "{only}");

        let revoke = ["token", "revoke", "ci"];
        let bound = [&revoke[..], &["--factory", "factory"]].concat();
        server.estd(&host, &bound).refused("the Factory factory has no such token to revoke");
        assert_eq!(server.estd(&host, &revoke).success(), "The token ci is revoked.\n");
        for server in [&server, &replica] {
            assert_eq!(get(server, token.trim(), "/v1/devices").status, 401);
        }
        server.estd(&host, &revoke).refused("there is no such token to revoke");
        server.estd(&host, &["token", "revoke", "cd"]).refused("no such token to revoke");
        server.estd(&host, &["token", "revoke", "admin"]).refused("other than \"admin\"");
        let again = server.estd(&host, &["token", "create", "ci", "--role", "admin"]);
        again.refused("there is, or was, another token of this name");
        let list = server.estd(&host, &["token", "list", "--json"]).json();
        assert_eq!(list["tokens"][0]["state"], "revoked");
        assert!(!list.to_string().contains(digits), "{list}");

        let rows = audit(&server, &host, &[""], &["actor", "action", "subject", "detail"]);
        let rows: Vec<_> = rows.iter().filter(|row| row.to_string().contains("-token")).collect();
        assert_eq!(rows[0], &json!(["admin", "create-token", "ci", "role viewer, every Factory"]));
        let detail = rows[1][3].as_str().unwrap();
        assert!(detail.starts_with("role operator, Factory factory, until 20"), "{detail}");
        assert_eq!(rows[2], &json!(["admin", "revoke-token", "ci", "role viewer, every Factory"]));
        assert_eq!(rows.len(), 3);
        replica.stop().await;
        server.stop().await;
    }

    async fn a_change_bears_the_name_of_its_token(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let line = root.device_ca("line", &[]);
        host.write("estd.toml", "[est.profile]\napproval = 'manual'");
        let server = host.serve().await;
        let [pki, ops] = [["pki", "admin"], ["ops", "operator"]]
            .map(|[name, role]| create(&server, &host, &[name, "--role", role]));
        let by = |token: &str, arguments: &[&str]| {
            let mut command = server.command(&host, arguments);
            command.env("ESTD_TOKEN", token);
            Done::of(command).success()
        };
        by(&pki, &["device-ca", "add", "line.pem"]);
        by(&pki, &["device-ca", "add", "--online"]);
        by(&pki, &["token", "create", "guest", "--role", "viewer"]);
        by(&pki, &["token", "revoke", "guest"]);
        server.follows(&host).await;
        let (trust, device) = (root.certificate(), line.device("device", "device-1"));
        let mut wire = server.connect(&trust, Some(&device)).await;
        for _ in 0..2 {
            let reenroll = post("/.well-known/est/simplereenroll", &device.request().1);
            assert_eq!(wire.send(&reenroll).await.unwrap().status, 202);
        }
        assert_eq!(wire.send(&get_with("/.well-known/est/cacerts", "")).await.unwrap().status, 200);
        let held = server.estd(&host, &["request", "list", "--json"]).json();
        let ids: Vec<String> = held["held_requests"]
            .as_array().unwrap().iter().map(|one| one["id"].to_string()).collect();
        by(&ops, &["request", "approve", &ids[0]]);
        by(&ops, &["request", "reject", &ids[1]]);
        by(&ops, &["device", "allow", "device-1"]);

        let rows = audit(&server, &host, &[""], &["actor", "action"]);
        let of_tokens = |row: &Value| row[0] == "pki" || row[0] == "ops";
        let rows: Vec<Value> = rows.into_iter().filter(of_tokens).collect();
        let expected = json!([
            ["pki", "add-device-ca"],
            ["pki", "make-key"],
            ["pki", "create-token"],
            ["pki", "revoke-token"],
            ["ops", "approve-request"],
            ["ops", "reject-request"],
            ["ops", "allow-device"],
        ]);
        assert_eq!(json!(rows), expected);
        drop(wire);
        server.stop().await;
    }

    /// What is another Factory's is answered like what is not there.
    async fn nothing_of_one_factory_is_visible_to_anothers_token(backend: Backend) {
        let TwoFactories { host: _host, server, two, .. } = TwoFactories::new(backend).await;
        for (method, template, _) in ROUTES {
            let path = filled(template, "pump-1");
            let body = match *template {
                "/v1/device-cas" | "/v1/bootstrap-cas" | "/v1/sightings" => json!({ "certificate": "" }),
                "/v1/devices/{name}/allow" => json!({}),
                "/v1/webhooks" => json!({ "name": "x", "url": "http://127.0.0.1:9" }),
                "/v1/rotations" => json!({ "select": { "all": true } }),
                _ if template.contains("{serial}") => json!({}),
                _ if template.contains("/rotations/{id}/") => json!({}),
                _ => json!({ "name": "x", "role": "viewer" }),
            };
            let ask = |query: &str| {
                let headers = format!("OSF-TOKEN: {two}\r\nContent-Type: application/json\r\n");
                server.http(method, &format!("{path}{query}"), &headers, &body.to_string())
            };
            let ([other, none], own) = (["?factory=factory", "?factory=three"].map(ask), ask(""));
            let what = format!("{method} {path}: {other:?} {none:?} {own:?}");
            let of_all = [("GET", "/v1/audit/verification"), ("POST", "/v1/factories")];
            if of_all.contains(&(*method, &path)) {
                assert_eq!([other.status, none.status, own.status], [403; 3], "{what}");
                assert!(own.body.contains("every Factory"), "{what}");
            } else if path == "/v1/factories" {
                assert_eq!([&other.body, &none.body], [&own.body; 2], "{what}");
            } else {
                assert_eq!([other.status, none.status], [404; 2], "{what}");
                assert_eq!(other.body, none.body, "{what}");
            }
            let foreign = ["OU=factory", "waterworks", "pump-1", "chief-of-factory", "everywhere"];
            assert!(!foreign.iter().any(|word| own.body.contains(word)), "{what}");
        }
        server.stop().await;
    }

    async fn a_token_of_one_factory_need_not_name_it(backend: Backend) {
        let TwoFactories { host: _host, server, one, two } = TwoFactories::new(backend).await;
        for (token, name, devices) in [(&one, "factory", 1), (&two, "two", 0)] {
            let factories = &json_of(&get(&server, token, "/v1/factories"))["factories"];
            assert_eq!((&factories[0]["name"], &factories[1]), (&json!(name), &Value::Null));
            let list = json_of(&get(&server, token, "/v1/devices"));
            assert_eq!(list["devices"].as_array().unwrap().len(), devices);
            let path = format!("/v1/devices?factory={name}");
            assert_eq!(json_of(&get(&server, token, &path)), list);
        }
        let found = [&one, &two].map(|token| get(&server, token, "/v1/devices/pump-1").status);
        assert_eq!(found, [200, 404]);
        server.stop().await;
    }

    async fn the_audit_log_of_one_factory_is_apart(backend: Backend) {
        let TwoFactories { host, server, one, two } = TwoFactories::new(backend).await;
        let rows = |token: &str, query: &str| {
            let answer = json_of(&get(&server, token, &format!("/v1/audit?{query}")));
            answer["rows"].as_array().unwrap().clone()
        };
        let factories = |token: &str| -> BTreeSet<String> {
            rows(token, "limit=1000").iter().map(|row| row["factory"].to_string()).collect()
        };
        let admin = host.read("data/admin-token").trim().to_owned();
        let (of_one, of_two) = (factories(&one), factories(&two));
        assert_eq!((of_one.len(), of_two.len()), (1, 1), "{of_one:?} {of_two:?}");
        assert!(of_one != of_two && !of_one.contains("null") && !of_two.contains("null"));
        assert_eq!(factories(&admin).len(), 3, "those of no Factory too");
        assert_eq!(rows(&admin, "factory=two&limit=1000"), rows(&two, "limit=1000"));

        let whole = rows(&two, "limit=3");
        let before = whole[1]["number"].to_string();
        assert_eq!(rows(&two, &format!("limit=1&before={before}")), whole[2..]);
        server.stop().await;
    }

    async fn an_admin_of_one_factory_has_its_tokens_only(backend: Backend) {
        let TwoFactories { host, server, one, two } = TwoFactories::new(backend).await;
        let by = |token: &str, arguments: &[&str]| {
            let mut command = server.command(&host, &[&["token"], arguments].concat());
            command.env("ESTD_TOKEN", token);
            Done::of(command)
        };
        let made = by(&two, &["create", "ci", "--role", "admin", "--json"]).json();
        assert_eq!(made["factory"], "two");
        let elsewhere = ["create", "cd", "--role", "viewer", "--factory", "factory"];
        by(&two, &elsewhere).refused("there is no such Factory");
        let names = |token: &str| -> Vec<Value> {
            let list = by(token, &["list", "--json"]).json();
            list["tokens"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
        };
        assert_eq!(names(&one), ["chief-of-factory"]);
        assert_eq!(names(&two), ["chief-of-two", "ci"]);

        for name in ["nobody", "chief-of-factory", "everywhere"] {
            by(&two, &["revoke", name]).refused("the Factory two has no such token to revoke");
        }
        assert_eq!(get(&server, &one, "/v1/devices").status, 200);
        by(&two, &["revoke", "chief-of-two"]).success();
        assert_eq!(get(&server, &two, "/v1/devices").status, 401);
        server.stop().await;
    }

    /// Whoever presents one learns little; the audit log tells them apart and shows nothing of an
    /// unknown one.
    async fn a_token_that_is_not_good_is_refused_and_on_record(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let [ended, revoked] = ["ended", "revoked"].map(|name| {
            let scope = ["--role", "viewer", "--days", "1", "--factory", "factory"];
            create(&server, &host, &[&[name], &scope[..]].concat())
        });
        server.estd(&host, &["token", "revoke", "revoked"]).success();
        host.sql("UPDATE token SET expires_at = 1 WHERE name = 'ended'").await;
        let unknown = format!("estd_{}", "1234567890abcdef".repeat(4));

        let path = "/v1/devices/device-1";
        let answers = [&unknown, &revoked, &ended].map(|token| get(&server, token, path));
        assert_eq!(answers.each_ref().map(|answer| answer.status), [401; 3]);
        let messages = answers.map(|answer| json_of(&answer)["message"].clone());
        let not_known = "the token is not known";
        assert_eq!(messages, [not_known, not_known, "the token has expired"]);
        let odd = format!("OSF-TOKEN: {unknown}\r\n");
        assert_eq!(server.http("SMUGGLE", "/v1/../etc/passwd", &odd, "").status, 401);
        assert_eq!(server.get(path).status, 401, "and this is not on record");

        let codes = ["token-unknown", "token-revoked", "token-expired"];
        let keys = ["actor", "action", "subject", "code"];
        let rows = audit(&server, &host, &codes, &keys);
        let action = "GET /v1/devices/{name}";
        let expected = json!([
            ["unknown token", action, "", "token-unknown"],
            ["revoked", action, path, "token-revoked"],
            ["ended", action, path, "token-expired"],
            ["unknown token", "OTHER /v1/…", "", "token-unknown"],
        ]);
        assert_eq!(json!(rows), expected);
        let log = server.log();
        for part in ["1234567890", "passwd", "SMUGGLE"] {
            let rows = server.estd(&host, &["audit", "list", "--json"]).success();
            assert!(!rows.contains(part) && !log.contains(part), "{part}: {rows}\n{log}");
        }
        server.stop().await;
    }

    /// Nobody passes for want of the ledger. The admin token of the data folder still opens what
    /// needs none.
    async fn without_the_ledger_no_token_is_good(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let token = create(&server, &host, &["ci", "--role", "admin"]);
        host.sql("ALTER TABLE token RENAME TO away").await;
        for token in [&*token, "wrong"] {
            assert_eq!(get(&server, token, "/v1/factories").status, 503);
        }
        let admin = host.read("data/admin-token");
        assert_eq!(get(&server, admin.trim(), "/v1/factories").status, 200);
        host.sql("ALTER TABLE away RENAME TO token").await;
        assert_eq!(get(&server, &token, "/v1/factories").status, 200);
        // What cannot be put on record is not decided (I10).
        host.sql("ALTER TABLE audit RENAME TO away").await;
        assert_eq!(get(&server, "wrong", "/v1/factories").status, 503);
        server.stop().await;
    }
}

/// Every reason at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_cannot_be_is_refused_with_every_reason() {
    let host = Host::new(Backend::Sqlite).await;
    let server = host.serve().await;
    let admin = host.read("data/admin-token");
    let headers = format!("OSF-TOKEN: {}\r\nContent-Type: application/json\r\n", admin.trim());
    let create = |body: &str| server.http("POST", "/v1/tokens", &headers, body);
    let answer = create(r#"{"name":"a b","role":"root"}"#);
    let told = json_of(&answer);
    assert_eq!((answer.status, told["message"].as_str()), (400, Some("such a token cannot be")));
    let errors = told["errors"].as_array().unwrap();
    assert!(errors[0].as_str().unwrap().starts_with("\"a b\" is not a token name: "), "{told}");
    assert_eq!((&errors[1], errors.len()), (&json!("a role is viewer, operator or admin"), 2));
    for name in ["", "admin", "ADMIN", "command line", "unknown token", "a/b", &"x".repeat(65)] {
        let body = json!({ "name": name, "role": "viewer" }).to_string();
        assert_eq!(create(&body).status, 400, "{name}");
    }
    for body in [
        r#"{"name":"x","role":"viewer","days":0}"#,
        r#"{"name":"x","role":"viewer","days":-1}"#,
        r#"{"name":"x","role":"viewer","scope":"all"}"#,
        r#"{"name":"x"}"#,
    ] {
        assert_eq!(create(body).status, 422, "{body}");
    }
    let bad_name = ["token", "create", "a b", "--role", "viewer"];
    server.estd(&host, &bad_name).refused("such a token cannot be\n  \"a b\" is not a token name");
    for role in ["root", "Admin"] {
        let done = server.estd(&host, &["token", "create", "x", "--role", role]);
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains("[possible values: viewer, operator, admin]"), "{done:?}");
    }
    let nowhere = ["token", "create", "x", "--role", "viewer", "--factory", "nowhere"];
    server.estd(&host, &nowhere).refused("there is no such Factory");
    let list = server.estd(&host, &["token", "list", "--json"]).json();
    assert_eq!(list, json!({ "tokens": [] }));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_neither_in_the_ledger_nor_in_the_log() {
    let (host, _root) = Host::with_factory(Backend::Sqlite).await;
    let server = Process::start(&host, &["--log-filter", "trace"]).await;
    let token = create(&server, &host, &["ci", "--role", "admin"]);
    assert_eq!(get(&server, &token, "/v1/devices").status, 200);
    assert_eq!(get(&server, &token, "/v1/nothing").status, 404);
    server.signal("TERM");
    let (_, log) = server.ended().await;
    let digits = token.strip_prefix("estd_").unwrap();
    let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap();
    let mut ledger = Vec::new();
    for file in std::fs::read_dir(host.path()).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_string_lossy().starts_with("ledger") {
            ledger.extend(std::fs::read(file.path()).unwrap());
        }
    }
    let holds = |part: &[u8]| ledger.windows(part.len()).any(|window| window == part);
    assert!(holds(b"create-token"), "this is where it would be");
    assert!(!holds(digits.as_bytes()) && !holds(&bytes), "{token}");
    assert!(!log.contains(digits) && !log.contains(&format!("{bytes:?}")), "{token}: {log}");
}

/// Two Factories, `factory` with a Device CA and a device more than `two`, and an admin of each.
struct TwoFactories {
    host: Host,
    server: Process,
    one: String,
    two: String,
}

impl TwoFactories {
    async fn new(backend: Backend) -> Self {
        let (host, root) = Host::with_factory(backend).await;
        let init = ["factory", "init", "--name", "two", "--est-host", "two.example"];
        host.estd(&[&init[..], &["--root-key", "2.key", "--root", "2.pem"]].concat()).success();
        let line = root.device_ca("waterworks", &[]);
        let server = host.serve().await;
        let add = ["--factory", "factory", "device-ca", "add", "waterworks.pem"];
        server.estd(&host, &add).success();
        server.follows(&host).await;
        let device = line.device("device", "pump-1");
        let mut wire = server.connect(&root.certificate(), Some(&device)).await;
        let cacerts = get_with("/.well-known/est/cacerts", "");
        assert_eq!(wire.send(&cacerts).await.unwrap().status, 200);
        drop(wire);
        create(&server, &host, &["everywhere", "--role", "admin"]);
        let [one, two] = ["factory", "two"].map(|factory| {
            let name = format!("chief-of-{factory}");
            create(&server, &host, &[&name, "--role", "admin", "--factory", factory])
        });
        Self { host, server, one, two }
    }
}

/// Makes a token by the command; gives its text.
pub fn create(server: &Process, host: &Host, arguments: &[&str]) -> String {
    let made = server.estd(host, &[&["token", "create"], arguments].concat());
    made.success().trim().to_owned()
}

fn get(server: &Process, token: &str, path: &str) -> Answer {
    server.http("GET", path, &format!("OSF-TOKEN: {token}\r\n"), "")
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

/// These fields of the audit rows with one of these codes, oldest first.
fn audit(server: &Process, host: &Host, codes: &[&str], keys: &[&str]) -> Vec<Value> {
    let all = server.estd(host, &["audit", "list", "--limit", "1000", "--json"]).json();
    let rows = all["rows"].as_array().unwrap().iter().rev();
    let rows = rows.filter(|row| codes.contains(&row["code"].as_str().unwrap()));
    rows.map(|row| keys.iter().map(|key| row[*key].clone()).collect()).collect()
}
