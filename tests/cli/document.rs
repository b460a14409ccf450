//! The OpenAPI document of the API, and answers held against it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::process::Answer;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// What `src/api/openapi.json` says.
pub struct Document(Value);

/// One method of one path.
pub struct Operation<'a> {
    document: &'a Document,
    /// In capitals.
    pub method: String,
    /// With its parameters in braces.
    pub path: &'a str,
    /// What belongs to every method of the path.
    item: &'a Value,
    pub value: &'a Value,
}

impl Document {
    pub fn read() -> Self {
        Self(serde_json::from_str(&source("openapi.json")).unwrap())
    }

    pub fn root(&self) -> &Value {
        &self.0
    }

    pub fn operations(&self) -> Vec<Operation<'_>> {
        let mut found = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            for (method, value) in item.as_object().unwrap() {
                if METHODS.contains(&method.as_str()) {
                    let method = method.to_uppercase();
                    found.push(Operation { document: self, method, path, item, value });
                }
            }
        }
        found
    }

    #[track_caller]
    pub fn operation(&self, method: &str, path: &str) -> Operation<'_> {
        let mut all = self.operations().into_iter();
        all.find(|one| one.method == method && one.path == path)
            .unwrap_or_else(|| panic!("src/api/openapi.json has no {method} {path}"))
    }

    /// What `$ref` names, or the value itself.
    #[track_caller]
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(name) = value["$ref"].as_str() else { return value };
        let pointer = name.strip_prefix('#').unwrap();
        self.0.pointer(pointer).unwrap_or_else(|| panic!("{name} leads nowhere"))
    }

    /// Why a value is not what a schema of the document wants.
    pub fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.0["components"],
            "allOf": [schema],
        });
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(&schema).unwrap_or_else(|why| panic!("{why}: {schema}"));
        let faults = validator.iter_errors(value);
        faults.map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
    }

    /// Panics unless the document says that this may be the answer.
    #[track_caller]
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let what = format!("{method} {path}: {answer:?}");
        let operation = self.operation(method, path);
        let response = &operation.value["responses"][answer.status.to_string()];
        assert!(!response.is_null(), "this status is not in the document: {what}");
        let content_type = answer.header("content-type");
        let (kind, _) = content_type.split_once(';').unwrap_or((&content_type, ""));
        let content = &self.resolved(response)["content"][kind];
        assert!(!content.is_null(), "this content type is not in the document: {what}");
        if kind == "application/json" {
            let body = serde_json::from_str(&answer.body).unwrap();
            let faults = self.faults(&content["schema"], &body);
            assert!(faults.is_empty(), "not what the document says: {faults:#?} {what}");
        }
    }
}

impl<'a> Operation<'a> {
    /// Its parameters in the `query` or the `path`.
    pub fn parameters(&self, place: &str) -> Vec<&'a Value> {
        let all = [&self.item["parameters"], &self.value["parameters"]];
        let all = all.into_iter().filter_map(Value::as_array).flatten();
        let all = all.map(|one| self.document.resolved(one));
        all.filter(|one| one["in"] == place).collect()
    }

    /// Whether it takes a token, as everything does that does not say otherwise.
    pub fn takes_token(&self) -> bool {
        self.value["security"] != json!([])
    }

    /// What its body must be; null if it has none.
    pub fn body(&self) -> &'a Value {
        &self.value["requestBody"]["content"]["application/json"]["schema"]
    }
}

/// A file of `src/api`.
pub fn source(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// The routes that a part of `src/api/mod.rs` makes, by method and path, with their handlers.
pub fn routes_in(source: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for route in source.split(".route(").skip(1) {
        let path = format!("/v1{}", route.split('"').nth(1).unwrap());
        for method in METHODS {
            let mut starts = [' ', '.'].iter().map(|before| format!("{before}{method}("));
            if let Some((_, handler)) = starts.find_map(|start| route.split_once(&start)) {
                let (handler, _) = handler.split_once(')').unwrap();
                found.insert((method.to_uppercase(), path.clone()), handler.to_owned());
            }
        }
    }
    found
}
