//! Calls the API of a running server.

use anyhow::{Context, bail};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Global;
use crate::client::{self, Answer, Endpoint};
use crate::config::ServeOverrides;

const HTTP_PORT: u16 = 80;

/// The API of one server, with the token to use it.
pub(super) struct ApiClient {
    endpoint: Endpoint,
    token: Zeroizing<String>,
    factory: Option<String>,
}

impl ApiClient {
    /// The server of `--url`, with the token of `ESTD_TOKEN` or of the data folder.
    pub(super) fn new(global: &Global) -> anyhow::Result<Self> {
        let uri: Uri = global.url.parse().with_context(|| format!("--url {}", global.url))?;
        if uri.scheme_str() != Some("http") {
            bail!("--url {}: must begin with http:// (reach a remote API by a tunnel)", global.url);
        }
        let endpoint = Endpoint::of(&uri, HTTP_PORT).context("--url")?;
        Ok(Self { endpoint, token: token(global)?, factory: global.factory.clone() })
    }

    /// Gets `/v1/PATH`.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.send(Method::GET, path, query, None).await
    }

    /// Gets `/v1/PATH`, which answers with text.
    pub(super) async fn get_text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.exchange(Method::GET, path, &[], None).await?;
        if answer.status.is_success() {
            return String::from_utf8(answer.body.to_vec()).context("the answer is no text");
        }
        self.value(&answer).map(|value| value.to_string())
    }

    /// Posts to `/v1/PATH`.
    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// Deletes `/v1/PATH`.
    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::DELETE, path, &[], None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        self.value(&self.exchange(method, path, query, body).await?)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> anyhow::Result<Answer> {
        let factory = self.factory.iter().map(|name| ("factory", name.clone()));
        let query: Vec<String> = query
            .iter()
            .cloned()
            .chain(factory)
            .map(|(key, value)| format!("{key}={}", percent_encode(&value)))
            .collect();
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/{path}?{}", query.join("&")))
            .header(HOST, self.endpoint.authority())
            .header(AUTHORIZATION, format!("Bearer {}", *self.token))
            .header(CONTENT_TYPE, "application/json");
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::from(Bytes::from(body)))?;
        let mut http = client::open_plain(&self.endpoint)
            .await
            .context("is the server running? (`estd serve`; or say where by --url)")?;
        Ok(client::exchange(&mut http, request).await?)
    }

    /// The answer's JSON, or why it is none.
    fn value(&self, answer: &Answer) -> anyhow::Result<Value> {
        let value: Value = serde_json::from_slice(&answer.body)
            .with_context(|| format!("http://{} is not the API of estd", self.endpoint))?;
        if answer.status.is_success() {
            return Ok(value);
        }
        bail!("{}", reasons(&value))
    }
}

/// The message of an error, and below it every reason that it does not tell itself.
fn reasons(error: &Value) -> String {
    let message = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
    let errors = error.get("errors").and_then(Value::as_array);
    let errors = errors.into_iter().flatten().filter_map(Value::as_str);
    let lines = std::iter::once(message).chain(errors.filter(|reason| *reason != message));
    lines.collect::<Vec<_>>().join("\n  ")
}

fn token(global: &Global) -> anyhow::Result<Zeroizing<String>> {
    if let Ok(token) = std::env::var("ESTD_TOKEN") {
        return Ok(Zeroizing::new(token.trim().to_owned()));
    }
    let path = global.config(&ServeOverrides::default())?.admin_token_file();
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("no ESTD_TOKEN, and no admin token in {} (--data-dir)", path.display())
    })?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// A path segment or query value: everything but unreserved characters as `%XX` (RFC 3986 §2.1).
pub(super) fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}
