//! What fioctl puts on the wire: its header, its paths, its bodies.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::TestServer;

/// A client with the server's token.
pub struct Fioctl {
    address: SocketAddr,
    token: String,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Fioctl {
    pub fn new(server: &TestServer) -> Self {
        let token = std::fs::read_to_string(server.config.admin_token_file()).unwrap();
        Self { address: server.server.api_address(), token: token.trim().to_owned() }
    }

    /// The same with a new token `a-ROLE`, for this Factory only.
    pub async fn with_role(&self, role: &str, factory: &str) -> Self {
        let wanted = json!({ "name": format!("a-{role}"), "role": role });
        let made = self.post(&format!("/v1/tokens?factory={factory}"), &wanted).await.json(201);
        Self { address: self.address, token: made["token"].as_str().unwrap().to_owned() }
    }

    /// Its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &body.to_string()).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, &body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "").await
    }

    /// One request as fioctl sends it.
    pub async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let headers = format!(
            "User-Agent: fioctl-2\r\nOSF-TOKEN: {}\r\nContent-Type: application/json\r\n",
            self.token
        );
        self.send_with(method, path, &headers, body).await
    }

    /// One request with these header lines, each ending in CR LF.
    pub async fn send_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        // A server that refuses early closes while this is still writing; its answer counts.
        let _maybe_refused_early = stream.write_all(request.as_bytes()).await;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

impl Answer {
    /// The value of a header, by its name as it is on the wire.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body; panics unless the status is this.
    #[track_caller]
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.to_lowercase().contains("content-type: application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// What is wrong with one field; panics unless the status is this.
    #[track_caller]
    pub fn field(&self, status: u16, field: &str) -> String {
        let body = self.json(status);
        assert!(!body["message"].as_str().unwrap().is_empty(), "{self:?}");
        body["errors"][field].as_str().unwrap_or_else(|| panic!("no {field}: {self:?}")).to_owned()
    }

    /// The list of what is wrong; panics unless the status is this.
    #[track_caller]
    pub fn list(&self, status: u16) -> Vec<String> {
        let body = self.json(status);
        let errors = body["errors"].as_array().unwrap_or_else(|| panic!("no list: {self:?}"));
        errors.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    }
}
