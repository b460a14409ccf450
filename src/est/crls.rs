//! `GET crls` (RFC 8295): the CRLs of the Factory's online Device CAs, for anybody.

use axum::body::Body;
use axum::response::Response;
use tracing::error;

use super::{Est, answer, target::Target};
use crate::listener::Session;
use crate::model::Refusal;

pub(super) async fn get(
    est: &Est,
    session: &Session,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    let active = est.enrolments.active();
    let snapshot = active.snapshot();
    snapshot.profiles.select(target.label.as_ref()).ok_or(Refusal::LabelUnknown)?;
    let trust = snapshot.factory(session.peer().factory).ok_or(Refusal::FactoryUnknown)?;
    let lists = est.revocation_lists.of_factory(trust).await.map_err(|why| {
        error!(error = %why, "no CRL can be made");
        Refusal::SignerUnavailable
    })?;
    let lists: Vec<&[u8]> = lists.iter().map(AsRef::as_ref).collect();
    answer::revocation_lists(&lists).map_err(|_| Refusal::SignerUnavailable)
}
