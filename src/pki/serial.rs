//! Certificate serial numbers: read as they come, made as rule I12 says.

use std::fmt;

use aws_lc_rs::rand::SecureRandom;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use der::{AnyRef, Encode, Tag};

use super::Malformed;

/// A serial number, as the contents of its DER INTEGER. Real CAs make 21 of those bytes, or
/// negative ones; they are read as they stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// A serial number read from a certificate or the ledger: the contents of its INTEGER.
    pub fn from_contents(contents: &[u8]) -> Self {
        Self(contents.to_vec())
    }

    /// A serial number as people write it: hex in either case, with or without colons. `None` if
    /// it is none.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut digits: String = text.chars().filter(|c| *c != ':').collect();
        if digits.is_empty() || digits.len() > 64 {
            return None;
        }
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok().map(|bytes| Self::positive(&bytes))
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
        let significant = magnitude.iter().position(|byte| *byte != 0).unwrap_or(magnitude.len());
        let digits = magnitude.get(significant..).unwrap_or_default();
        match digits.first() {
            None => Self(vec![1]), // zero is not positive
            Some(first) if *first >= 0x80 => Self([&[0], digits].concat()),
            Some(_) => Self(digits.to_vec()),
        }
    }

    /// The contents of the DER INTEGER.
    pub fn contents(&self) -> &[u8] {
        &self.0
    }

    /// The whole DER INTEGER.
    pub(super) fn to_der(&self) -> Result<Vec<u8>, Malformed> {
        AnyRef::new(Tag::Integer, &self.0)
            .and_then(|integer| integer.to_der())
            .map_err(|why| Malformed::new("serial number", why))
    }
}

/// Lower-case hex without a leading zero byte, as openssl prints it.
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.0.as_slice() {
            [0, rest @ ..] if !rest.is_empty() => rest,
            all => all,
        };
        f.write_str(&HEXLOWER.encode(digits))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;

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
}
