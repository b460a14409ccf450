//! `GET csrattrs` (RFC 7030 §4.5): nothing is asked for beyond what every client sends, which is
//! said by 204 without a body.

use axum::response::Response;

use super::{Est, answer, target::Target};
use crate::model::Refusal;

pub(super) fn get(est: &Est, target: &Target) -> Result<Response, Refusal> {
    let active = est.enrolments.active();
    let profiles = &active.snapshot().profiles;
    profiles.select(target.label.as_ref()).ok_or(Refusal::LabelUnknown)?;
    Ok(answer::no_content())
}
