//! Requests that an operator must approve, within a transaction of the writer.

use super::super::facts::HeldFacts;
use super::super::work::{Asker, Ruling, Verdict};
use super::Batch;
use crate::model::{HELD_LIMIT, HeldState, Refusal};
use crate::pki::Fingerprint;
use crate::policy::Grant;

/// How long an operator's approval of a request is good for, in seconds: a week.
const APPROVAL_LIFE: i64 = 7 * 24 * 3600;

impl Batch<'_> {
    /// Finds what an operator has said to the same request before, or lets it wait.
    pub(super) fn hold(&mut self, grant: &Grant, request: Fingerprint, asker: &Asker) -> Verdict {
        let key = (grant.factory, grant.device.clone());
        self.asked_by(asker, &key)?;
        let known = self.facts.held.entry(key.clone()).or_default();
        let (operation, label) = (grant.operation.as_str(), grant.label.as_ref());
        let label = label.map(|label| label.as_str().to_owned());
        if let Some(at) = known.iter().position(|held| held.request == request) {
            let held = known.swap_remove(at);
            let same = held.operation == operation && held.label == label;
            let lapsed = held.state == HeldState::Approved
                && held.decided_at.is_none_or(|at| at.plus(APPROVAL_LIFE) < self.now);
            let ruling = match held.state {
                // A no is for the request, wherever it is sent.
                HeldState::Rejected => Some(Err(Refusal::RequestRejected)),
                HeldState::Approved if same && !lapsed => Some(Ok(Ruling::Approved)),
                HeldState::Waiting if same => Some(Ok(Ruling::Waiting)),
                HeldState::Approved | HeldState::Waiting => None,
            };
            let id = held.id;
            if let Some(ruling) = ruling {
                known.push(held);
                return ruling;
            }
            // The operator's yes was for something else, or long ago.
            self.changes.forgotten.insert(id);
        }
        let id = self.transaction.next_id();
        known.push(HeldFacts {
            id,
            request,
            operation: operation.to_owned(),
            label: label.clone(),
            state: HeldState::Waiting,
            decided_at: None,
        });
        // What an operator has decided is not flushed by junk.
        let waiting = known.iter().filter(|held| held.state == HeldState::Waiting);
        let mut waiting: Vec<i64> = waiting.map(|held| held.id).collect();
        waiting.sort_unstable();
        waiting.truncate(waiting.len().saturating_sub(HELD_LIMIT));
        known.retain(|held| !waiting.contains(&held.id));
        self.changes.forgotten.extend(waiting);
        self.changes.held.push((
            id,
            [
                id.into(),
                grant.factory.0.into(),
                grant.device.as_str().into(),
                request.as_bytes().into(),
                grant.operation.as_str().into(),
                grant.public_key.algorithm().to_string().into(),
                HeldState::Waiting.as_str().into(),
                self.now.0.into(),
                None::<i64>.into(),
                label.as_deref().into(),
            ],
        ));
        self.done("hold", asker.name(), &key, format!("request {request} waits for approval"));
        Ok(Ruling::Waiting)
    }
}
