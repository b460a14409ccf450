//! Request bodies: bounded in size and in time, then parsed once.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::model::Refusal;
use crate::pki::{CertificationRequest, from_est_text};

const BODY_LIMIT: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// Reads a PKCS#10 body. Content-Transfer-Encoding is ignored, whatever it says (RFC 8951 §3).
pub(super) async fn read_request(
    headers: &HeaderMap,
    body: Body,
) -> Result<CertificationRequest, Refusal> {
    if media_type(headers) != Some("application/pkcs10".to_owned()) {
        return Err(Refusal::ContentType);
    }
    let text = read(headers, body).await?;
    from_est_text(&text)
        .and_then(|der| CertificationRequest::from_der(&der))
        .map_err(|why| Refusal::CsrMalformed(why.to_string()))
}

/// Reads a body of JSON, unparsed.
pub(super) async fn read_json(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    if media_type(headers) != Some("application/json".to_owned()) {
        return Err(Refusal::NotJson);
    }
    read(headers, body).await
}

/// The content type in lower case, without parameters.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next()?;
    Some(media_type.trim().to_ascii_lowercase())
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    let announced = headers.get(CONTENT_LENGTH).map(HeaderValue::to_str);
    let announced = announced.and_then(|text| text.ok()?.parse::<u64>().ok()).unwrap_or(0);
    if announced > BODY_LIMIT as u64 {
        return Err(Refusal::BodyTooLarge(BODY_LIMIT));
    }
    let whole = timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect());
    match whole.await {
        Err(_elapsed) => Err(Refusal::BodyTooSlow),
        Ok(Err(why)) if why.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge(BODY_LIMIT)),
        Ok(Err(_)) => Err(Refusal::BodyBroken),
        Ok(Ok(whole)) => Ok(whole.to_bytes().to_vec()),
    }
}
