//! Setting up a Factory: its root, its server certificates and its Device CAs.

mod authority;
mod development;
mod device_cas;
mod export;
mod install;
mod requests;
mod revocation_lists;
mod upload;

pub use authority::{Authority, AuthorityError};
pub use development::{InitError, init};
pub use device_cas::{Asked, act, readmit};
pub use export::{Export, bundle};
pub use install::{InstallError, InstallFailure, Installed, Installing, install};
pub use requests::{PendingRequest, RequestError, RequestedKey, pending_requests, request_keys};
pub use revocation_lists::{RevocationListError, RevocationLists};
pub use upload::{Field, FieldRefused, Upload, UploadFailure, upload};
