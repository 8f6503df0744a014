//! The whole broker in one thread, from one seed: clients, network, sessions, shards, the
//! write-ahead log, checkpoints, and a disk that forgets, tears, rots and fills up.
//!
//! ```text
//!   clients ◀── links (any delay, any cut) ──▶ session cores ◀──▶ shards ──▶ log writer ──▶ SimDisk
//!      │                                                            │            keeper ──────▲
//!      └─────────────▶ ledger: what was promised          oracles ──┴─▶ look at all of it after
//!                                                                       every step
//! ```
//!
//! Everything that decides is the code of the daemon; only its threads and sockets are replaced, by
//! a scheduler that draws from the seed who goes on next, by how much time passes, and what breaks.
//! The same seed gives the same run, to the byte of its trace.
//!
//! A run has three parts: life with faults (crashes of the process, power cuts, failing and full
//! disks, rotten bits); then no more faults, until everything published is acknowledged or
//! dead-lettered; then a stop in order and a start that must find nothing to recover.
//!
//! * [`run()`] is one run, [`Options`] what it is given, [`Failure`] what an oracle saw.
//! * [`bugs`] plants mistakes and shows what catches them.
//!
//! Not here: real threads, sockets and files; `tests/` has the daemon killed for real.

#[cfg(test)]
mod beside;
pub mod bugs;
mod chaos;
mod client;
mod journal;
mod ledger;
mod loss;
mod node;
mod oracle;
mod records;
mod rot;
mod run;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use crate::planted::Bug;
pub use run::{Failure, Options, Report, run};
