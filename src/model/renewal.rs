//! When a device should renew its certificate (draft-ietf-lamps-est-renewal-info).

use crate::clock::UnixTime;
use crate::pki::{Certificate, Fingerprint};

/// From when until when a device should renew; `end` is later than `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalWindow {
    /// The first moment.
    pub start: UnixTime,
    /// The last.
    pub end: UnixTime,
}

impl RenewalWindow {
    /// The window of a certificate: a twentieth of its lifetime, about two thirds into it. Where in
    /// the tenth around that it begins is the certificate's own, so that a fleet that was made on one
    /// day does not come back on one day.
    pub fn of(certificate: &Certificate) -> Self {
        let validity = certificate.validity();
        let life = validity.not_after.0.saturating_sub(validity.not_before.0).max(MINUTE);
        let two_thirds = life / 3 * 2;
        let offset = share(certificate.fingerprint(), life / 10) - life / 20;
        let start = validity.not_before.plus(two_thirds).plus(offset);
        Self { start, end: start.plus((life / 20).max(1)) }
    }

    /// The earlier of both, at either end: a rotation brings a renewal forward, and never pushes it
    /// back to where the certificate has ended.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.min(other.end) }
    }
}

const MINUTE: i64 = 60;

/// A number below `whole` that is always the same for one certificate.
fn share(fingerprint: Fingerprint, whole: i64) -> i64 {
    let bytes = fingerprint.as_bytes().iter().take(4);
    let number = bytes.fold(0_i128, |number, byte| number * 256 + i128::from(*byte));
    i64::try_from(number * i128::from(whole) / (1 << 32)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;

    use super::*;
    use crate::factory::Authority;
    use crate::keys::SigningKey;
    use crate::model::{DeviceName, FactoryName};

    #[test]
    fn windows_are_about_two_thirds_in_and_spread() {
        let (random, now) = (SystemRandom::new(), UnixTime(1_800_000_000));
        let factory = FactoryName::parse("factory").unwrap();
        let root = Authority::root(&factory, now, &random).unwrap();
        let key = SigningKey::generate(&random).unwrap();
        let mut starts = Vec::new();
        for number in 0..200 {
            let device = DeviceName::parse(&format!("device-{number}")).unwrap();
            let key = key.public_key();
            let certificate = root.certify_device(&factory, &device, key, now, &random).unwrap();
            let window = RenewalWindow::of(&certificate);
            assert_eq!(RenewalWindow::of(&certificate), window, "always the same");
            let validity = certificate.validity();
            let life = validity.not_after.0 - validity.not_before.0;
            let part = (window.start.0 - validity.not_before.0) * 1000 / life;
            assert!((616..=717).contains(&part), "{part}");
            assert!(window.start < window.end && window.end < validity.not_after);
            starts.push(part);
        }
        starts.sort_unstable();
        assert!(starts[10] < 630 && starts[190] > 700, "{starts:?}");
    }

    #[test]
    fn the_earlier_of_two_windows_is_no_later_than_either() {
        let window = |start, end| RenewalWindow { start: UnixTime(start), end: UnixTime(end) };
        let own = window(100, 200);
        for (slot, expected) in [
            (window(50, 60), window(50, 60)),
            (window(150, 160), window(100, 160)),
            (window(300, 360), own),
        ] {
            assert_eq!(own.earlier(slot), expected);
            assert_eq!(slot.earlier(own), expected);
        }
    }
}
