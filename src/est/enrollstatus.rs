//! `POST /.well-known/brski/enrollstatus` (RFC 8995 §5.9.4): a device says whether its enrolment went
//! well. What it says is on record; the proof is the certificate of the session that it says it in.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use serde::Deserialize;

use super::{Est, answer, body};
use crate::clock::UnixTime;
use crate::listener::Session;
use crate::model::{Operation, Refusal};
use crate::policy;

/// How much of a reason goes on record, in characters.
const REASON_LIMIT: usize = 500;

/// The telemetry of RFC 8995 §5.9.4; what else it says is passed over.
#[derive(Deserialize)]
struct Status {
    status: bool,
    reason: Option<String>,
}

pub(super) async fn post(est: &Est, session: &Session, request: Request) -> Response {
    let operation = Operation::EnrollStatus.as_str();
    match take(est, session, request).await {
        Ok(()) => {
            est.metrics.request(operation, "ok");
            answer::received()
        }
        Err(refusal) => {
            session.sight().await;
            est.metrics.request(operation, refusal.code());
            answer::refusal(&refusal)
        }
    }
}

async fn take(est: &Est, session: &Session, request: Request<Body>) -> Result<(), Refusal> {
    let (enrolments, peer, operation) = (&est.enrolments, session.peer(), Operation::EnrollStatus);
    let active = enrolments.active();
    let (head, body) = request.into_parts();
    let requester = match policy::authenticate(peer, active.snapshot(), UnixTime::now()) {
        Ok(requester) => requester,
        Err(refusal) => {
            return Err(enrolments.refuse(peer, operation, refusal).await.into_refusal());
        }
    };
    // Whoever says that it went well wants to hear whether the certificate is accepted; and nobody
    // else speaks for the device. A no is on record by the sighting.
    session.judge().await?;
    let status = match read(&head.headers, body).await {
        Ok(status) => status,
        Err(refusal) => {
            return Err(enrolments.refuse(peer, operation, refusal).await.into_refusal());
        }
    };
    let reason: String =
        status.reason.iter().flat_map(|text| text.chars()).take(REASON_LIMIT).collect();
    let said = if status.status { "it went well" } else { "it went wrong" };
    let certificate = requester.certificate.certificate.fingerprint();
    let detail = format!("{said}, says the holder of certificate {certificate}: {reason:?}");
    enrolments.note_said(&requester, operation, detail).await
}

async fn read(headers: &axum::http::HeaderMap, body: Body) -> Result<Status, Refusal> {
    let text = body::read_json(headers, body).await?;
    serde_json::from_slice(&text).map_err(|why| Refusal::StatusMalformed(why.to_string()))
}
