//! Syncing a file on another thread while it is written, a little at a time.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::File;

/// After so many bytes a file is worth syncing before somebody has to wait for it: few enough for
/// others not to wait long behind them, and many times what a sync costs without any.
const BYTES: u64 = 1 << 20;

/// What was written to a file since it was last synced ahead. Nobody relies on such a sync: it takes
/// nothing off what has to be synced for something to count as durable.
#[derive(Debug, Default)]
pub struct Written {
    bytes: u64,
    /// Shared with the job, if there is one.
    job: Arc<()>,
}

impl Written {
    /// So many bytes more were written.
    pub fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Nothing is left that a sync ahead would be good for: it was synced, or another file follows.
    pub fn clear(&mut self) {
        self.bytes = 0;
    }

    /// The work for another thread, if enough was written and there is no such job already.
    pub fn job(
        &mut self,
        file: &Arc<dyn File>,
        path: impl FnOnce() -> PathBuf,
    ) -> Option<SyncAhead> {
        if self.bytes < BYTES || Arc::strong_count(&self.job) > 1 {
            return None;
        }
        self.bytes = 0;
        Some(SyncAhead { file: Arc::clone(file), path: path(), _alone: Arc::clone(&self.job) })
    }
}

/// A file to be synced although nobody waits for it.
#[derive(Debug)]
pub struct SyncAhead {
    file: Arc<dyn File>,
    path: PathBuf,
    _alone: Arc<()>,
}

/// A file could not be synced: nothing is known about its pages.
#[derive(Debug, thiserror::Error)]
#[error("failed to sync {}: {source}", path.display())]
pub struct SyncFailed {
    path: PathBuf,
    source: io::Error,
}

impl SyncAhead {
    /// Syncs the file.
    ///
    /// # Errors
    /// [`SyncFailed`]: its process has to end.
    pub fn run(self) -> Result<(), SyncFailed> {
        self.file.sync().map_err(|source| SyncFailed { path: self.path, source })
    }
}
