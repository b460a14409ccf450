//! What happens to a device, followed in the rotation that it is in, within the same transaction.

use super::super::facts::DeviceKey;
use super::super::rotations::{NewState, pause_itself};
use super::Batch;
use crate::model::rotation::{Aim, Fact, MemberReason, MemberState, Rotation, Step};
use crate::model::{Class, DeviceCaId, DeviceEvent, Refusal};
use crate::pki::Fingerprint;

/// What happened to a device.
#[derive(Clone, Copy)]
pub(super) enum Happened<'a> {
    /// It was issued the credential of that row by that Device CA.
    Issued(i64, DeviceCaId),
    /// It uses the credential of that row, of that Device CA, and used another before.
    InUse(i64, DeviceCaId),
    /// Its request was refused.
    Refused(&'a Refusal),
    /// Its request waits for an operator: agents do not.
    Held,
    /// It says that a step of its own went wrong.
    StepFailed(&'a DeviceEvent),
}

impl Happened<'_> {
    fn fact(self, aim: Aim, before: Option<i64>) -> Fact {
        match self {
            Self::Issued(credential, ca) => Fact::Issued(aim.is_met_by(credential, ca, before)),
            Self::InUse(credential, ca) => Fact::InUse(aim.is_met_by(credential, ca, before)),
            Self::StepFailed(_) => Fact::StepFailed,
            // It fails at what comes after the certificate, if this rotation has given it one.
            Self::Refused(Refusal::RetriedTooOften(_)) => Fact::PutOff,
            Self::Refused(_) | Self::Held => Fact::Refused,
        }
    }

    fn reason(self) -> MemberReason {
        match self {
            Self::StepFailed(_) => MemberReason::Step,
            Self::Issued(..) | Self::InUse(..) | Self::Refused(_) | Self::Held => {
                MemberReason::Refused
            }
        }
    }

    /// What a device says of a step, it says of one rotation.
    fn is_about(self, rotation: &Rotation) -> bool {
        match self {
            Self::StepFailed(event) => rotation.name.is_meant_by(&event.rotation),
            Self::Issued(..) | Self::InUse(..) | Self::Refused(_) | Self::Held => true,
        }
    }

    fn detail(self) -> Option<String> {
        match self {
            Self::Issued(..) | Self::InUse(..) => None,
            Self::Held => Some("held: the request waits for an operator".to_owned()),
            Self::Refused(refusal) => Some(format!("{}: {refusal}", refusal.code())),
            Self::StepFailed(event) => Some(format!("{}: {}", event.step, event.details)),
        }
    }
}

impl Batch<'_> {
    /// A request was refused. What the server cannot do now, and a line that breaks, say nothing of
    /// rotating.
    pub(super) fn follow_refused(
        &mut self,
        key: &DeviceKey,
        shown: Option<Fingerprint>,
        refusal: &Refusal,
    ) {
        let broken = matches!(refusal, Refusal::BodyTooSlow | Refusal::BodyBroken);
        if refusal.class() != Class::Unavailable && !broken {
            self.follow_own(key, shown, Happened::Refused(refusal));
        }
    }

    /// Follows what became of a request if it came by a credential of the device: what a forger asks
    /// for says nothing of the device.
    pub(super) fn follow_own(
        &mut self,
        key: &DeviceKey,
        shown: Option<Fingerprint>,
        happened: Happened<'_>,
    ) {
        let device = self.facts.devices.get(key);
        if shown.is_some_and(|shown| device.is_some_and(|device| device.accepts(shown))) {
            self.follow(key, happened);
        }
    }

    pub(super) fn follow(&mut self, key: &DeviceKey, happened: Happened<'_>) {
        let Some(device) = self.facts.devices.get(key).map(|device| device.id) else { return };
        let Some(members) = self.facts.members.get_mut(&device) else { return };
        let mut later = false;
        for member in members {
            let Some(rotation) = self.facts.rotations.get_mut(&member.rotation) else { continue };
            let has_later = later;
            later |= rotation.state.is_active();
            if !happened.is_about(rotation) {
                continue;
            }
            let fact = happened.fact(rotation.aim(), member.credential_before);
            let after = member.state.after(fact);
            // A rotation that is done with the device does not take it back from a later one.
            let taken_back = after == MemberState::Waiting && has_later;
            // One that has ended waits for nothing: all that counts is that the device came through.
            let too_late = !rotation.state.is_active() && after != MemberState::Confirmed;
            if after == member.state || taken_back || too_late {
                continue;
            }
            let reason = (after == MemberState::Failed).then_some(happened.reason());
            let step = Step {
                ordinal: member.ordinal,
                from: member.state,
                to: after,
                reason,
                failed_before: member.failed_before,
            };
            if let Some(why) = rotation.follow(step) {
                self.transaction.note_all(pause_itself(rotation, &why));
            }
            member.state = after;
            member.failed_before |= after == MemberState::Failed;
            let key = (member.rotation, device);
            let before = self.changes.members.get(&key).is_some_and(|before| before.failed);
            let failed = before || after == MemberState::Failed;
            let new = NewState { state: after, reason, detail: happened.detail(), failed };
            self.changes.members.insert(key, new);
            self.changes.rotations.insert(member.rotation);
        }
    }
}
