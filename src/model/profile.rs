//! Enrolment profiles: what an EST label selects.

use std::fmt;

use super::NotA;
use crate::pki::KeyAlgorithm;

/// An EST operation (RFC 7030 §3.2.2 and later documents), as it stands in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The CA certificates.
    CaCerts,
    /// A first certificate.
    SimpleEnroll,
    /// A renewed or rekeyed certificate.
    SimpleReenroll,
    /// What a request should contain.
    CsrAttrs,
    /// A certificate for a key made here.
    ServerKeyGen,
    /// Full CMC.
    FullCmc,
    /// The CRLs of the online Device CAs (RFC 8295).
    Crls,
    /// When to renew a certificate (draft-ietf-lamps-est-renewal-info).
    RenewalInfo,
    /// What a device says of its enrolment (RFC 8995 §5.9.4). It has a path of its own.
    EnrollStatus,
    /// A first certificate by the API, on the word of a token. It has no path segment in EST.
    Register,
}

impl Operation {
    const SEGMENTS: [Self; 8] = [
        Self::CaCerts,
        Self::SimpleEnroll,
        Self::SimpleReenroll,
        Self::CsrAttrs,
        Self::ServerKeyGen,
        Self::FullCmc,
        Self::Crls,
        Self::RenewalInfo,
    ];

    /// Its path segment; what it is called in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::SimpleEnroll => "simpleenroll",
            Self::SimpleReenroll => "simplereenroll",
            Self::CsrAttrs => "csrattrs",
            Self::ServerKeyGen => "serverkeygen",
            Self::FullCmc => "fullcmc",
            Self::Crls => "crls",
            Self::RenewalInfo => "renewal-info",
            Self::EnrollStatus => "enrollstatus",
            Self::Register => "register",
        }
    }

    /// The operation of a path segment.
    pub fn from_segment(segment: &str) -> Option<Self> {
        Self::SEGMENTS.into_iter().find(|operation| operation.as_str() == segment)
    }
}

/// The additional path segment of RFC 7030 §3.2.2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label(String);

impl Label {
    /// Reads a label.
    ///
    /// # Errors
    /// Unless it is 1 to 64 unreserved URI characters and not the name of an operation (E-05).
    pub fn parse(text: &str) -> Result<Self, NotA> {
        let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(unreserved) {
            let rule = "1 to 64 letters, digits, '-', '.', '_' and '~'";
            return Err(NotA::new("label", text, rule));
        }
        if Operation::from_segment(text).is_some() {
            return Err(NotA::new("label", text, "an operation has that name"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an enrolment is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerStyle {
    /// 200 and `application/pkcs7-mime; smime-type=certs-only` (RFC 7030 §4.2.3).
    Rfc7030,
    /// 201 and the bare content type, as fioconfig before 2026-02 demands.
    Fioconfig,
}

/// Who says yes to a request that the rules allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// The rules alone.
    Automatic,
    /// An operator; until then the answer is 202 (RFC 7030 §4.2.3).
    Manual,
}

/// A kind of key that requests may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA of 2048 to 4096 bits.
    Rsa,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::P256, Self::P384, Self::Rsa, Self::Ed25519];

    /// Whether a key is of this kind.
    pub fn covers(self, algorithm: &KeyAlgorithm) -> bool {
        match (self, algorithm) {
            (Self::P256, KeyAlgorithm::P256)
            | (Self::P384, KeyAlgorithm::P384)
            | (Self::Ed25519, KeyAlgorithm::Ed25519) => true,
            (Self::Rsa, KeyAlgorithm::Rsa(bits)) => (2048..=4096).contains(bits),
            _ => false,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Rsa => "RSA 2048-4096",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// How requests under a label are judged and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentProfile {
    /// How an issued certificate is handed out.
    pub answer: AnswerStyle,
    /// How long a certificate lives, in seconds, unless its CA ends earlier.
    pub validity_seconds: i64,
    /// Which keys are accepted.
    pub keys: Vec<KeyKind>,
    /// Whether a request must bind itself to its TLS session by a challengePassword (E-21).
    pub require_challenge_password: bool,
    /// Who says yes.
    pub approval: Approval,
}

impl Default for EnrolmentProfile {
    fn default() -> Self {
        Self {
            answer: AnswerStyle::Rfc7030,
            validity_seconds: 365 * 24 * 3600,
            keys: KeyKind::ALL.to_vec(),
            require_challenge_password: false,
            approval: Approval::Automatic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Label;

    #[test]
    fn e_05_a_label_cannot_be_named_like_an_operation() {
        assert!(Label::parse("simpleenroll").is_err());
        assert!(Label::parse("cacerts").is_err());
        assert!(Label::parse("fioconfig").is_ok());
    }
}
