//! The state machine of credentials, by cases and by random walks.

use proptest::prelude::*;

use super::{
    Allowance, CredentialState, DeviceCaState, Fingerprint, KnownCredential, KnownDevice,
    PENDING_LIMIT, Presented, Refusal, Sighting, UnixTime,
};
use CredentialState::{Current, Denied, Pending, Superseded};

/// A device whose credential number n has certificate n and key n.
fn device(states: &[CredentialState]) -> KnownDevice {
    let credentials = (0_i64..).zip(states).map(|(id, state)| credential(id, *state)).collect();
    KnownDevice { id: 1, credentials, ..KnownDevice::default() }
}

fn credential(id: i64, state: CredentialState) -> KnownCredential {
    let Presented { fingerprint, key } = presented(id, id);
    KnownCredential { id, fingerprint, key, state, recorded_at: UnixTime(10 * id) }
}

fn presented(certificate: i64, key: i64) -> Presented {
    Presented {
        fingerprint: Fingerprint::of(format!("certificate {certificate}").as_bytes()),
        key: Fingerprint::of(format!("key {key}").as_bytes()),
    }
}

fn judge(device: &KnownDevice, shown: Presented) -> Result<Sighting, Refusal> {
    Sighting::judge(Some(device), shown, DeviceCaState::Enabled)
}

#[test]
fn i3_a_session_with_the_pending_one_supersedes_the_current_and_older_pendings() {
    let device = device(&[Current, Pending, Pending, Pending]);
    assert_eq!(
        judge(&device, presented(2, 2)),
        Ok(Sighting::Confirmed { credential: 2, superseded: vec![0, 1] })
    );
}

#[test]
fn i5_a_disabled_ca_registers_nobody_and_keeps_its_devices() {
    let shown = presented(0, 0);
    let disabled = DeviceCaState::Disabled;
    assert_eq!(
        Sighting::judge(None, shown, disabled).unwrap_err().code(),
        "ca-disabled-unregistered"
    );
    assert_eq!(Sighting::judge(Some(&device(&[Current])), shown, disabled), Ok(Sighting::Expected));
}

#[test]
fn i5_a_revoked_ca_refuses_even_the_current_one() {
    let verdict =
        Sighting::judge(Some(&device(&[Current])), presented(0, 0), DeviceCaState::Revoked);
    assert_eq!(verdict.unwrap_err().code(), "ca-revoked");
}

#[test]
fn i6_a_certificate_known_neither_by_itself_nor_by_key_is_an_alarm() {
    let refusal = judge(&device(&[Current]), presented(9, 9)).unwrap_err();
    assert_eq!(refusal.code(), "credential-unknown");
    assert!(refusal.is_alarm());
}

#[test]
fn i6_a_new_certificate_for_the_current_key_is_adopted() {
    assert_eq!(
        judge(&device(&[Current]), presented(9, 0)),
        Ok(Sighting::Adopted { superseded: vec![0] })
    );
}

#[test]
fn i7_a_superseded_one_that_comes_back_is_an_alarm_until_allowed_once() {
    let mut device = device(&[Superseded, Current]);
    let refusal = judge(&device, presented(0, 0)).unwrap_err();
    assert_eq!(refusal.code(), "credential-superseded");
    assert!(refusal.is_alarm());

    device.allowance = Some(Allowance::Any);
    assert_eq!(
        judge(&device, presented(0, 0)),
        Ok(Sighting::Allowed { credential: Some(0), superseded: vec![1] })
    );
}

#[test]
fn a_denied_one_is_refused_until_the_operator_allows_the_device_again() {
    let mut device = device(&[Denied]);
    assert_eq!(judge(&device, presented(0, 0)).unwrap_err().code(), "credential-denied");
    device.allowance = Some(Allowance::Any);
    assert_eq!(
        judge(&device, presented(0, 0)),
        Ok(Sighting::Allowed { credential: Some(0), superseded: vec![] })
    );
}

#[test]
fn i6_an_allowance_can_be_for_one_certificate() {
    let mut device = device(&[Current]);
    device.allowance = Some(Allowance::Certificate(presented(9, 9).fingerprint));
    assert_eq!(judge(&device, presented(8, 8)).unwrap_err().code(), "credential-unknown");
    assert_eq!(
        judge(&device, presented(9, 9)),
        Ok(Sighting::Allowed { credential: None, superseded: vec![0] })
    );
}

#[test]
fn i3_pendings_are_capped_oldest_first() {
    let states = [&[Current][..], &[Pending; PENDING_LIMIT]].concat();
    assert_eq!(device(&states).pending_to_drop(), vec![1]);
    assert!(device(&states[1..PENDING_LIMIT]).pending_to_drop().is_empty());
}

/// One every ten seconds, as the real agent retries.
#[test]
fn i11_a_device_that_uses_nothing_of_what_it_gets_waits_ever_longer() {
    let mut failing = device(&[&[Current][..], &[Pending; PENDING_LIMIT - 1]].concat());
    assert_eq!(
        failing.may_have_another(UnixTime(150), None),
        Ok(()),
        "it has one less than the most"
    );
    failing.credentials.push(credential(16, Pending));
    let refused = |seconds| Err(Refusal::RetriedTooOften(seconds));
    assert_eq!(failing.may_have_another(UnixTime(160), None), refused(150));
    assert_eq!(failing.may_have_another(UnixTime(309), None), refused(1));
    assert_eq!(failing.may_have_another(UnixTime(310), None), Ok(()));
    assert_eq!(failing.may_have_another(UnixTime(0), None), Ok(()), "the clock was set back");

    assert_eq!(
        failing.may_have_another(UnixTime(221), Some(UnixTime(50_000))),
        Ok(()),
        "it hurries"
    );
    assert_eq!(failing.may_have_another(UnixTime(219), Some(UnixTime(50_000))), refused(1));
    assert_eq!(failing.may_have_another(UnixTime(86_420), None), Ok(()), "long ago");

    let mut given = 0;
    for now in (170..10 * 86_400).step_by(10).map(UnixTime) {
        if failing.may_have_another(now, None).is_ok() {
            let dropped = failing.pending_to_drop();
            failing.set_state(&dropped, Superseded);
            let new = KnownCredential { recorded_at: now, ..credential(1000 + given, Pending) };
            failing.credentials.push(new);
            given += 1;
        }
    }
    assert!((235..260).contains(&given), "{given} in ten days: one an hour");
}

#[derive(Clone, Debug)]
enum Step {
    Issue,
    Switch(usize),
}

proptest! {
    /// Whatever is issued and whichever of its still valid credentials the device then uses:
    /// it always has exactly one current one, and the one that it used last is accepted.
    #[test]
    fn i3_a_device_is_never_without_an_accepted_credential(
        steps in prop::collection::vec(
            prop_oneof![Just(Step::Issue), (0_usize..8).prop_map(Step::Switch)], 0..60)
    ) {
        let mut device = device(&[Current]);
        let mut held = 0;
        for step in steps {
            match step {
                Step::Issue => {
                    let dropped = device.pending_to_drop();
                    device.set_state(&dropped, Superseded);
                    let id = i64::try_from(device.credentials.len()).unwrap();
                    device.credentials.push(credential(id, Pending));
                }
                Step::Switch(back) => {
                    let pending: Vec<i64> =
                        device.in_state(Pending).map(|one| one.id).collect();
                    let Some(id) = pending.iter().rev().nth(back) else { continue };
                    let Ok(Sighting::Confirmed { credential, superseded }) =
                        judge(&device, presented(*id, *id)) else { panic!("not confirmed") };
                    device.set_state(&superseded, Superseded);
                    device.set_state(&[credential], Current);
                    held = *id;
                }
            }
            prop_assert_eq!(device.in_state(Current).count(), 1);
            prop_assert!(device.in_state(Pending).count() <= PENDING_LIMIT);
            prop_assert_eq!(judge(&device, presented(held, held)), Ok(Sighting::Expected));
        }
    }
}
