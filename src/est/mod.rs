//! RFC 7030 on the wire:
//! `/.well-known/est/[label/]{cacerts,simpleenroll,simplereenroll,csrattrs,crls,renewal-info/ID}`.
//!
//! What real clients force (title-case headers, Content-Length, small heads, base64 on one line) is
//! in [`answer`] and the listener; nothing here may stream.

mod answer;
mod body;
mod cacerts;
mod crls;
mod csrattrs;
mod enroll;
mod enrollstatus;
mod renewal_info;
mod target;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::Method;
use axum::response::Response;

use crate::enrol::Enrolments;
use crate::factory::RevocationLists;
use crate::listener::Session;
use crate::model::{Operation, Refusal};
use crate::telemetry::Metrics;
use target::Target;

/// What the handlers share.
pub struct Est {
    enrolments: Enrolments,
    revocation_lists: Arc<RevocationLists>,
    metrics: Arc<Metrics>,
}

/// The EST service. Every request must carry its [`Session`].
pub fn router(
    enrolments: Enrolments,
    revocation_lists: Arc<RevocationLists>,
    metrics: Arc<Metrics>,
) -> Router {
    let est = Est { enrolments, revocation_lists, metrics };
    // One handler parses the path: axum would refuse the doubled slashes of real devices.
    Router::new().fallback(handle).with_state(Arc::new(est))
}

async fn handle(
    State(est): State<Arc<Est>>,
    Extension(session): Extension<Arc<Session>>,
    request: Request,
) -> Response {
    let target = match Target::parse(request.uri().path()) {
        Ok(target) => target,
        Err(refusal) => return est.answer_refused("none", &session, &refusal).await,
    };
    let operation = target.operation.as_str();
    if let Err(refusal) = check_method(&request, target.operation) {
        return est.answer_refused(operation, &session, &refusal).await;
    }
    let answered = match target.operation {
        Operation::CaCerts => cacerts::get(&est, &session, &target, request.headers()),
        Operation::CsrAttrs => csrattrs::get(&est, &target),
        Operation::Crls => crls::get(&est, &session, &target).await,
        Operation::RenewalInfo => renewal_info::get(&est, &session, &target).await,
        Operation::SimpleEnroll | Operation::SimpleReenroll => {
            return enroll::post(&est, &session, &target, request).await;
        }
        Operation::EnrollStatus => return enrollstatus::post(&est, &session, request).await,
        Operation::ServerKeyGen | Operation::FullCmc | Operation::Register => {
            Err(Refusal::OperationNotOffered)
        }
    };
    match answered {
        Ok(response) => {
            session.sight().await;
            est.metrics.request(operation, "ok");
            response
        }
        Err(refusal) => est.answer_refused(operation, &session, &refusal).await,
    }
}

impl Est {
    /// Answers a refusal that decides nothing about anybody, and so is counted, not recorded.
    async fn answer_refused(
        &self,
        operation: &'static str,
        session: &Session,
        refusal: &Refusal,
    ) -> Response {
        session.sight().await;
        self.metrics.request(operation, refusal.code());
        answer::refusal(refusal)
    }
}

fn check_method(request: &Request, operation: Operation) -> Result<(), Refusal> {
    let wanted = match operation {
        Operation::CaCerts | Operation::CsrAttrs | Operation::Crls | Operation::RenewalInfo => {
            Method::GET
        }
        Operation::SimpleEnroll
        | Operation::SimpleReenroll
        | Operation::EnrollStatus
        | Operation::ServerKeyGen
        | Operation::FullCmc
        | Operation::Register => Method::POST,
    };
    if request.method() == wanted {
        return Ok(());
    }
    Err(Refusal::MethodNotAllowed(if wanted == Method::GET { "GET" } else { "POST" }))
}
