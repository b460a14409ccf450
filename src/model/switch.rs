//! What the audit log says of a device that takes another certificate into use: written by the
//! transaction that sees it, read again for those who are told of it.

use std::fmt;

use crate::pki::Fingerprint;

/// A device's switch from one certificate to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The certificate that is in use now.
    pub new: Fingerprint,
    /// The one that was in use before, if there was one.
    pub old: Option<Fingerprint>,
}

const BEFORE_NEW: &str = "certificate ";
const AFTER_NEW: &str = " in use";
const BEFORE_OLD: &str = ", in place of ";

impl Switch {
    /// Reads what [`Display`](fmt::Display) writes; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (new, rest) = text.strip_prefix(BEFORE_NEW)?.split_once(AFTER_NEW)?;
        let new = Fingerprint::from_hex(new)?;
        let old = match rest {
            "" => None,
            rest => Some(Fingerprint::from_hex(rest.strip_prefix(BEFORE_OLD)?)?),
        };
        Some(Self { new, old })
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BEFORE_NEW}{}{AFTER_NEW}", self.new)?;
        self.old.map_or(Ok(()), |old| write!(f, "{BEFORE_OLD}{old}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_read_as_it_is_written_and_nothing_else_is() {
        let (new, old) = (Fingerprint::of(b"new"), Fingerprint::of(b"old"));
        for switch in [Switch { new, old: Some(old) }, Switch { new, old: None }] {
            assert_eq!(Switch::parse(&switch.to_string()), Some(switch));
        }
        let whole = Switch { new, old: Some(old) }.to_string();
        assert_eq!(whole, format!("certificate {new} in use, in place of {old}"));
        for end in 0..whole.len() {
            let text = whole.get(..end).unwrap();
            let without_old = format!("certificate {new} in use");
            assert!(text == without_old || Switch::parse(text).is_none(), "{text}");
        }
        assert_eq!(Switch::parse(&format!("{whole} ")), None);
    }
}
