//! `estd`: a self-hosted EST (RFC 7030) certificate rotation server for device fleets.
//!
//! The house has six floors, and a floor uses those below it, never one above:
//!
//! | floor | modules | what |
//! |---|---|---|
//! | 6 programs | [`cli`], [`serve`], [`demo`] | commands, the server's start and end |
//! | 5 wire | [`est`], [`api`] | RFC 7030; the operator's API |
//! | 4 listener | [`listener`] | sockets, TLS, who is the peer |
//! | 3 action | [`enrol`], [`factory`], [`fleet`] | issuing; setting up; devices in the field, and who is told of them |
//! | 2 I/O | [`ledger`], [`keys`], [`client`] | the only SQL; the only private keys; what goes out |
//! | 1 pure | [`pki`], [`model`], [`policy`] | ASN.1; nouns and state machines; verdicts |
//! | beside | [`config`], [`telemetry`], [`clock`] | |
//!
//! A re-enrolment walks up and down once: [`listener`] verifies the device's certificate against the
//! Device CAs and makes a [`model::Peer`]; [`est`] reads the request; [`policy`] turns both into a
//! [`policy::Grant`]; [`keys`] makes it [`keys::Signed`]; [`ledger`] makes that
//! [`ledger::Recorded`], after the commit; only then is there an answer to write.

pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod demo;
pub mod enrol;
pub mod est;
pub mod factory;
pub mod files;
pub mod fleet;
pub mod gateway;
pub mod keys;
pub mod ledger;
pub mod listener;
pub mod model;
pub mod pki;
pub mod policy;
pub mod serve;
pub mod telemetry;
