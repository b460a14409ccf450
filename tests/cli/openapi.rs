//! The OpenAPI document says what the API does: every route and parameter, and every answer as a
//! running server gives it.

use std::collections::BTreeSet;

use estd::model::Role;
use serde_json::{Value, json};

use crate::document::{Document, routes_in, source};
use crate::host::Host;
use crate::offline_root::OfflineRoot;
use crate::on_both_ledgers;
use crate::operator::session;
use crate::process::Process;
use crate::support::Device;
use crate::support::wire::post;
use crate::token::{ROUTES, create, filled};

const DOCUMENT: (&str, &str) = ("GET", "/v1/openapi.json");

#[test]
fn the_document_is_openapi_by_its_structure() {
    let document = Document::read();
    let root = document.root();
    assert!(root["openapi"].as_str().unwrap().starts_with("3.1."));
    assert!(root["info"]["title"].is_string() && root["info"]["version"].is_string());
    let named = |list: &Value| -> BTreeSet<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let (mut ids, mut tags) = (BTreeSet::new(), BTreeSet::new());
    for operation in document.operations() {
        let (what, value) = (format!("{} {}", operation.method, operation.path), operation.value);
        assert!(ids.insert(value["operationId"].as_str().unwrap()), "{what}: its id is taken");
        assert!(value["summary"].is_string(), "{what}");
        tags.extend(value["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()));
        let responses = value["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
        for (status, response) in responses {
            assert!(document.resolved(response)["description"].is_string(), "{what}: {status}");
        }
        let in_path = operation.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
        let parameters = operation.parameters("path");
        assert!(parameters.iter().all(|one| one["required"] == true), "{what}");
        let parameters = parameters.iter().map(|one| one["name"].as_str().unwrap());
        assert!(in_path.eq(parameters), "{what}: the parameters of the path");
    }
    assert_eq!(named(&root["tags"]), tags.into_iter().map(str::to_owned).collect());
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = Document::read();
    let mut used = BTreeSet::new();
    references(document.root(), &mut used);
    let mut there = BTreeSet::new();
    for kind in ["parameters", "responses", "schemas"] {
        let components = document.root()["components"][kind].as_object().unwrap();
        there.extend(components.keys().map(|name| format!("#/components/{kind}/{name}")));
    }
    assert_eq!(used, there);
}

/// So that a field that an answer has and the document has not, or the other way round, is noticed.
#[test]
fn every_object_is_closed_and_answers_are_whole() {
    let document = Document::read();
    let schemas = document.root()["components"]["schemas"].as_object().unwrap();
    let mut asked = BTreeSet::new();
    document.operations().iter().for_each(|operation| references(operation.body(), &mut asked));
    loop {
        let before = asked.len();
        for name in asked.clone() {
            references(document.resolved(&json!({ "$ref": name })), &mut asked);
        }
        if asked.len() == before {
            break;
        }
    }
    for (name, schema) in schemas.iter().filter(|(_, schema)| schema["type"] == "object") {
        assert_eq!(schema["additionalProperties"], false, "{name}");
        if !asked.contains(&format!("#/components/schemas/{name}")) {
            let properties = schema["properties"].as_object().unwrap().keys();
            let properties: BTreeSet<_> = properties.map(String::as_str).collect();
            let required = schema["required"].as_array().unwrap().iter();
            let required: BTreeSet<_> = required.map(|one| one.as_str().unwrap()).collect();
            assert_eq!(required, properties, "{name}: each field is always there");
        }
    }
}

#[test]
fn every_route_is_in_the_document_and_no_other() {
    let document = Document::read();
    let told = document.operations();
    let told: BTreeSet<_> = told.iter().map(|one| (one.method.as_str(), one.path)).collect();
    let listed = ROUTES.iter().map(|(method, path, _)| (*method, *path));
    assert_eq!(told, listed.chain([DOCUMENT]).collect());
    let routes = routes_of_v1();
    let made = routes.iter().map(|((method, path), _)| (method.as_str(), path.as_str()));
    assert_eq!(told, made.collect());
}

#[test]
fn every_operation_says_which_role_it_needs() {
    let document = Document::read();
    for (method, path, role) in ROUTES {
        let operation = document.operation(method, path);
        let text = operation.value["description"].as_str().unwrap();
        assert!(text.contains(&format!("Needs the role {role}.")), "{method} {path}: {text}");
        let responses = &operation.value["responses"];
        let needed: &[&str] =
            if *role == Role::Viewer { &["401", "503"] } else { &["401", "403", "503"] };
        assert!(needed.iter().all(|status| responses[status].is_object()), "{method} {path}");
        assert!(operation.takes_token(), "{method} {path}");
    }
    assert!(!document.operation(DOCUMENT.0, DOCUMENT.1).takes_token());
}

#[test]
fn every_query_parameter_is_in_the_document_and_no_other() {
    let document = Document::read();
    for ((method, path), handler) in routes_of_v1() {
        let operation = document.operation(&method, &path);
        let told = operation.parameters("query").into_iter();
        let told: BTreeSet<_> = told.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(told, parameters_of(&handler), "{method} {path}");
    }
}

on_both_ledgers! {
    /// Each operation at least once as it goes well, and the conflicts.
    async fn every_answer_is_what_the_document_says(backend: Backend) {
        let (host, root) = Host::with_factory(backend).await;
        let line = root.device_ca("line", &[]);
        let manufacturer = OfflineRoot::new(host.path(), "manufacturer", "/CN=Manufacturer");
        host.write("estd.toml", "[est.profile]\napproval = 'manual'");
        let server = host.serve().await;
        let token = host.read("data/admin-token");
        let mut api = Caller::new(&server, token.trim());

        assert_eq!(api.get("/v1/openapi.json", ""), *Document::read().root());
        api.get("/v1/factories", "");
        pki(&mut api, &host, &root, &manufacturer);
        server.follows(&host).await;
        let device = line.device("device", "device-1");
        session(&server, &root, &line.device("other", "device-2")).await;
        held_requests(&mut api, &root, &device).await;
        devices(&mut api);
        let told = api.get("/v1/device-keys?since=0", "");
        assert_eq!(told["keys"], json!([]), "nobody has switched yet");
        rotations(&mut api, &host, &line.certificate().serial().to_string()).await;
        api.ask("POST", "/v1/sightings", "", &json!({ "certificate": host.read("line.pem") }), 200);
        api.ask("POST", "/v1/sightings", "", &json!({ "address": "x" }), 400);
        webhooks(&mut api);
        for method in ["GET", "POST"] {
            let pem = host.read("line.pem").replace('\n', "%0A");
            let headers = format!("{}X-Client-Cert: {pem}\r\n", api.headers);
            let answer = server.http(method, "/v1/authz", &headers, "");
            assert_eq!(answer.status, 403, "a CA is no device: {answer:?}");
            api.document.check(method, "/v1/authz", &answer);
            let pem = crate::sightings::pem(&device).replace('\n', "%0A").replace('+', "%2B");
            let headers = format!("{}X-Client-Cert: {pem}\r\n", api.headers);
            let answer = server.http(method, "/v1/authz", &headers, "");
            assert_eq!(answer.status, 200, "{answer:?}");
            api.document.check(method, "/v1/authz", &answer);
            api.went_well.insert(format!("{method} /v1/authz"));
        }
        phase_out(&mut api, &line.certificate().serial().to_string());
        tokens(&mut api);
        let new = json!({ "name": "two", "est_host": "two.example", "gateway_host": "gw.example" });
        api.ask("POST", "/v1/factories", "", &new, 201);
        api.ask("POST", "/v1/factories", "", &new, 409);
        api.get("/v1/factories", "");
        api.get("/v1/audit?limit=1000", "");
        assert_eq!(api.get("/v1/audit/verification", "")["intact"], true);
        host.sql("UPDATE audit SET subject = 'somebody else' WHERE number = 3").await;
        assert_eq!(api.get("/v1/audit/verification", "")["intact"], false);

        let all = api.document.operations();
        let all: BTreeSet<_> = all.iter().map(|one| format!("{} {}", one.method, one.path)).collect();
        assert_eq!(api.went_well, all, "each goes well once in this test");
        server.stop().await;
    }

    async fn every_refusal_is_what_the_document_says(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let document = Document::read();
        let [viewer, bound] = [("v", "viewer"), ("b", "admin")].map(|(name, role)| {
            let create_it = [name, "--role", role];
            let bound = ["--factory", "factory"];
            let options = if name == "b" { &bound[..] } else { &[] };
            format!("OSF-TOKEN: {}\r\n", create(&server, &host, &[&create_it, options].concat()))
        });
        let admin = format!("OSF-TOKEN: {}\r\n", host.read("data/admin-token").trim());
        let as_json = format!("{admin}Content-Type: application/json\r\n");
        for (method, path, role) in ROUTES {
            let operation = document.operation(method, path);
            let refused = |query: &str, headers: &str, body: &str, statuses: &[u16]| {
                let filled = format!("{}{query}", filled(path, "x"));
                let answer = server.http(method, &filled, headers, body);
                assert!(statuses.contains(&answer.status), "{method} {filled} {body}: {answer:?}");
                document.check(method, path, &answer);
            };
            refused("", "", "", &[401]);
            if *role > Role::Viewer {
                refused("", &viewer, "", &[403]);
            }
            for parameter in operation.parameters("query") {
                let name = parameter["name"].as_str().unwrap();
                // Who does not take it would not mind.
                refused(&format!("?{name}=1&{name}=1"), &as_json, "{}", &[400]);
                if !document.faults(&parameter["schema"], &json!("absurd")).is_empty() {
                    refused(&format!("?{name}=absurd"), &as_json, "{}", &[400]);
                }
            }
            if !operation.body().is_null() {
                refused("", &admin, "{}", &[415]);
                refused("", &as_json, "{", &[400]);
                refused("", &as_json, r#"{"odd":1}"#, &[422]);
            } else if path.contains('{') {
                refused("", &admin, "", &[400, 404]);
            }
            let takes_factory = |one: &&Value| one["name"] == "factory";
            if operation.body().is_null() && operation.parameters("query").iter().any(takes_factory) {
                refused("?factory=nowhere", &admin, "", &[404]);
            }
        }
        for (method, path) in [("POST", "/v1/factories"), ("GET", "/v1/audit/verification")] {
            let answer = server.http(method, path, &bound, "");
            assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
            document.check(method, path, &answer);
        }
        server.stop().await;
    }
}

/// Everything of the Factory's PKI, with another online Device CA and a local one.
fn pki(api: &mut Caller, host: &Host, root: &OfflineRoot, manufacturer: &OfflineRoot) {
    let csr = api.ask("POST", "/v1/device-cas/requests", "", &Value::Null, 200);
    host.write("next.csr", csr["csr"].as_str().unwrap());
    root.sign("next.csr", "next.pem", &[]);
    for (name, status) in [("next.pem", 201), ("line.pem", 201), ("line.pem", 409)] {
        let body = json!({ "certificate": host.read(name) });
        api.ask("POST", "/v1/device-cas", "", &body, status);
    }
    api.ask("POST", "/v1/device-cas", "", &json!({ "certificate": "none" }), 400);
    let all = api.get("/v1/device-cas", "");
    api.get("/v1/device-cas/{serial}", all["device_cas"][0]["serial"].as_str().unwrap());
    assert!(api.get("/v1/device-cas/bundle", "").as_str().unwrap().contains("BEGIN CERTIFICATE"));

    let body = json!({ "certificate": host.read("manufacturer.pem") });
    api.ask("POST", "/v1/bootstrap-cas", "", &body, 201);
    api.ask("POST", "/v1/bootstrap-cas", "", &body, 409);
    api.get("/v1/bootstrap-cas", "");
    let key = manufacturer.certificate().public_key().fingerprint().to_string();
    api.ask("DELETE", "/v1/bootstrap-cas/{key}", &key, &Value::Null, 200);
    api.ask("DELETE", "/v1/bootstrap-cas/{key}", &key, &Value::Null, 404);
}

/// One is approved, and its certificate issued; one is rejected.
async fn held_requests(api: &mut Caller<'_>, root: &OfflineRoot, device: &Device) {
    let mut wire = api.server.connect(&root.certificate(), Some(device)).await;
    let [first, second] = [device.request().1, device.request().1]
        .map(|body| post("/.well-known/est/simplereenroll", &body));
    for request in [&first, &second] {
        assert_eq!(wire.send(request).await.unwrap().status, 202);
    }
    let held = api.get("/v1/held-requests", "");
    let ids = [0, 1].map(|index| held["held_requests"][index]["id"].to_string());
    let (approve, reject) = ("/v1/held-requests/{id}/approve", "/v1/held-requests/{id}/reject");
    api.ask("POST", approve, &ids[0], &Value::Null, 200);
    api.ask("POST", approve, &ids[0], &Value::Null, 404);
    api.ask("POST", reject, &ids[1], &Value::Null, 200);
    assert_eq!(wire.send(&first).await.unwrap().status, 200);
}

fn devices(api: &mut Caller) {
    let page = api.get("/v1/devices?limit=1", "");
    assert_eq!((&page["next"], &page["devices"][0]["pending"]), (&json!("device-1"), &json!(1)));
    api.get("/v1/devices?after=device-1", "");
    let (device, allow) = ("/v1/devices/{name}", "/v1/devices/{name}/allow");
    api.ask("POST", allow, "device-1", &json!({ "certificate": "0a".repeat(32) }), 200);
    assert_eq!(api.get(device, "device-1")["allowed_once"], true);
    api.ask("DELETE", allow, "device-1", &Value::Null, 200);
    api.ask("POST", allow, "device-1", &json!({}), 200);
    api.ask("POST", allow, "device-9", &json!({}), 404);
    api.ask("POST", allow, "device-1", &json!({ "certificate": "x" }), 400);
    api.ask("POST", "/v1/devices/{name}/deny", "device-2", &Value::Null, 200);
    assert!(api.get(device, "device-2")["denied_at"].is_string());
    api.get("/v1/devices", "");
}

async fn rotations(api: &mut Caller<'_>, host: &Host, serial: &str) {
    let (all, one) = ("/v1/rotations", "/v1/rotations/{id}");
    let late = json!({ "per_minute": 1, "window": "22:00-04:00", "begin": "2100-01-01" });
    let label = json!({ "label": "fioconfig" });
    let select = json!({ "device_ca": serial });
    let mut new = json!({ "id": "certs-1", "select": select, "pace": late, "fioconfig": label });
    new["dry_run"] = json!(true);
    assert_eq!(api.ask("POST", all, "", &new, 200)["devices"], 1);
    new["dry_run"] = json!(false);
    api.ask("POST", all, "", &new, 201);
    api.ask("POST", all, "", &new, 409);
    api.ask("POST", all, "", &json!({ "select": { "all": true, "group": "x" } }), 400);
    new["select"] = json!({ "group": "nobody" });
    new["id"] = json!("certs-2");
    api.ask("POST", all, "", &new, 404);
    assert_eq!(api.get("/v1/rotations?limit=1", "")["rotations"][0]["id"], "certs-1");
    api.get(one, "certs-1");
    api.ask("GET", one, "certs-2", &Value::Null, 404);
    let devices = api.get("/v1/rotations/{id}/devices?state=waiting", "certs-1");
    assert_eq!(devices["devices"][0]["name"], "device-1");
    assert_eq!(api.get("/v1/devices/{name}", "device-1")["rotations"][0]["state"], "waiting");
    api.get("/v1/rotations/{id}/fioconfig", "certs-1");
    let acts = ["pause", "resume", "retry", "abort"].map(|act| format!("{one}/{act}"));
    let [pause, resume, retry, abort] = &acts;
    api.ask("POST", pause, "certs-1", &json!({ "reason": "look" }), 200);
    api.ask("POST", pause, "certs-1", &json!({}), 409);
    api.ask("POST", resume, "certs-1", &json!({ "past_canaries": true }), 200);
    api.ask("POST", retry, "certs-1", &json!({}), 409);
    host.sql("UPDATE rotation_device SET state = 'failed', reason = 'silent'").await;
    host.sql("UPDATE rotation SET waiting = 0, failed = 1").await;
    assert_eq!(api.get(one, "certs-1")["failed"][0]["reason"], "silent");
    api.ask("POST", retry, "certs-1", &json!({}), 200);
    api.ask("POST", abort, "certs-1", &json!({}), 200);
    let told = api.get("/v1/rotations/{id}/events", "certs-1");
    assert!(told.as_str().unwrap().contains("event: rotation"), "{told}");
}

fn webhooks(api: &mut Caller) {
    let (all, one) = ("/v1/webhooks", "/v1/webhooks/{name}");
    // Nobody listens there.
    let new = json!({ "name": "hook", "url": "http://127.0.0.1:9/", "events": ["rotation"] });
    api.ask("POST", all, "", &new, 201);
    api.ask("POST", all, "", &new, 409);
    api.ask("POST", all, "", &json!({ "name": "x", "url": "ftp://x" }), 400);
    assert_eq!(api.get(all, "")["webhooks"][0]["name"], "hook");
    api.get("/v1/webhooks/{name}/dead-letters", "hook");
    api.ask("POST", "/v1/webhooks/{name}/redeliver", "hook", &Value::Null, 200);
    api.ask("DELETE", one, "hook", &Value::Null, 200);
    api.ask("DELETE", one, "hook", &Value::Null, 404);
}

fn phase_out(api: &mut Caller, serial: &str) {
    let told = api.get("/v1/device-cas/{serial}/dependents?limit=1", serial);
    assert_eq!((&told["count"], &told["unconfirmed"]), (&json!(1), &json!(1)));
    assert!(told["next"].is_number() && told["issuing_ca"].is_object(), "{told}");
    let acts =
        ["disable", "enable", "revoke"].map(|act| format!("/v1/device-cas/{{serial}}/{act}"));
    let [disable, enable, revoke] = &acts;
    api.ask("POST", disable, serial, &json!({ "reason": "stolen" }), 200);
    api.ask("POST", enable, serial, &json!({}), 200);
    api.ask("POST", revoke, serial, &json!({}), 409);
    api.ask("POST", revoke, serial, &json!({ "strand": 1 }), 200);
    api.ask("POST", disable, serial, &json!({}), 409);
    api.ask("POST", enable, serial, &json!({}), 409);
}

fn tokens(api: &mut Caller) {
    let ci = json!({ "name": "ci", "role": "operator", "days": 30 });
    api.ask("POST", "/v1/tokens", "", &ci, 201);
    api.ask("POST", "/v1/tokens", "", &ci, 409);
    api.ask("POST", "/v1/tokens", "", &json!({ "name": "a b", "role": "viewer" }), 400);
    let bound = json!({ "name": "cd", "role": "viewer" });
    api.ask("POST", "/v1/tokens?factory=factory", "", &bound, 201);
    api.ask("DELETE", "/v1/tokens/{name}", "ci", &Value::Null, 200);
    api.ask("DELETE", "/v1/tokens/{name}", "ci", &Value::Null, 404);
    api.get("/v1/tokens", "");
}

/// Asks the API, and holds what it is asked and what it answers against the document.
struct Caller<'a> {
    server: &'a Process,
    headers: String,
    document: Document,
    /// What has gone well, as `METHOD PATH`.
    went_well: BTreeSet<String>,
}

impl<'a> Caller<'a> {
    fn new(server: &'a Process, token: &str) -> Self {
        let headers = format!("OSF-TOKEN: {token}\r\nContent-Type: application/json\r\n");
        Self { server, headers, document: Document::read(), went_well: BTreeSet::new() }
    }

    #[track_caller]
    fn get(&mut self, path: &str, parameter: &str) -> Value {
        self.ask("GET", path, parameter, &Value::Null, 200)
    }

    /// Asks with `parameter` in the place of the braces; a body of null is none.
    #[track_caller]
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        parameter: &str,
        body: &Value,
        status: u16,
    ) -> Value {
        let template = path.split('?').next().unwrap();
        let name = template.split(['{', '}']).nth(1).unwrap_or("no parameter");
        let filled = path.replace(&format!("{{{name}}}"), parameter);
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.server.http(method, &filled, &self.headers, &text);
        assert_eq!(answer.status, status, "{method} {filled}: {answer:?}");
        self.document.check(method, template, &answer);
        if status < 300 {
            let schema = self.document.operation(method, template).body();
            assert_eq!(schema.is_null(), body.is_null(), "{method} {template}: its body");
            let faults = if body.is_null() { vec![] } else { self.document.faults(schema, body) };
            assert!(faults.is_empty(), "{method} {template}: {faults:?}");
            self.went_well.insert(format!("{method} {template}"));
        }
        serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body))
    }
}

/// Every `$ref` in a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Those with a token and those without.
fn routes_of_v1() -> Vec<((String, String), String)> {
    let source = source("mod.rs");
    let (v1, _) = source.split_once("let ota").unwrap();
    routes_in(v1).into_iter().collect()
}

/// The query parameters that a handler's signature says it takes.
fn parameters_of(handler: &str) -> BTreeSet<String> {
    let (module, function) = handler.split_once("::").unwrap();
    let sources = [source(&format!("{module}.rs")), source("selection.rs")];
    let (_, signature) = sources[0].split_once(&format!("async fn {function}(")).unwrap();
    let (signature, _) = signature.split_once("->").unwrap();
    let structs = signature.split("Query<").skip(1).map(|rest| rest.split('>').next().unwrap());
    let fields = |name: &str| -> Vec<String> {
        let start = format!("struct {name} {{");
        let (_, body) = sources.iter().find_map(|source| source.split_once(&start)).unwrap();
        let lines = body.split("\n}").next().unwrap().lines().map(str::trim);
        let fields = lines.filter(|line| !line.starts_with(['/', '#']));
        fields.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
    };
    structs.flat_map(fields).collect()
}
