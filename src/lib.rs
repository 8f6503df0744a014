//! Wiber: a durable message broker that a person can read.
//!
//! Text protocol on the wire, one JSON line per message on disk; an acknowledged message is on
//! disk, and a consumer group gets every message at least once or finds it in the dead-letter
//! topic with the history of every attempt.
//!
//! # How to read this crate
//!
//! The modules below stand in reading order, which is the order of dependence: a module uses only
//! what stands above it. `docs/architecture.md` draws the picture.

#[cfg_attr(
    not(any(test, feature = "sim")),
    expect(unreachable_pub, reason = "the simulator shows it")
)]
mod planted;

pub mod time;

pub mod rate;

mod text;

mod memory;

pub mod limits;

pub mod ids;

pub mod config;

pub mod proto;

pub mod delivery;

pub mod disk;

pub mod wal;

pub mod log;

pub mod topic;

pub mod broker;

pub mod check;

pub mod session;

pub mod server;

pub mod client;

pub mod cli;

#[cfg(any(test, feature = "sim"))]
pub mod sim;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
