//! The audit log, narrowed; and text that no ledger takes.

use serde_json::{Value, json};

use crate::host::Host;
use crate::on_both_ledgers;

on_both_ledgers! {
    async fn the_audit_log_is_narrowed(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let create = |name| server.estd(&host, &["token", "create", name, "--role", "viewer"]);
        for name in ["one", "two"] {
            create(name).success();
        }
        create("one").refused("another token of this name");
        server.estd(&host, &["token", "revoke", "one"]).success();
        host.sql("UPDATE audit SET at = 1600000000 WHERE subject = 'two'").await;

        let list = |options: &[&str]| server.estd(&host, &[&["audit", "list"], options].concat());
        let rows = |options: &[&str]| -> Vec<Value> {
            let all = list(&[&["--json"], options].concat()).json();
            let rows = all["rows"].as_array().unwrap().iter();
            rows.map(|row| json!([row["action"], row["subject"], row["outcome"]])).collect()
        };
        let [made, made_two, ended] = [
            json!(["create-token", "one", "done"]),
            json!(["create-token", "two", "done"]),
            json!(["revoke-token", "one", "done"]),
        ];
        assert_eq!(rows(&["--action", "create-token"]), [made_two.clone(), made.clone()]);
        assert_eq!(rows(&["--subject", "one"]), [ended, made.clone()]);
        assert_eq!(rows(&["--action", "create-token", "--subject", "one"]), [made]);
        assert_eq!(rows(&["--action", "create"]), Vec::<Value>::new(), "whole words");
        assert_eq!(rows(&["--outcome", "refused"]), Vec::<Value>::new());
        let all = rows(&["--outcome", "done"]);
        assert_eq!(rows(&["--since", "2020-09-13T12:26:40Z"]), all);
        let late: Vec<_> = all.iter().filter(|row| **row != made_two).cloned().collect();
        assert_eq!(rows(&["--since", "2020-09-14"]), late);
        assert_eq!(rows(&["--since", "9998-01-01"]), Vec::<Value>::new());
        assert_eq!(rows(&["--outcome", "done", "--limit", "2"]), all[..2]);

        list(&["--since", "soon"]).refused("since must be a time in RFC 3339, or a date");
        let odd = list(&["--outcome", "odd"]);
        assert!(odd.stderr.contains("[possible values: done, refused, alarm]"), "{odd:?}");
        server.stop().await;
    }

    /// PostgreSQL has no NUL in its text. What one ledger refuses, the other refuses too.
    async fn text_with_a_nul_is_a_bad_request(backend: Backend) {
        let (host, _root) = Host::with_factory(backend).await;
        let server = host.serve().await;
        let token = host.read("data/admin-token");
        let headers = format!("OSF-TOKEN: {}\r\nContent-Type: application/json\r\n", token.trim());
        let device_ca = &server.estd(&host, &["device-ca", "list", "--json"]).json()["device_cas"][0];
        let disable = format!("/v1/device-cas/{}/disable", device_ca["serial"].as_str().unwrap());
        for (method, path, body) in [
            ("GET", "/v1/devices?after=%00", ""),
            ("GET", "/v1/devices?group=a%00b", ""),
            ("GET", "/v1/devices?key_algorithm=%00", ""),
            ("GET", "/v1/audit?action=%00", ""),
            ("GET", "/v1/audit?subject=x%00", ""),
            ("GET", "/v1/devices/%00", ""),
            ("POST", "/v1/tokens", r#"{"name":"\u0000","role":"viewer"}"#),
            ("POST", &disable, r#"{"reason":"no\u0000ne"}"#),
        ] {
            let answer = server.http(method, path, &headers, body);
            assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
        }
        let [at_none, device_cas] = ["/v1/devices?after=%01", "/v1/device-cas"]
            .map(|path| server.http("GET", path, &headers, ""));
        assert_eq!(at_none.status, 200);
        assert!(device_cas.body.contains(r#""state":"enabled""#), "{device_cas:?}");
        server.stop().await;
    }
}
