//! A rotation: a campaign that re-issues the certificates of a set of devices at a pace (DESIGN §6),
//! with its state machine as pure functions over facts.

mod member;
mod pace;
mod plan;

use std::fmt;

use serde::{Serialize, Serializer};

pub use member::{Aim, Fact, MemberReason, MemberState};
pub use pace::{DailyWindow, Pace, PaceRefused};
pub use plan::{
    FioconfigSettings, Outcomes, Plan, ROTATE_CERTS, ROTATE_CERTS_HANDLER, RotationDefaults,
    Selection, StopRule,
};

use super::{DeviceCa, DeviceCaId, FactoryId, NotA, RenewalWindow, issuing_ca, signing_ca};
use crate::clock::UnixTime;

/// A device whose slot has come has this long, in seconds, before its window is in the past, which
/// means now.
const SLOT_SECONDS: i64 = 60;

/// The row of a rotation in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RotationId(pub i64);

/// What people and devices call a rotation: the ROTATIONID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RotationName(String);

impl RotationName {
    /// Reads a name.
    ///
    /// # Errors
    /// Unless it is 1 to 64 letters, digits, `.`, `_` and `-`: it travels in a file of `KEY=value` lines.
    pub fn parse(text: &str) -> Result<Self, NotA> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
            let rule = "1 to 64 letters, digits, '.', '_' and '-'";
            return Err(NotA::new("rotation id", text, rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name that fioctl would give to a rotation that begins now.
    pub fn at(now: UnixTime) -> Self {
        Self(format!("certs-{}", now.0))
    }

    /// What a device is told that was made to wait `tries` times for another slot: it would not begin
    /// anew what it believes to have completed.
    #[must_use]
    pub fn of_try(&self, tries: i64) -> Self {
        if tries == 0 { self.clone() } else { Self(format!("{}.{tries}", self.0)) }
    }

    /// Whether a device that says `told` means this rotation, in whichever try.
    pub fn is_meant_by(&self, told: &str) -> bool {
        let rest = told.strip_prefix(&self.0);
        let is_try =
            |rest: &str| rest.strip_prefix('.').is_some_and(|number| number.parse::<u64>().is_ok());
        rest.is_some_and(|rest| rest.is_empty() || is_try(rest))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RotationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RotationName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationState {
    /// Its devices are being gathered.
    Preparing,
    /// It gives out slots.
    Running,
    /// It gives out none, and goes on when it is resumed.
    Paused,
    /// No device of it waits for anything any more.
    Finished,
    /// An operator ended it.
    Aborted,
}

impl RotationState {
    /// The states in which it holds its devices.
    pub const ACTIVE: [Self; 3] = [Self::Preparing, Self::Running, Self::Paused];

    /// The word for it in the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Aborted => "aborted",
        }
    }

    /// The state that [`Self::as_str`] writes as `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        let all = [Self::Preparing, Self::Running, Self::Paused, Self::Finished, Self::Aborted];
        all.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether it holds its devices.
    pub fn is_active(self) -> bool {
        Self::ACTIVE.contains(&self)
    }

    /// The state after an act; `None` if the state forbids it.
    pub fn after(self, act: RotationAct) -> Option<Self> {
        match (self, act) {
            (Self::Running, RotationAct::Pause) | (Self::Paused, RotationAct::Retry) => {
                Some(Self::Paused)
            }
            (Self::Paused, RotationAct::Resume | RotationAct::ResumePastCanaries)
            | (Self::Running | Self::Finished, RotationAct::Retry) => Some(Self::Running),
            (
                Self::Preparing | Self::Running | Self::Paused | Self::Finished,
                RotationAct::Abort,
            ) => Some(Self::Aborted),
            _ => None,
        }
    }
}

/// What an operator does to a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationAct {
    /// Give out no more slots for now.
    Pause,
    /// Go on. Canaries that are still under way are waited for.
    Resume,
    /// Go on, and wait for no canary any more.
    ResumePastCanaries,
    /// End it. What devices were given stays good.
    Abort,
    /// Give its failed devices another slot.
    Retry,
}

impl RotationAct {
    /// The action in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause-rotation",
            Self::Resume | Self::ResumePastCanaries => "resume-rotation",
            Self::Abort => "abort-rotation",
            Self::Retry => "retry-rotation",
        }
    }
}

/// How many devices of a rotation are in which state; kept by the transactions that change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Their slot has not come.
    pub waiting: i64,
    /// Their slot has come.
    pub offered: i64,
    /// They were issued a certificate.
    pub issued: i64,
    /// They were seen with it.
    pub confirmed: i64,
    /// They were refused, or did not come, or were not seen with what they were issued.
    pub failed: i64,
    /// They are left out.
    pub skipped: i64,
}

impl Counts {
    /// The count of a state.
    pub fn of(&mut self, state: MemberState) -> &mut i64 {
        match state {
            MemberState::Waiting => &mut self.waiting,
            MemberState::Offered => &mut self.offered,
            MemberState::Issued => &mut self.issued,
            MemberState::Confirmed => &mut self.confirmed,
            MemberState::Failed => &mut self.failed,
            MemberState::Skipped => &mut self.skipped,
        }
    }

    /// A device goes from one state to another.
    pub fn shift(&mut self, from: MemberState, to: MemberState) {
        *self.of(from) -= 1;
        *self.of(to) += 1;
    }

    /// How many devices there are.
    pub fn total(&self) -> i64 {
        self.waiting + self.offered + self.issued + self.confirmed + self.failed + self.skipped
    }

    /// How many devices still wait for something.
    pub fn open(&self) -> i64 {
        self.waiting + self.offered + self.issued
    }
}

/// Where a device stands in a rotation, as far as its slot depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its state.
    pub state: MemberState,
    /// Since when.
    pub since: UnixTime,
    /// Its place in the order of the slots.
    pub ordinal: i64,
    /// How many devices have their slot before it.
    pub ahead: i64,
    /// Whether the Device CA of its certificate is disabled.
    pub issuer_disabled: bool,
    /// Whether it was issued the certificate since its slot came: it would get no better one now.
    pub issued_since: bool,
}

/// A device of a rotation goes from one state to another.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its place in the order of the slots.
    pub ordinal: i64,
    /// Where it was.
    pub from: MemberState,
    /// Where it is.
    pub to: MemberState,
    /// Why it failed or is left out.
    pub reason: Option<MemberReason>,
    /// Whether it has failed before, since the last retry if there was one.
    pub failed_before: bool,
}

/// A rotation as the ledger has it.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Its row. What is recorded later has a higher one.
    pub id: RotationId,
    /// In which Factory.
    pub factory: FactoryId,
    /// Its name.
    pub name: RotationName,
    /// Where it stands.
    pub state: RotationState,
    /// Why it stands there.
    pub state_reason: String,
    /// Since when.
    pub state_since: UnixTime,
    /// What was asked for.
    pub plan: Plan,
    /// The Device CA that its devices shall have a certificate of; `None`: whichever issues.
    pub target: Option<DeviceCaId>,
    /// The Device CA that it takes its devices off.
    pub leaving: Option<DeviceCaId>,
    /// How its devices stand.
    pub counts: Counts,
    /// Up to when slots were given out, in milliseconds since 1970.
    pub credit_at: i64,
    /// How many canaries are not confirmed yet, without those that have failed.
    pub canaries_left: i64,
    /// How the last devices fared.
    pub outcomes: Outcomes,
    /// Who started it.
    pub created_by: String,
    /// When.
    pub created_at: UnixTime,
}

impl Rotation {
    /// What a certificate must be to count.
    pub fn aim(&self) -> Aim {
        Aim { rotation: self.id, target: self.target, leaving: self.leaving }
    }

    /// Why it cannot go on with these Device CAs of its Factory: no device would get what is wanted.
    pub fn obstacle(&self, cas: &[DeviceCa], now: UnixTime) -> Option<&'static str> {
        if let Some(target) = self.target {
            let signs = signing_ca(cas, target, now).is_some();
            return (!signs).then_some("the Device CA that is its target does not sign any more");
        }
        match issuing_ca(cas, now, self.plan.validity) {
            None => Some("no Device CA is enabled for issuing"),
            Some(issuer) if Some(issuer.id) == self.leaving => {
                Some("the Device CA that devices are to leave is the one that issues to them")
            }
            Some(_) => None,
        }
    }

    /// Whether the device with this ordinal is one of the canaries.
    pub fn is_canary(&self, ordinal: i64) -> bool {
        ordinal <= i64::from(self.plan.pace.canary)
    }

    /// A device went from one state to another. Gives why the rotation must pause itself, if it must.
    pub fn follow(&mut self, step: Step) -> Option<String> {
        if step.from == step.to {
            return None;
        }
        self.counts.shift(step.from, step.to);
        if !self.state.is_active() {
            return None;
        }
        // One that has failed before has had its say: it holds nobody up, and proves nothing.
        let canary = self.canaries_left > 0 && self.is_canary(step.ordinal) && !step.failed_before;
        if canary {
            let open = |state| i64::from(MemberState::OPEN.contains(&state));
            self.canaries_left += open(step.to) - open(step.from);
        }
        match step.to {
            MemberState::Confirmed => self.note_outcome(false),
            MemberState::Failed => {
                // One device that fails again and again is one failure.
                let counts =
                    step.reason.is_some_and(MemberReason::counts_as_failure) && !step.failed_before;
                let stopped = counts.then(|| self.note_outcome(true)).flatten();
                stopped.or_else(|| canary.then(|| "a canary failed".to_owned()))
            }
            _ => None,
        }
    }

    fn note_outcome(&mut self, failed: bool) -> Option<String> {
        let stop = self.plan.stop?;
        self.outcomes.push(failed, stop);
        let failures = self.outcomes.failures();
        stop.is_exceeded_by(failures)
            .then(|| format!("{failures} of the last {} devices failed", stop.last))
    }

    /// When a device with the certificate of before shall renew; `None`: as if there were no rotation.
    pub fn window(&self, member: &Slot, now: UnixTime) -> Option<RenewalWindow> {
        let since = member.since;
        match member.state {
            MemberState::Waiting => self.paced_window(member, now),
            MemberState::Offered | MemberState::Issued | MemberState::Failed => {
                (!member.issued_since).then_some(if member.issuer_disabled {
                    RenewalWindow { start: since.plus(-SLOT_SECONDS), end: since.plus(-1) }
                } else {
                    RenewalWindow { start: since, end: since.plus(SLOT_SECONDS) }
                })
            }
            MemberState::Confirmed | MemberState::Skipped => None,
        }
    }

    fn paced_window(&self, member: &Slot, now: UnixTime) -> Option<RenewalWindow> {
        let held_up = self.canaries_left > 0 && !self.is_canary(member.ordinal);
        if self.state != RotationState::Running || held_up {
            return None;
        }
        let start = self.slot(member.ahead, now)?;
        Some(RenewalWindow { start, end: start.plus(SLOT_SECONDS) })
    }

    /// When the last slot is given out at the present pace; `None` if nobody can say.
    pub fn projected_end(&self, now: UnixTime) -> Option<UnixTime> {
        let can_say = self.state == RotationState::Running && self.canaries_left == 0;
        let last = self.counts.waiting - 1;
        (can_say && last >= 0).then(|| self.slot(last, now)).flatten()
    }

    fn slot(&self, ahead: i64, now: UnixTime) -> Option<UnixTime> {
        let slot = UnixTime(self.plan.pace.slot(self.credit_at, ahead, now.0 * 1000) / 1000);
        (!self.plan.pace.is_over(slot)).then_some(slot)
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
