//! The real daemon, as its users meet it: sockets, files, signals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_inputs;
mod crash;
mod disk;
mod hostile;
mod logged;
mod peers;
mod places;
mod power_cut;
mod retention;
mod support;
mod transcripts;
mod walkthrough;
