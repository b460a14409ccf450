//! The command line: the real program as a child process, its files, its output, its exit codes.

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

mod api;
mod audit;
mod bootstrap;
mod client;
mod configuration;
mod demo;
mod document;
mod export;
mod host;
mod install_refused;
mod inventory;
mod key_encryption;
mod logs;
mod offline_root;
mod openapi;
mod operator;
mod phase_out;
mod pkcs11;
mod process;
mod receiver;
mod renew;
mod rotation;
mod running;
mod set_up;
mod sightings;
mod token;
mod upstream;
mod webhook;
