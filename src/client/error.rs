//! What can go wrong between a client and a server.

use std::error::Error;
use std::io;

use rustls::AlertDescription;

use crate::pki::Malformed;

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is none that can be used.
    #[error("{url:?} is not a usable URL: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A certificate or key cannot be used for TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The server cannot be reached, or ended the connection.
    #[error("cannot talk to {host}: {source}")]
    Connection {
        /// Host and port.
        host: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The server's certificate is not trusted.
    #[error("the certificate of {host} is not trusted: {reason}")]
    Untrusted {
        /// Host and port.
        host: String,
        /// Why not.
        reason: rustls::Error,
    },
    /// This host has no roots to trust.
    #[error(
        "this host trusts no certificate authority: install ca-certificates, or name a file of \
         roots by SSL_CERT_FILE"
    )]
    NoRoots,
    /// The exchange broke off. On TLS 1.3 this is how a refused client certificate looks.
    #[error("the exchange with the server broke off: {0}")]
    Exchange(#[from] hyper::Error),
    /// A server behind this one cannot be reached, or ended the exchange.
    #[error("the server behind this one: {}", causes(.0))]
    Upstream(#[from] hyper_util::client::legacy::Error),
    /// The answer is larger than any that makes sense.
    #[error("the answer is larger than {0} bytes")]
    AnswerTooLarge(usize),
    /// The server took too long.
    #[error("the server did not answer in time")]
    Timeout,
    /// The server said no.
    #[error("the server answered {status}: {reason}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The body.
        reason: String,
        /// When to try again, in seconds, if it says so.
        retry_after: Option<u64>,
    },
    /// The server wants an operator's approval first (RFC 7030 §4.2.3, status 202).
    #[error("the request waits for an operator's approval")]
    Waiting {
        /// When to ask again, in seconds, if it says so.
        retry_after: Option<u64>,
    },
    /// The server said something else than it should.
    #[error("the answer is {0}")]
    Answer(#[from] Malformed),
    /// The server answered something else than when to renew.
    #[error("the answer is no renewal-info: {0}")]
    NotRenewalInfo(String),
    /// The server sent no certificate, or certificates for other keys.
    #[error("there is no certificate for the key of the request in the answer")]
    NoCertificate,
}

impl ClientError {
    /// In how many seconds the server wants to be asked again, if it says so.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Status { retry_after, .. } | Self::Waiting { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// Whether the server has looked at who asks and said no: by status, or by the alert that ends
    /// the handshake, which anybody on the way can forge. After anything else the same may succeed
    /// later.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 401 | 403),
            _ => alert(self).is_some_and(is_about_the_certificate),
        }
    }
}

/// What went wrong with everything that led to it.
fn causes(why: &dyn Error) -> String {
    let source = why.source().map(|source| format!(": {}", causes(source)));
    format!("{why}{}", source.unwrap_or_default())
}

/// The TLS alert that ended the exchange, wherever it is among the causes.
fn alert(why: &ClientError) -> Option<AlertDescription> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(why);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let found = inner.or_else(|| error.downcast_ref());
        if let Some(rustls::Error::AlertReceived(alert)) = found {
            return Some(*alert);
        }
        cause = error.source();
    }
    None
}

fn is_about_the_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}
