//! `POST simpleenroll` and `simplereenroll` (RFC 7030 §4.2).

use axum::extract::Request;
use axum::response::Response;

use super::{Est, answer, body, target::Target};
use crate::clock::UnixTime;
use crate::enrol::{Enrolled, Refused};
use crate::listener::Session;
use crate::model::{AnswerStyle, Refusal};
use crate::policy;

pub(super) async fn post(
    est: &Est,
    session: &Session,
    target: &Target,
    request: Request,
) -> Response {
    let operation = target.operation.as_str();
    let (head, body) = request.into_parts();
    let answered = enrol(est, session, target, &head.headers, body).await;
    let response = match &answered {
        Ok((Enrolled::Issued(recorded), style)) => answer::issued(recorded, *style, &head.headers),
        Ok((Enrolled::Waiting, _)) => Ok(answer::waiting()),
        Err(refused) => Ok(answer::refused(refused)),
    };
    match (response, &answered) {
        (Ok(response), Ok((enrolled, _))) => {
            let waiting = matches!(enrolled, Enrolled::Waiting);
            est.metrics.request(operation, if waiting { "waiting" } else { "ok" });
            response
        }
        (Ok(response), Err(refused)) => {
            est.metrics.request(operation, refused.refusal().code());
            response
        }
        // It is on record and pending; the device asks again.
        (Err(_), _) => answer::refusal(&Refusal::SignerUnavailable),
    }
}

async fn enrol(
    est: &Est,
    session: &Session,
    target: &Target,
    headers: &axum::http::HeaderMap,
    body: axum::body::Body,
) -> Result<(Enrolled, AnswerStyle), Refused> {
    let (enrolments, peer, operation) = (&est.enrolments, session.peer(), target.operation);
    let now = UnixTime::now();
    let active = enrolments.active();
    let snapshot = active.snapshot();
    let Some(profile) = snapshot.profiles.select(target.label.as_ref()) else {
        return Err(enrolments.refuse(peer, operation, Refusal::LabelUnknown).await);
    };
    // Who asks comes before what is asked: nobody's body is read (E-18).
    let requester = match policy::authenticate(peer, snapshot, now) {
        Ok(requester) => requester,
        Err(refusal) => return Err(enrolments.refuse(peer, operation, refusal).await),
    };
    let csr = match body::read_request(headers, body).await {
        Ok(csr) => csr,
        Err(refusal) => return Err(enrolments.refuse(peer, operation, refusal).await),
    };
    let label = target.label.as_ref();
    let request = policy::EnrolmentRequest { operation, label, profile, csr: &csr };
    let enrolled = enrolments.enrol(&active, &requester, &request, now).await;
    if enrolled.as_ref().map_or_else(Refused::judged_by_ledger, |_| true) {
        session.was_sighted();
    }
    Ok((enrolled?, profile.answer))
}
