//! What goes out: an EST client (RFC 7030), for devices, tests and the demo, and the posting of JSON to
//! whoever wants to be told. It knows nothing of the server.

mod connection;
mod endpoint;
mod error;
mod http;
mod posting;
mod renewal;
mod renewal_info;
mod trust;

pub use connection::{Connection, EstClient, Identity};
pub use endpoint::Endpoint;
pub use error::ClientError;
pub use http::{Answer, HttpConnection, exchange, open_plain};
pub use posting::Poster;
pub use renewal::{Draw, Window, back_off, in_time, poll_again};
pub use renewal_info::RenewalInfo;
pub use trust::{HostRoots, public_key};
