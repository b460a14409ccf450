use proptest::prelude::*;

use super::*;

const NOW: UnixTime = UnixTime(1_800_000_000);
const MINUTE: i64 = 60_000;
/// More slots than come at once.
const MOST: i64 = i64::MAX;

fn pace(per_minute: u32, window: Option<&str>) -> Pace {
    let window = window.map(|text| DailyWindow::parse(text).unwrap());
    Pace { per_minute, canary: 0, window, begin: None, until: None }
}

fn rotation(waiting: i64, canary: u32, stop: Option<StopRule>) -> Rotation {
    let plan = Plan {
        selection: Selection::default(),
        pace: Pace { canary, ..pace(60, None) },
        stop,
        patience: 3600,
        validity: 3600,
        fioconfig: FioconfigSettings::default(),
        reason: String::new(),
    };
    Rotation {
        id: RotationId(100),
        factory: FactoryId(1),
        name: RotationName::at(NOW),
        state: RotationState::Running,
        state_reason: String::new(),
        state_since: NOW,
        plan,
        target: None,
        leaving: None,
        counts: Counts { waiting, ..Counts::default() },
        credit_at: NOW.0 * 1000,
        canaries_left: i64::from(canary).min(waiting),
        outcomes: Outcomes::default(),
        created_by: String::new(),
        created_at: NOW,
    }
}

/// The device with this ordinal goes from one state to another.
fn step(ordinal: i64, from: MemberState, to: MemberState, reason: Option<MemberReason>) -> Step {
    Step { ordinal, from, to, reason, failed_before: false }
}

fn slot(state: MemberState, ordinal: i64, ahead: i64) -> Slot {
    Slot { state, since: NOW, ordinal, ahead, issuer_disabled: false, issued_since: false }
}

#[test]
fn names_are_what_a_file_of_lines_can_carry() {
    assert_eq!(RotationName::at(UnixTime(1_669_058_841)).as_str(), "certs-1669058841");
    for wrong in ["", "a b", "a=b", "a\nb", "ä", &"x".repeat(65)] {
        assert!(RotationName::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn each_try_has_an_id_of_its_own_and_means_the_rotation() {
    let name = RotationName::parse("certs-1").unwrap();
    assert_eq!(name.of_try(0), name);
    assert_eq!(name.of_try(2).as_str(), "certs-1.2");
    for (told, meant) in [
        ("certs-1", true),
        ("certs-1.2", true),
        ("certs-12", false),
        ("certs-1.x", false),
        ("", false),
    ] {
        assert_eq!(name.is_meant_by(told), meant, "{told}");
    }
}

#[test]
fn windows_of_the_day_are_read_as_they_are_written() {
    for text in ["22:00-04:00", "00:00-23:59", "09:30-17:00"] {
        assert_eq!(String::from(DailyWindow::parse(text).unwrap()), text);
    }
    for wrong in ["", "22:00", "22:00-22:00", "24:00-01:00", "-", "9-17", "22:00-04:00-05:00"] {
        assert_eq!(DailyWindow::parse(wrong), Err(PaceRefused::Window), "{wrong:?}");
    }
}

#[test]
fn a_pace_of_nothing_and_one_that_is_over_are_refused() {
    assert_eq!(pace(0, None).check(NOW), Err(PaceRefused::PerMinute));
    assert_eq!(pace(2_000_000, None).check(NOW), Err(PaceRefused::PerMinute));
    let over = Pace { until: Some(NOW.0), ..pace(1, None) };
    assert_eq!(over.check(NOW), Err(PaceRefused::Over));
    let never = Pace { begin: Some(NOW.0 + 10), until: Some(NOW.0 + 10), ..pace(1, None) };
    assert_eq!(never.check(NOW), Err(PaceRefused::Over));
    assert_eq!(Pace { until: Some(NOW.0 + 1), ..pace(1, None) }.check(NOW), Ok(()));
}

/// A server that was down for a day does not send a day's devices at once.
#[test]
fn what_was_missed_is_not_made_up_for_at_once() {
    let now = NOW.0 * 1000;
    assert_eq!(pace(60, None).due(now - 24 * 60 * MINUTE, now, MOST), (10, now));
    assert_eq!(
        pace(1, None).due(now - 24 * 60 * MINUTE, now, MOST),
        (1, now),
        "slow ones go on too"
    );
    // A clock that went back gives nothing out, and takes nothing.
    assert_eq!(pace(60, None).due(now + 5000, now, MOST), (0, now));
}

#[test]
fn a_time_to_begin_holds_slots_back() {
    let now = NOW.0 * 1000;
    let later = Pace { begin: Some(NOW.0 + 600), ..pace(60, None) };
    assert_eq!(later.due(now - MINUTE, now, MOST), (0, now));
    assert_eq!(later.slot(now, 0, now), (NOW.0 + 601) * 1000);
}

proptest! {
    /// Asked at whatever moments, a pace never gives out more than it says, nor much less.
    #[test]
    fn slots_come_at_the_pace(
        per_minute in 1_u32..1_000_000,
        steps in prop::collection::vec(1_i64..3000, 1..200),
        most in prop::sample::select(vec![5000, 20_000, MOST]),
    ) {
        let pace = pace(per_minute, None);
        let start = NOW.0 * 1000;
        let (mut now, mut credit_at, mut given) = (start, start, 0);
        for step in steps {
            now += step;
            // Those that do not fit into one step come in the next, which follows at once.
            loop {
                let (count, at) = pace.due(credit_at, now, most);
                prop_assert!(at <= now && at >= credit_at);
                (given, credit_at) = (given + count, at);
                if count < most {
                    break;
                }
            }
        }
        let fair = (now - start) * i64::from(per_minute) / MINUTE;
        prop_assert!(given <= fair, "{given} of {fair}");
        prop_assert!(given >= fair - fair / 10 - i64::from(per_minute / 20) - 1, "{given} of {fair}");
    }

    /// The slot that a device is told comes when slots are given out, in the window, in order.
    #[test]
    fn told_slots_are_the_slots_that_come(
        per_minute in 1_u32..10_000,
        ahead in 0_i64..1_000_000,
        from in 0_i64..1440,
        length in 1_i64..1440,
        at in 0_i64..(48 * 60 * MINUTE),
    ) {
        let until = (from + length) % 1440;
        let text = format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60);
        let pace = pace(per_minute, Some(&text));
        let now = NOW.0 * 1000 + at;
        let slot = pace.slot(now, ahead, now);
        prop_assert!(slot > now);
        prop_assert!(pace.slot(now, ahead + 1, now) >= slot);
        // Open a moment before: the last moment of a window still counts.
        let minute = (slot - 1).rem_euclid(1440 * MINUTE) / MINUTE;
        prop_assert!((minute - from).rem_euclid(1440) < length, "{text}: minute {minute}");
        let without = self::pace(per_minute, None).slot(now, ahead, now);
        prop_assert!(slot >= without);
    }

    /// Whatever happens in whatever order: no device is lost or counted twice, and none is confirmed
    /// but by being seen with a certificate of the aim.
    #[test]
    fn counts_are_the_truth(facts in prop::collection::vec((0_usize..20, 0_u8..8), 0..300)) {
        let mut rotation = rotation(20, 3, StopRule::new(10, 50));
        let mut states = [MemberState::Waiting; 20];
        for (device, what) in facts {
            let before = states[device];
            let fact = match what {
                0 => Some(Fact::Issued(true)),
                1 => Some(Fact::Issued(false)),
                2 => Some(Fact::InUse(true)),
                3 => Some(Fact::InUse(false)),
                4 => Some(Fact::Refused),
                _ => None,
            };
            let after = match (fact, before, what) {
                (Some(fact), before, _) => before.after(fact),
                (None, MemberState::Waiting, 5) => MemberState::Offered,
                (None, MemberState::Offered | MemberState::Issued, 6) => MemberState::Failed,
                (None, MemberState::Waiting, 7) => MemberState::Skipped,
                (None, before, _) => before,
            };
            if after == MemberState::Confirmed && before != after {
                prop_assert_eq!(fact, Some(Fact::InUse(true)));
            }
            if before == MemberState::Skipped {
                prop_assert_eq!(after, before);
            }
            let reason = (after == MemberState::Failed).then_some(MemberReason::Unconfirmed);
            rotation.follow(step(i64::try_from(device).unwrap() + 1, before, after, reason));
            states[device] = after;
            prop_assert_eq!(rotation.counts.total(), 20);
            for state in MemberState::ALL {
                let count = states.iter().filter(|one| **one == state).count();
                prop_assert_eq!(*rotation.counts.of(state), i64::try_from(count).unwrap());
            }
            prop_assert!((0..=3).contains(&rotation.canaries_left));
        }
    }
}

#[test]
fn too_many_failures_among_the_last_stop_it() {
    let mut rotation = rotation(100, 0, StopRule::new(10, 20));
    let (offered, failed) = (MemberState::Offered, MemberState::Failed);
    let mut end = |reason: Option<MemberReason>| {
        rotation.follow(step(50, MemberState::Waiting, offered, None));
        let after = if reason.is_some() { failed } else { MemberState::Confirmed };
        rotation.follow(step(50, offered, after, reason))
    };
    assert_eq!(end(Some(MemberReason::Refused)), None);
    assert_eq!(end(Some(MemberReason::Unconfirmed)), None, "two of ten are as much as may fail");
    for _ in 0..20 {
        assert_eq!(end(Some(MemberReason::Silent)), None, "silence says nothing about rotating");
    }
    let again = Step { failed_before: true, ..step(50, offered, failed, Some(MemberReason::Step)) };
    assert_eq!(rotation.follow(again), None, "one device that fails again is one failure");
    let mut end = |reason: Option<MemberReason>| {
        let after = if reason.is_some() { failed } else { MemberState::Confirmed };
        rotation.follow(step(50, offered, after, reason))
    };
    assert!(end(Some(MemberReason::Refused)).unwrap().contains("3 of the last 10"));
    for _ in 0..10 {
        end(None);
    }
    assert_eq!(end(Some(MemberReason::Refused)), None, "what was long ago is forgotten");
}

#[test]
fn canaries_go_first_and_a_failing_one_stops_it() {
    let mut rotation = rotation(10, 2, None);
    let (waiting, offered) = (MemberState::Waiting, MemberState::Offered);
    assert!(rotation.window(&slot(waiting, 2, 1), NOW).is_some());
    assert_eq!(
        rotation.window(&slot(waiting, 3, 2), NOW),
        None,
        "nobody knows when its slot comes"
    );
    assert_eq!(rotation.projected_end(NOW), None);
    rotation.follow(step(1, waiting, offered, None));
    assert_eq!(rotation.follow(step(1, offered, MemberState::Confirmed, None)), None);
    assert_eq!(rotation.canaries_left, 1);
    rotation.follow(step(2, waiting, offered, None));
    let failed = rotation.follow(step(2, offered, MemberState::Failed, Some(MemberReason::Silent)));
    assert_eq!(failed.as_deref(), Some("a canary failed"));
    assert_eq!(rotation.canaries_left, 0, "it pauses, and whoever resumes it has seen that");
    assert!(rotation.window(&slot(waiting, 3, 0), NOW).is_some());
}

/// Whoever failed and was written off proves nothing for the other canaries, nor fails once more.
#[test]
fn a_canary_proves_itself_alone() {
    let (offered, issued) = (MemberState::Offered, MemberState::Issued);
    let (confirmed, failed) = (MemberState::Confirmed, MemberState::Failed);
    let mut rotation = rotation(10, 3, None);
    let canary = |ordinal, from, to| step(ordinal, from, to, None);
    for ordinal in 1..=3 {
        rotation.follow(canary(ordinal, MemberState::Waiting, offered));
    }
    let why = rotation.follow(step(1, offered, failed, Some(MemberReason::Refused)));
    assert_eq!((why.as_deref(), rotation.canaries_left), (Some("a canary failed"), 2));
    for (from, to) in [(failed, issued), (issued, failed), (failed, issued), (issued, confirmed)] {
        let reason = (to == failed).then_some(MemberReason::Unconfirmed);
        let again = Step { failed_before: true, ..step(1, from, to, reason) };
        assert_eq!(rotation.follow(again), None);
        assert_eq!(rotation.canaries_left, 2);
    }
    // One that goes back to what it had is to be waited for again, once.
    for (from, to, left) in [
        (offered, confirmed, 1),
        (confirmed, MemberState::Waiting, 2),
        (MemberState::Waiting, confirmed, 1),
    ] {
        rotation.follow(canary(2, from, to));
        assert_eq!(rotation.canaries_left, left);
    }
    rotation.follow(canary(3, offered, confirmed));
    assert_eq!(rotation.canaries_left, 0);
}

#[test]
fn windows_are_slots_then_now_then_as_if_there_were_no_rotation() {
    let mut rotation = rotation(1000, 0, None);
    let at = |ahead| rotation.window(&slot(MemberState::Waiting, 1000, ahead), NOW).unwrap();
    assert_eq!(at(0), RenewalWindow { start: NOW.plus(1), end: NOW.plus(61) });
    assert_eq!(at(599).start, NOW.plus(600), "60 a minute");
    for state in [MemberState::Offered, MemberState::Issued, MemberState::Failed] {
        let mut slot = slot(state, 1, 0);
        assert_eq!(rotation.window(&slot, NOW).unwrap().start, NOW);
        slot.issuer_disabled = true;
        assert!(rotation.window(&slot, NOW).unwrap().end < NOW, "its Device CA is disabled: now");
        slot.issued_since = true;
        assert_eq!(rotation.window(&slot, NOW), None, "it would get the same again");
    }
    assert_eq!(rotation.window(&slot(MemberState::Confirmed, 1, 0), NOW), None);
    rotation.state = RotationState::Paused;
    assert_eq!(rotation.window(&slot(MemberState::Waiting, 1, 0), NOW), None);
}

#[test]
fn an_aim_is_a_newer_certificate_of_the_right_device_ca() {
    let [old, new, other] = [DeviceCaId(1), DeviceCaId(2), DeviceCaId(3)];
    let aim = |target, leaving| Aim { rotation: RotationId(100), target, leaving };
    let any = aim(None, None);
    assert!(any.is_met_by(101, old, Some(50)));
    assert!(!any.is_met_by(99, new, Some(50)), "from before the rotation");
    let leaving = aim(None, Some(old));
    assert!(!leaving.is_met_by(101, old, Some(50)));
    assert!(leaving.is_met_by(101, new, Some(50)));
    assert!(leaving.is_met_by(99, new, Some(50)), "it has left, whenever it was given this");
    let target = aim(Some(new), None);
    assert!(target.is_met_by(101, new, None));
    assert!(!target.is_met_by(101, other, None));
    assert!(!target.is_met_by(50, new, Some(50)), "what it had");
}

#[test]
fn acts_are_for_the_states_that_they_are_for() {
    use RotationAct::{Abort, Pause, Resume, Retry};
    use RotationState::{Aborted, Finished, Paused, Preparing, Running};
    for (state, act, after) in [
        (Preparing, Abort, Some(Aborted)),
        (Preparing, Pause, None),
        (Running, Pause, Some(Paused)),
        (Running, Resume, None),
        (Running, Retry, Some(Running)),
        (Paused, Resume, Some(Running)),
        (Paused, Retry, Some(Paused)),
        (Paused, Abort, Some(Aborted)),
        (Finished, Retry, Some(Running)),
        (Finished, Abort, Some(Aborted)),
        (Finished, Pause, None),
        (Aborted, Abort, None),
        (Aborted, Resume, None),
        (Aborted, Retry, None),
    ] {
        assert_eq!(state.after(act), after, "{state:?} {act:?}");
    }
}

#[test]
fn fioconfig_is_told_what_fioctl_would_tell_it() {
    let settings = FioconfigSettings { label: Some("fioconfig".into()), ..Default::default() };
    let file = settings.file("est.example:8443", &RotationName::at(UnixTime(1_669_058_841)));
    assert_eq!(
        file,
        "ESTSERVER=https://est.example:8443/.well-known/est/fioconfig\nPKEYIDS=01,07\n\
         CERTIDS=03,09\nROTATIONID=certs-1669058841\n"
    );
    for (text, good) in [("01,07", true), ("1", true), ("", false), ("01,", false), ("x", false)] {
        assert_eq!(FioconfigSettings::are_ids(text), good, "{text}");
    }
}
