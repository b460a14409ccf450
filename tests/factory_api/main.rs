//! The Factory API on the wire: the requests of fioctl and lmp-device-register, as they send them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../support/mod.rs"]
mod support;

mod bad_uploads;
mod certs;
mod devices;
mod life;
mod offline;
mod registration;
mod registration_refused;
mod roles;
mod scripts;
