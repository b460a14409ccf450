//! Everything that says no. A refusal has one stable code, which stands in the reply, the log, the
//! metric, the audit row and `docs/refusals.md`.

use super::KeyKind;
use crate::pki::Fingerprint;

/// When to ask again whoever is busy now (H-06).
const BUSY_SECONDS: u32 = 30;

/// What kind of no it is; the wire has one status for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request is not what it should be.
    Malformed,
    /// Nobody said who asks.
    Unauthenticated,
    /// Who asks may not have that.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already.
    Conflict,
    /// There is such a thing, used in another way.
    WrongMethod,
    /// It took too long to arrive.
    TooSlow,
    /// It is too large.
    TooLarge,
    /// It is of another media type.
    WrongType,
    /// It is known and not offered.
    NotOffered,
    /// A server behind this one cannot be reached.
    BadGateway,
    /// A server behind this one does not answer in time.
    GatewayTimeout,
    /// It came too often: try again later.
    TooMany,
    /// Not now: try again.
    Unavailable,
}

impl Class {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::WrongMethod => 405,
            Self::TooSlow => 408,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::WrongType => 415,
            Self::TooMany => 429,
            Self::NotOffered => 501,
            Self::BadGateway => 502,
            Self::GatewayTimeout => 504,
            Self::Unavailable => 503,
        }
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $class:ident $code:literal $name:ident $(($detail:ty))? : $text:literal;)*) => {
        /// A refusal, with what the asker should know about it.
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $name $(($detail))?,)*
        }

        impl Refusal {
            /// Every code with its class.
            pub const ALL: &[(&'static str, Class)] = &[$(($code, Class::$class)),*];

            /// The stable code.
            pub fn code(&self) -> &'static str {
                match self { $(refusals!(@pattern $name $($detail)?) => $code,)* }
            }

            /// What kind of no it is.
            pub fn class(&self) -> Class {
                match self { $(refusals!(@pattern $name $($detail)?) => Class::$class,)* }
            }
        }
    };
    (@pattern $name:ident $detail:ty) => { Refusal::$name(_) };
    (@pattern $name:ident) => { Refusal::$name };
}

refusals! {
    /// No Factory answers to the host name.
    NotFound "factory-unknown" FactoryUnknown: "no Factory is served under this host name";
    /// No such path.
    NotFound "path-unknown" PathUnknown: "there is nothing at this path";
    /// The id of a certificate in a path is none.
    Malformed "renewal-id-malformed" RenewalIdMalformed:
        "the path must end in the base64url, without padding, of the authority key identifier, a dot, \
         and that of the serial number";
    /// No accepted certificate has that id.
    NotFound "certificate-unknown" CertificateUnknown:
        "no certificate that is accepted here has this authority key identifier and serial number";
    /// No such EST label.
    NotFound "label-unknown" LabelUnknown: "no enrolment profile has this label";
    /// An EST operation that this server does not have.
    NotOffered "operation-not-offered" OperationNotOffered: "this EST operation is not offered";
    /// Wrong HTTP method; the one that works.
    WrongMethod "method-not-allowed" MethodNotAllowed(&'static str): "this operation takes {0}";
    /// A TLS client certificate is needed.
    Unauthenticated "client-certificate-required" ClientCertificateRequired:
        "this operation needs a TLS client certificate of a Device CA";
    /// Wrong media type.
    WrongType "content-type" ContentType: "the body must be of type application/pkcs10";
    /// Not JSON where JSON is wanted.
    WrongType "json-wanted" NotJson: "the body must be of type application/json";
    /// An enrollment status that is none.
    Malformed "status-malformed" StatusMalformed(String):
        "the body is no enrollment status telemetry (RFC 8995 §5.9.4): {0}";
    /// What a device told the gateway cannot be read.
    Malformed "gateway-body" GatewayBody(String): "the body is not what the gateway takes: {0}";
    /// A device announced a key that was never issued to it.
    Conflict "next-key-unknown" NextKeyUnknown(Fingerprint):
        "no certificate was issued to this device for the public key {0}";
    /// A device sends its files back without having announced a key.
    Conflict "no-next-key" NoNextKey: "the device has announced no next key: PATCH /device comes first";
    /// More than 64 KiB, or 256 for the device gateway.
    TooLarge "body-too-large" BodyTooLarge(usize): "the body is larger than {0} bytes";
    /// A device tells too much at once; it may tell the same in several requests.
    TooLarge "too-many-events" TooManyEvents(usize): "more than {0} events in one request";
    /// The body did not arrive in time.
    TooSlow "body-too-slow" BodyTooSlow: "the body did not arrive in time";
    /// The connection broke within the body.
    Malformed "body-broken" BodyBroken: "the body ended before it was complete";
    /// Not base64, or not PKCS#10.
    Malformed "csr-malformed" CsrMalformed(String): "the body is {0}";
    /// The proof of possession fails.
    Malformed "csr-signature" CsrSignature: "the signature of the request does not verify";
    /// The proof of possession is made in a way that is not accepted.
    Malformed "csr-signature-algorithm" CsrSignatureAlgorithm:
        "the signature algorithm of the request is not accepted for its key";
    /// A weak or unknown key.
    Malformed "key-not-allowed" KeyNotAllowed(KeyRefusal): "{0}";
    /// CA:TRUE was asked for.
    Malformed "ca-requested" CaRequested: "the request asks for a CA certificate";
    /// A key usage outside the profile.
    Malformed "key-usage-not-allowed" KeyUsageNotAllowed:
        "the key usage asked for must include digitalSignature and at most nonRepudiation, \
         keyEncipherment and keyAgreement beside it";
    /// A purpose outside the profile.
    Malformed "extended-key-usage-not-allowed" ExtendedKeyUsageNotAllowed:
        "the only extended key usage that can be asked for is clientAuth";
    /// challengePassword is missing where the profile demands it.
    Malformed "challenge-password-missing" ChallengePasswordMissing:
        "the request must carry the base64 of the TLS session's tls-exporter as challengePassword";
    /// challengePassword is not that of the TLS session.
    Forbidden "challenge-password-wrong" ChallengePasswordWrong:
        "the challengePassword of the request is not the tls-exporter of this TLS session";
    /// challengePassword below TLS 1.3.
    Forbidden "channel-binding-unavailable" ChannelBindingUnavailable:
        "a challengePassword can only be verified on TLS 1.3";
    /// RFC 6402's ChangeSubjectName.
    Forbidden "subject-change-requested" SubjectChangeRequested:
        "the request asks for another subject, which is not granted";
    /// Another subject than that of the client certificate.
    Forbidden "subject-mismatch" SubjectMismatch:
        "the subject of the request is not byte for byte that of the client certificate";
    /// Another SubjectAltName than that of the client certificate.
    Forbidden "san-mismatch" SanMismatch:
        "the SubjectAltName of the request is not that of the client certificate";
    /// The OU of the subject is not the Factory.
    Forbidden "ou-mismatch" OuMismatch:
        "the organizational unit of the subject is not the name of the Factory";
    /// The subject names no device.
    Forbidden "identity-malformed" IdentityMalformed:
        "the subject has no single common name that could be a device's name";
    /// A registration authority renews itself with another key.
    Forbidden "authority-rekeyed" AuthorityRekeyed:
        "a registration authority is appointed by its key and renews itself with that";
    /// An operator said no.
    Forbidden "request-rejected" RequestRejected: "an operator rejected this request";
    /// The certificate is of no Device CA.
    Forbidden "certificate-untrusted" CertificateUntrusted:
        "the client certificate was issued by no Device CA of this server";
    /// The certificate has expired.
    Forbidden "certificate-expired" CertificateExpired: "the client certificate has expired";
    /// The certificate is not valid yet.
    Forbidden "certificate-not-yet-valid" CertificateNotYetValid:
        "the client certificate is not valid yet";
    /// The certificate cannot be used for TLS client authentication.
    Forbidden "certificate-unusable" CertificateUnusable(String):
        "the client certificate cannot be used: {0}";
    /// The Device CA of the certificate is revoked.
    Forbidden "ca-revoked" CaRevoked: "the Device CA of the client certificate is revoked";
    /// A disabled Device CA registers nobody (I5).
    Forbidden "ca-disabled-unregistered" CaDisabledUnregistered:
        "the device is unknown and the Device CA of its certificate is disabled";
    /// Another certificate in a known device's name (I6).
    Forbidden "credential-unknown" CredentialUnknown:
        "the device is known and neither this certificate nor its key is its own";
    /// A replaced certificate came back (I7).
    Forbidden "credential-superseded" CredentialSuperseded:
        "the certificate was replaced by one that the device has used since";
    /// A bootstrap certificate is good for a first enrolment.
    Forbidden "bootstrap-only-enrols" BootstrapOnlyEnrols:
        "a certificate of a bootstrap CA is good for simpleenroll only";
    /// A bootstrap certificate in the name of a device that has a certificate in use.
    Forbidden "bootstrap-repeated" BootstrapRepeated:
        "the device has enrolled before and uses the certificate that it was given";
    /// An operator denied the device; a registration authority asks for it.
    Forbidden "device-denied" DeviceDenied: "an operator has denied this device";
    /// An operator forbade the certificate.
    Forbidden "credential-denied" CredentialDenied: "the certificate is denied";
    /// The request is for another device than the registration.
    Malformed "uuid-mismatch" UuidMismatch:
        "the common name of the request's subject is not the uuid of the registration";
    /// The device is registered already, and not denied.
    Conflict "device-known" DeviceKnown: "a device with this uuid is registered already";
    /// Another device of the Factory has the name for people.
    Conflict "name-taken" NameTaken: "another device of this Factory has this name";
    /// The device asks again and again and uses nothing of what it gets (I11).
    ///
    /// With the seconds until it gets another.
    TooMany "retried-too-often" RetriedTooOften(u32):
        "the device uses none of the certificates that it was given last: it gets another later, or once \
         it uses one of them";
    /// The server behind the gateway is away.
    BadGateway "upstream-unreachable" UpstreamUnreachable:
        "the server behind this gateway cannot be reached";
    /// The server behind the gateway does not answer.
    GatewayTimeout "upstream-slow" UpstreamSlow:
        "the server behind this gateway did not answer in time";
    /// No enabled online Device CA.
    Unavailable "no-issuing-ca" NoIssuingCa: "no Device CA is enabled for issuing";
    /// The Device CA was disabled while the request was under way (I2).
    Unavailable "issuing-ca-disabled" IssuingCaDisabled:
        "the Device CA was disabled while the request was under way";
    /// The signer does not answer.
    Unavailable "signer-unavailable" SignerUnavailable: "the Device CA's key cannot be used now";
    /// The ledger does not answer; nothing is issued without it (I1).
    Unavailable "ledger-unavailable" LedgerUnavailable: "the ledger cannot record anything now";
    /// Too much at once (I11).
    Unavailable "busy" Busy: "the server is busy";
}

impl Refusal {
    /// Whether it says that nothing could be recorded, and so nothing was decided.
    pub fn is_unrecorded(&self) -> bool {
        matches!(self, Self::Busy | Self::LedgerUnavailable)
    }

    /// Whether somebody may be impersonating a device (I6, I7).
    pub fn is_alarm(&self) -> bool {
        matches!(
            self,
            Self::CredentialUnknown
                | Self::CredentialSuperseded
                | Self::BootstrapRepeated
                | Self::NextKeyUnknown(_)
        )
    }

    /// After how many seconds it is worth asking again, where waiting helps.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::RetriedTooOften(seconds) => Some(*seconds),
            _ => (self.class() == Class::Unavailable).then_some(BUSY_SECONDS),
        }
    }
}

/// Which key was refused and which would not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRefusal {
    /// What the request brought.
    pub found: String,
    /// What the profile takes.
    pub allowed: Vec<KeyKind>,
}

impl std::fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let allowed: Vec<String> = self.allowed.iter().map(ToString::to_string).collect();
        write!(f, "{} is not allowed here; allowed: {}", self.found, allowed.join(", "))
    }
}
