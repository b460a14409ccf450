//! `GET cacerts` (RFC 7030 §4.1): for anybody.

use axum::http::HeaderMap;
use axum::response::Response;

use super::{Est, answer, target::Target};
use crate::listener::Session;
use crate::model::Refusal;
use crate::pki::Certificate;

pub(super) fn get(
    est: &Est,
    session: &Session,
    target: &Target,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let active = est.enrolments.active();
    let snapshot = active.snapshot();
    snapshot.profiles.select(target.label.as_ref()).ok_or(Refusal::LabelUnknown)?;
    let trust = snapshot.factory(session.peer().factory).ok_or(Refusal::FactoryUnknown)?;
    let certificates: Vec<&[u8]> =
        trust.ca_certificates().into_iter().map(Certificate::der).collect();
    answer::ca_certificates(&certificates, headers).map_err(|_| Refusal::FactoryUnknown)
}
