//! What goes out: an EST client (RFC 7030), for devices, tests and the demo, the posting of JSON to
//! whoever wants to be told, and what is passed on to a server behind this one. It knows nothing of the server.

mod connection;
mod endpoint;
mod error;
mod http;
mod posting;
mod renewal;
mod renewal_info;
mod trust;
mod upstream;

pub use connection::{Connection, EstClient, Identity};
pub use endpoint::Endpoint;
pub use error::ClientError;
pub use http::{Answer, HttpConnection, exchange, open_plain};
pub use posting::Poster;
pub use renewal::{Draw, Window, back_off, in_time, poll_again};
pub use renewal_info::RenewalInfo;
pub use trust::{HostRoots, public_key};
pub use upstream::Upstream;
