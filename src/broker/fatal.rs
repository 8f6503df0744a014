//! Threads that the broker can't go on without, and what ended one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use crate::disk::SyncFailed;
use crate::wal::WalError;

use super::checkpoint::CheckpointError;
use super::shard::ShardError;

/// Why the broker can't go on. The process ends.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The write-ahead log.
    #[error("the write-ahead log failed: {0}")]
    Wal(#[from] WalError),
    /// A shard.
    #[error("a shard failed: {0}")]
    Shard(#[from] ShardError),
    /// A checkpoint.
    #[error("a checkpoint failed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A file that was to be synced ahead.
    #[error(transparent)]
    Ahead(#[from] SyncFailed),
    /// A thread panicked: a mistake in the code.
    #[error("the {0} thread panicked")]
    Panicked(String),
    /// A thread that had to answer is gone.
    #[error("a thread ended too early")]
    Gone,
}

/// Waits for a thread of [`spawn`].
pub(super) fn join<T>(thread: JoinHandle<Option<T>>) -> Result<T, Fatal> {
    thread.join().ok().flatten().ok_or(Fatal::Gone)
}

/// Starts a thread whose end by error or panic ends the broker.
pub(super) fn spawn<T: Send + 'static>(
    name: String,
    fatal: UnboundedSender<Fatal>,
    body: impl FnOnce() -> Result<T, Fatal> + Send + 'static,
) -> JoinHandle<Option<T>> {
    let label = name.clone();
    let guarded = move || match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => report(&fatal, error),
        Err(_panic) => report(&fatal, Fatal::Panicked(label)),
    };
    std::thread::Builder::new().name(name).spawn(guarded).expect("the system has a thread to spare")
}

fn report<T>(fatal: &UnboundedSender<Fatal>, error: Fatal) -> Option<T> {
    // With nobody left to hear it the process is ending already.
    drop(fatal.send(error));
    None
}
