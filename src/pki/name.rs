//! Distinguished names, kept as the DER that they came in.

use std::fmt;

use const_oid::db::rfc4519::{CN, OU};
use der::asn1::{ObjectIdentifier, Utf8StringRef};
use der::{Any, Decode, Encode, Tag, Tagged};

use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

use super::Malformed;
use super::syntax::constructed;

const WHAT: &str = "distinguished name";

/// A distinguished name. Two names are equal when their bytes are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name {
    der: Vec<u8>,
}

impl Name {
    /// Reads a DER `Name`.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_der(der: &[u8]) -> Result<Self, Malformed> {
        RdnSequence::from_der(der).map_err(|why| Malformed::new(WHAT, why))?;
        Ok(Self { der: der.to_vec() })
    }

    /// The original bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The common name, if there is exactly one.
    pub fn common_name(&self) -> Option<String> {
        let mut names = self.values(CN);
        if names.len() == 1 { names.pop() } else { None }
    }

    /// Every organizational unit, in the order of the name.
    pub fn organizational_units(&self) -> Vec<String> {
        self.values(OU)
    }

    /// Whether the name has no attribute at all.
    pub fn is_empty(&self) -> bool {
        self.parsed().is_empty()
    }

    fn values(&self, wanted: ObjectIdentifier) -> Vec<String> {
        let parsed = self.parsed();
        let attributes = parsed
            .iter()
            .flat_map(RelativeDistinguishedName::iter)
            .filter(|attribute| attribute.oid == wanted);
        attributes.filter_map(|attribute| directory_string(&attribute.value)).collect()
    }

    fn parsed(&self) -> RdnSequence {
        // It was read once before.
        RdnSequence::from_der(&self.der).unwrap_or_default()
    }
}

/// RFC 4514 text, control characters escaped: names come from strangers and end on terminals.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parsed().to_string().chars().try_for_each(|character| {
            if character.is_control() {
                write!(f, "{}", character.escape_default())
            } else {
                write!(f, "{character}")
            }
        })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// The text of a `DirectoryString` (RFC 5280 §4.1.2.4) or IA5String; `None` for anything else.
fn directory_string(value: &Any) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            String::from_utf8(value.value().to_vec()).ok()
        }
        // T.61 in the standard, Latin-1 in every certificate that was ever seen.
        Tag::TeletexString => Some(value.value().iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let units = value.value().chunks_exact(2).map(|pair| match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                _ => 0,
            });
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// Makes names for what this program creates itself: one attribute per RDN, as UTF8String.
#[derive(Default)]
pub struct NameBuilder(Vec<(ObjectIdentifier, String)>);

impl NameBuilder {
    /// Appends a common name.
    #[must_use]
    pub fn common_name(mut self, value: &str) -> Self {
        self.0.push((CN, value.to_owned()));
        self
    }

    /// Appends an organizational unit.
    #[must_use]
    pub fn organizational_unit(mut self, value: &str) -> Self {
        self.0.push((OU, value.to_owned()));
        self
    }

    /// The name.
    ///
    /// # Errors
    /// When an attribute is too long for DER.
    pub fn build(self) -> Result<Name, Malformed> {
        let encode = || {
            let mut names = Vec::new();
            for (id, value) in &self.0 {
                let value = Utf8StringRef::new(value)?.to_der()?;
                let attribute = constructed(Tag::Sequence, &[&id.to_der()?, &value])?;
                names.extend(constructed(Tag::Set, &[&attribute])?);
            }
            constructed(Tag::Sequence, &[&names])
        };
        Name::from_der(&encode().map_err(|why: der::Error| Malformed::new(WHAT, why))?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, NameBuilder};

    #[test]
    fn name_keeps_its_bytes_and_tells_its_parts() {
        let name = NameBuilder::default()
            .organizational_unit("factory")
            .common_name("device-1")
            .build()
            .unwrap();
        assert_eq!(name.common_name().as_deref(), Some("device-1"));
        assert_eq!(name.organizational_units(), ["factory"]);
        assert_eq!(Name::from_der(name.der()).unwrap(), name);
    }

    #[test]
    fn name_with_two_common_names_has_none() {
        let name = NameBuilder::default().common_name("a").common_name("b").build().unwrap();
        assert_eq!(name.common_name(), None);
    }

    #[test]
    fn name_with_an_escape_sequence_prints_without_it() {
        let name = NameBuilder::default().common_name("a\u{1b}[31mb").build().unwrap();
        assert!(!name.to_string().contains('\u{1b}'), "{name}");
    }
}
