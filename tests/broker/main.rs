//! The real daemon, as its users meet it: sockets, files, signals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod hostile;
mod support;
mod transcripts;
mod walkthrough;
