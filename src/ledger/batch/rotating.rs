//! What happens to a device, followed in the rotation that it is in, within the same transaction.

use super::super::facts::DeviceKey;
use super::super::rotations::pause_itself;
use super::Batch;
use crate::model::rotation::{Aim, Fact, MemberReason, MemberState, Step};
use crate::model::{Class, DeviceCaId, Refusal};
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
}

impl Happened<'_> {
    fn fact(self, aim: Aim, before: Option<i64>) -> Fact {
        match self {
            Self::Issued(credential, ca) => Fact::Issued(aim.is_met_by(credential, ca, before)),
            Self::InUse(credential, ca) => Fact::InUse(aim.is_met_by(credential, ca, before)),
            Self::Refused(_) => Fact::Refused,
        }
    }

    fn detail(self) -> Option<String> {
        match self {
            Self::Issued(..) | Self::InUse(..) => None,
            Self::Refused(refusal) => Some(format!("{}: {refusal}", refusal.code())),
        }
    }
}

impl Batch {
    /// A request was refused. It is the device's own only if it came by a credential of the device:
    /// what a forger asks for says nothing of the device. Neither does what the server cannot do now.
    pub(super) fn follow_refused(
        &mut self,
        key: &DeviceKey,
        shown: Option<Fingerprint>,
        refusal: &Refusal,
    ) {
        if refusal.class() == Class::Unavailable {
            return;
        }
        let device = self.facts.devices.get(key);
        let own = shown.is_some_and(|shown| device.is_some_and(|device| device.accepts(shown)));
        if own {
            self.follow(key, Happened::Refused(refusal));
        }
    }

    pub(super) fn follow(&mut self, key: &DeviceKey, happened: Happened<'_>) {
        let Some(device) = self.facts.devices.get(key).map(|device| device.id) else { return };
        let Some(members) = self.facts.members.get_mut(&device) else { return };
        for (index, member) in members.iter_mut().enumerate() {
            let Some(rotation) = self.facts.rotations.get_mut(&member.rotation) else { continue };
            let fact = happened.fact(rotation.aim(), member.credential_before);
            let after = member.state.after(fact);
            // A rotation that is done with the device does not take it back from a later one.
            let taken_back = after == MemberState::Waiting && index > 0;
            if after == member.state || taken_back {
                continue;
            }
            let reason = (after == MemberState::Failed).then_some(MemberReason::Refused);
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
            let changed = (after, reason, happened.detail());
            self.changes.members.insert((member.rotation, device), changed);
            self.changes.rotations.insert(member.rotation);
        }
    }
}
