//! The device gateway, as the real fioconfig agent speaks to it.

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

mod agent;
mod bad_input;
mod envoy;
mod failures;
mod files;
mod forwarding;
mod nginx;
mod rotation;
mod storm;
