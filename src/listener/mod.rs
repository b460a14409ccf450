//! Sockets, TLS, and who is the peer: `TcpStream -> Session`, then one HTTP connection served.
//!
//! Only this module sees rustls.

mod accept;
mod http;
mod session;
mod trust;
mod verifier;

pub use accept::{PlainListener, TlsListener, TrustHandle};
pub use http::HttpBody;
pub use session::Session;
pub use trust::TlsTrust;
