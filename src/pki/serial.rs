//! Certificate serial numbers: read as they come, made as rule I12 says.

use std::fmt;

use aws_lc_rs::rand::SecureRandom;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use der::{AnyRef, Decode, Encode, Tag, Tagged};

use super::Malformed;

/// How many values a limb of nine decimal digits has.
const LIMB: u64 = 1_000_000_000;

/// A serial number, as the contents of its DER INTEGER. Real CAs make 21 of those bytes, or
/// negative ones; they are taken as they are. Two serials are equal when their values are: sign
/// bytes that DER does not want are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// A serial number read from a certificate or the ledger: the contents of its INTEGER.
    pub fn from_contents(contents: &[u8]) -> Self {
        let is_redundant = |pair: &&[u8]| match pair {
            [0, next] => *next < 0x80,
            [0xff, next] => *next >= 0x80,
            _ => false,
        };
        let redundant = contents.windows(2).take_while(is_redundant).count();
        match contents.get(redundant..) {
            None | Some([]) => Self(vec![0]),
            Some(minimal) => Self(minimal.to_vec()),
        }
    }

    /// A new one: 128 random bits, positive (I12).
    ///
    /// # Errors
    /// When the random source fails.
    pub fn random(source: &dyn SecureRandom) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bits = [0_u8; 16];
        source.fill(&mut bits)?;
        Ok(Self::positive(&bits))
    }

    fn positive(magnitude: &[u8]) -> Self {
        match Self::unsigned(magnitude) {
            zero if zero.0 == [0] => Self(vec![1]), // zero is not positive
            positive => positive,
        }
    }

    fn unsigned(magnitude: &[u8]) -> Self {
        Self::from_contents(&[&[0], magnitude].concat())
    }

    /// A serial number as a person types it: hex like [`Self`] prints it, in either case, with any
    /// number of leading zeros, with or without a colon after every second digit. Never decimal: a
    /// decimal number reads as hex too, and would be another one. `None` if it is no hex.
    pub fn from_hex(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(magnitude) => (true, magnitude),
            None => (false, text),
        };
        let is_pair = |digits: &str| digits.len() == 2;
        if text.is_empty() || (text.contains(':') && !text.split(':').all(is_pair)) {
            return None;
        }
        let mut digits = text.replace(':', "");
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        let serial = Self::unsigned(&HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?);
        Some(if is_negative { Self::from_contents(&negated(&serial.0)) } else { serial })
    }

    /// The number in decimal, as fioctl writes it.
    pub fn to_decimal(&self) -> String {
        // Least significant limb first, in base 10^9.
        let mut limbs = Vec::<u32>::new();
        for byte in self.magnitude() {
            let mut carry = u64::from(byte);
            for limb in &mut limbs {
                let value = u64::from(*limb) * 256 + carry;
                *limb = u32::try_from(value % LIMB).unwrap_or_default();
                carry = value / LIMB;
            }
            if carry > 0 {
                limbs.push(u32::try_from(carry).unwrap_or_default());
            }
        }
        let digits: Vec<String> = limbs.iter().rev().map(|limb| format!("{limb:09}")).collect();
        match digits.concat().trim_start_matches('0') {
            "" => "0".to_owned(),
            digits if self.is_negative() => format!("-{digits}"),
            digits => digits.to_owned(),
        }
    }

    /// The contents of the DER INTEGER.
    pub fn contents(&self) -> &[u8] {
        &self.0
    }

    fn is_negative(&self) -> bool {
        self.0.first().is_some_and(|byte| *byte >= 0x80)
    }

    /// The bytes of the number without its sign; at least one.
    fn magnitude(&self) -> Vec<u8> {
        let mut magnitude = if self.is_negative() { negated(&self.0) } else { self.0.clone() };
        if magnitude.len() > 1 && magnitude.first() == Some(&0) {
            magnitude.remove(0);
        }
        magnitude
    }

    /// Reads a whole DER INTEGER.
    pub(super) fn from_der(der: &[u8]) -> der::Result<Self> {
        let integer = AnyRef::from_der(der)?;
        integer.tag().assert_eq(Tag::Integer)?;
        Ok(Self::from_contents(integer.value()))
    }

    /// The whole DER INTEGER.
    pub(super) fn to_der(&self) -> Result<Vec<u8>, Malformed> {
        AnyRef::new(Tag::Integer, &self.0)
            .and_then(|integer| integer.to_der())
            .map_err(|why| Malformed::new("serial number", why))
    }
}

/// The two's complement.
fn negated(number: &[u8]) -> Vec<u8> {
    let mut negated: Vec<u8> = number.iter().map(|byte| !byte).collect();
    for byte in negated.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    negated
}

/// Lower-case hex, a minus before a negative one, without a leading zero byte: as openssl prints it.
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative() { "-" } else { "" };
        write!(f, "{sign}{}", HEXLOWER.encode(&self.magnitude()))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;

    use proptest::prelude::*;

    use super::Serial;

    #[test]
    fn i12_serials_are_positive_and_distinct() {
        let source = SystemRandom::new();
        let made: std::collections::HashSet<_> =
            (0..1000).map(|_| Serial::random(&source).unwrap()).collect();
        assert_eq!(made.len(), 1000);
        for serial in &made {
            assert!(serial.contents()[0] < 0x80, "{serial} is negative");
            assert!(serial.contents().len() <= 17);
        }
    }

    #[test]
    fn i12_leading_zeros_are_minimal() {
        assert_eq!(Serial::positive(&[0, 0, 5]).contents(), [5]);
        assert_eq!(Serial::positive(&[0, 0x80]).contents(), [0, 0x80]);
        assert_eq!(Serial::positive(&[0, 0]).contents(), [1]);
    }

    #[test]
    fn serials_are_equal_when_their_values_are() {
        let serial = Serial::from_contents;
        assert_eq!(serial(&[0, 0, 5]), serial(&[5]));
        assert_eq!(serial(&[0, 0, 0x80]), serial(&[0, 0x80]));
        assert_eq!(serial(&[0xff, 0xff, 0x7f]), serial(&[0xff, 0x7f]));
        assert_eq!(serial(&[]), serial(&[0, 0]));
        assert_ne!(serial(&[0x80]), serial(&[0, 0x80]));
    }

    #[test]
    fn serial_of_21_bytes_prints_in_hex_and_decimal() {
        let serial = Serial::from_contents(&[&[0][..], &[0xff; 20]].concat());
        assert_eq!(serial.to_string(), "ff".repeat(20));
        assert_eq!(serial.to_decimal(), "1461501637330902918203684832716283019655932542975");
    }

    #[test]
    fn serial_that_is_negative_prints_with_its_sign() {
        for (contents, hex) in [(&[0xff][..], "-01"), (&[0x80], "-80"), (&[0xff, 0x01], "-ff")] {
            assert_eq!(Serial::from_contents(contents).to_string(), hex);
        }
    }

    #[test]
    fn serial_is_read_as_a_person_types_it() {
        let cases: &[(&str, Option<&[u8]>)] = &[
            ("5", Some(&[5])),
            ("0005", Some(&[5])),
            ("00", Some(&[0])),
            ("c3", Some(&[0, 0xc3])),
            ("C3:0a:FF", Some(&[0, 0xc3, 0x0a, 0xff])),
            ("00:c3", Some(&[0, 0xc3])),
            ("-80", Some(&[0x80])),
            ("12", Some(&[0x12])),
            ("", None),
            ("-", None),
            (":", None),
            ("1:2", None),
            ("c3:", None),
            ("c3 0a", None),
            ("0xc3", None),
            ("--5", None),
            ("grün", None),
        ];
        for (text, contents) in cases {
            assert_eq!(Serial::from_hex(text), contents.map(Serial::from_contents), "{text}");
        }
    }

    proptest! {
        #[test]
        fn serial_is_read_as_it_prints(contents in prop::collection::vec(any::<u8>(), 0..30)) {
            let serial = Serial::from_contents(&contents);
            prop_assert_eq!(Serial::from_hex(&serial.to_string()), Some(serial));
        }

        #[test]
        fn serial_in_decimal_is_its_value(number in any::<i128>(), shift in 0..128_u32) {
            let number: i128 = number >> shift;
            let serial = Serial::from_contents(&number.to_be_bytes());
            prop_assert_eq!(serial.to_decimal(), number.to_string());
        }
    }
}
