//! One connection: bytes in, letters to shards, pieces back, bytes out.
//!
//! ```text
//!   socket ──▶ task ──▶ core::input ──▶ letters ──▶ shards
//!   socket ◀── task ◀── out ◀── core::piece ◀── outbox ◀──┘
//!                        ▲
//!                        └── read jobs: HISTORY, and subscriptions that fell behind, from the files
//! ```
//!
//! * `core` is pure: it takes bytes, pieces and the time, and says what to send where. `task` does
//!   it, and is the only one here that knows sockets.
//! * Replies leave in the order of the commands, whatever order they come in; pushes of a group
//!   leave after the reply to its `SUB`.
//! * Nothing grows with a slow reader: with too much unsent, the session reads neither its socket
//!   nor its subscriptions, and what a group may push is bounded by its credit. Nor with a slow
//!   writer: `seats` are for those whose messages come in part.
//! * While a session sleeps with nothing unsent, shards write to its socket themselves.
//! * `awake` and `crowd` say how a thread waits: by looking, or behind others who want to run.

mod awake;
pub mod core;
#[cfg(test)]
mod core_tests;
pub mod crowd;
mod drafts;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod memory_tests;
pub mod out;
pub mod read;
mod reading;
pub mod seats;
pub mod shares;
pub mod task;
