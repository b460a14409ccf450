//! DER as text: the base64 of EST bodies (RFC 8951 §3) and PEM (RFC 7468).

use std::sync::LazyLock;

use data_encoding::{BASE64, Encoding, Specification};
use der::pem::LineEnding;

use super::Malformed;

const LINE_LENGTH: usize = 76;

/// Standard base64 in which CR, LF, space and TAB may stand anywhere (RFC 8951 §3.1).
static TOLERANT: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification: Specification = BASE64.specification();
    "\r\n\t ".clone_into(&mut specification.ignore);
    specification.encoding().unwrap_or(BASE64)
});

/// Reads an EST body: base64 of DER, wrapped or not, with or without PEM armour.
///
/// # Errors
/// When it is not base64.
pub fn from_est_text(body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let is_armour = |line: &[u8]| line.trim_ascii_start().starts_with(b"-----");
    let unarmoured: Vec<u8>;
    let base64 = if body.contains(&b'-') {
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !is_armour(line));
        unarmoured = lines.flatten().copied().collect();
        unarmoured.as_slice()
    } else {
        body
    };
    TOLERANT.decode(base64).map_err(|why| Malformed::new("base64 body", why))
}

/// Writes an EST body: base64 on one line with one trailing LF (strongSwan decodes no line break
/// inside, libest needs one at the end).
pub fn to_est_text(der: &[u8]) -> String {
    let mut text = BASE64.encode(der);
    text.push('\n');
    text
}

/// The same in lines of 76 characters, for clients that read line by line into small buffers.
pub fn to_wrapped_est_text(der: &[u8]) -> String {
    let mut text = String::new();
    for (index, character) in BASE64.encode(der).chars().enumerate() {
        if index > 0 && index % LINE_LENGTH == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push('\n');
    text
}

/// Writes one PEM block, `label` being what stands after `BEGIN`.
///
/// # Errors
/// When the label is none.
pub fn to_pem(label: &'static str, der: &[u8]) -> Result<String, Malformed> {
    der::pem::encode_string(label, LineEnding::LF, der)
        .map_err(|why| Malformed::new("PEM block", why))
}

#[cfg(test)]
mod tests {
    use super::{from_est_text, to_est_text, to_wrapped_est_text};

    #[test]
    fn c_03_white_space_anywhere_is_tolerated() {
        assert_eq!(from_est_text(b" A\r\nQ\tI D\n\n").unwrap(), [1, 2, 3]);
    }

    #[test]
    fn h_07_pem_armour_is_tolerated() {
        let armoured =
            b"-----BEGIN CERTIFICATE REQUEST-----\r\nAQID\r\n-----END CERTIFICATE REQUEST-----\r\n";
        assert_eq!(from_est_text(armoured).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn c_01_what_is_not_base64_is_refused() {
        for body in [&b"not base64!"[..], b"AQI", b"AQID=", &[0x30, 0x82, 0xff], b"AQ-D"] {
            assert!(from_est_text(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn h_11_text_out_is_one_line_and_its_wrapped_form_short_lines() {
        let der = [7; 200];
        let line = to_est_text(&der);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let wrapped = to_wrapped_est_text(&der);
        assert!(wrapped.lines().all(|line| line.len() <= 76));
        assert_eq!(from_est_text(wrapped.as_bytes()).unwrap(), der);
    }
}
