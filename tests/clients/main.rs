//! Foreign EST clients, each a program of its own: curl with openssl, strongSwan's `pki`, and the
//! crate usg-est-client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod curl;
mod fioconfig;
mod strongswan;
mod usg;
mod workbench;
