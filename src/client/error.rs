//! What can go wrong between a client and a server.

use std::io;

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
    /// The exchange broke off. On TLS 1.3 this is how a refused client certificate looks.
    #[error("the exchange with the server broke off: {0}")]
    Exchange(#[from] hyper::Error),
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
    Waiting,
    /// The server said something else than it should.
    #[error("the answer is {0}")]
    Answer(#[from] Malformed),
    /// The server sent no certificate.
    #[error("there is no certificate in the answer")]
    NoCertificate,
}
