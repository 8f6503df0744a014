//! The broker without its sockets: topics on shards, one write-ahead log, checkpoints.
//!
//! ```text
//!   sessions ── Letter ──▶ Mailbox ──▶ shard thread ── batch ──▶ WAL thread ──▶ fdatasync
//!       ▲                                │   ▲                       │
//!       └────────── Piece ── Outbox ◀────┘   └────── Committed ──────┘
//!                                        │
//!                                        └── Part (its state) ──▶ checkpoint thread
//! ```
//!
//! * A topic is on exactly one shard, with its dead-letter topic. No lock around it anywhere.
//! * Committing is asynchronous and groups itself: while one sync runs, what comes meanwhile is
//!   the next batch. Replies and deliveries leave when their batch is committed and applied.
//! * A checkpoint is a state at a WAL position; everything behind that position is applied again
//!   on start.
//!
//! Not here: sockets and sessions (`session`, `server`), and what a command means (`topic`).

pub mod ahead;
mod batch;
pub mod bell;
pub mod casing;
pub mod checkpoint;
pub mod commit;
mod conns;
pub mod fatal;
pub mod gate;
pub mod keeper;
mod late;
pub mod layout;
pub mod letter;
pub mod lock_file;
pub mod mailbox;
mod memberships;
pub mod message;
pub mod open;
mod open_error;
pub mod outbox;
pub mod registry;
mod requests;
pub mod retention;
pub mod settings;
pub mod shard;
mod spares;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod topics;
mod writing;

use std::sync::{Mutex, MutexGuard};

/// Locks a mutex whose data no panic can leave half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a thread that panics ends the process")
}
