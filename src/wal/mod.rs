//! The write-ahead log: the only file that is synced on the hot path.
//!
//! ```text
//!   <data>/.wiber/wal/
//!     0000000000000006.wal   covered by the checkpoint: free to be recycled
//!     0000000000000007.wal   ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓░   sealed: full, and synced before 8 was begun
//!     0000000000000008.wal   ▓▓▓▓▓▓▓▓▓▒▒▒────────   active: ▓ durable  ▒ written  ─ zeros, or stale
//!     0000000000000009.wal   ────────────────────   spare: prepared by another thread
//!
//!   segment   4 KiB header block, then records, each at a multiple of 8 bytes
//!   record    len u32 │ crc u32 │ mark u64 │ lsn u64 │ durable u64 │
//!             shard u32 │ kind u32 │ term u64 │ index u64 │ payload │ 0 to 7 zeros
//! ```
//!
//! Invariants:
//! * Records are numbered 1, 2, 3 … ([`Lsn`]) over all segments, without a gap.
//! * Segments are written with zeros and synced before they are used, so a sync of records changes
//!   no metadata. A record counts only in the segment whose mark it bears: what a recycled
//!   segment still holds of its earlier life is never taken for new, nor what a client made up.
//! * Nothing is written to a segment before all of the one before it is durable, and before its own
//!   name is: what is durable has no hole.
//! * Every record says up to where the log was known to be durable when it was written. A bad record
//!   that a later one (or the checkpoint) vouches for is damage: recovery refuses and changes
//!   nothing. One that nothing vouches for was never acknowledged: recovery cuts it off.
//! * A segment is freed only while a later one holds a durable record, so a log that was ever used
//!   never looks empty.
//! * After a failed write or sync nothing is known: the [`Wal`] is poisoned, and every later call
//!   gives the same error. A full disk is no such failure as long as nothing was written, nor are file
//!   descriptors that are all taken.
//!
//! What it deliberately does not do: threads (the writer's is `broker`'s, and so is the one that
//! runs a [`SpareJob`]), batching (an [`Entry`] is a batch already), meaning (a payload is bytes),
//! repair (`wiber check` does), and deciding what is covered (the checkpoint does).

mod files;
mod record;
mod recover;
mod salvage;
mod scan;
mod segment;
mod spare;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use recover::{Covered, Examined, examine};
pub use salvage::salvage;
pub use spare::SpareJob;
pub use writer::Wal;

/// Size of a segment unless the settings say otherwise, in bytes.
pub const SEGMENT_BYTES: u64 = 32 << 20;

/// The number of a record: 1, 2, 3 … over all segments. Zero stands for "before the first".
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first record; also the last of an empty log.
    pub const ZERO: Lsn = Lsn(0);

    /// The record with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The record after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The record before this one; zero stays zero.
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What becomes one record: a batch of commands of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Whose it is.
    pub shard: u32,
    /// The term of the leader that decided it; alone, always the same.
    pub term: u64,
    /// Its place in the shard's log: one more than the shard's entry before. In a cluster, an entry
    /// of a higher term may also take the place of earlier ones.
    pub index: u64,
    /// The commands, encoded. At most `u32::MAX` bytes; the caller's bound is far below.
    pub payload: &'a [u8],
}

/// A record as recovery finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its number in the log.
    pub lsn: Lsn,
    /// See [`Entry`].
    pub shard: u32,
    /// See [`Entry`].
    pub term: u64,
    /// See [`Entry`].
    pub index: u64,
    /// See [`Entry`].
    pub payload: &'a [u8],
}

/// Whose log it is. Stands in the header of every segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The node. A segment of another one is refused.
    pub node: u64,
    /// A random number that nobody outside learns, drawn when the log is created: clients choose
    /// payloads, and must not be able to choose one that passes for a record.
    pub secret: u64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).finish_non_exhaustive()
    }
}

/// How the log is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Size of a segment, in bytes; rounded up to a multiple of 4096, and to 8192 at least. A record
    /// that is larger gets a segment of its own size.
    pub segment_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES }
    }
}

/// Bytes at the end of the log that a power cut left behind, and that nothing vouches for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torn {
    /// The file in which they begin.
    pub file: PathBuf,
    /// Where in it.
    pub at: u64,
    /// How many there are.
    pub bytes: u64,
    /// How many whole records are among them, none of which was acknowledged.
    pub records: u64,
}

/// Why the log could not be written or read. Clones are the same failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed. From the writer: nothing is known about what was written, end the process.
    #[error("failed to {what} {}: {source}", file.display())]
    Io {
        /// What was tried: "sync", "write" …
        what: &'static str,
        /// On what.
        file: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// There is no room, or no file descriptor, for another segment. Nothing was written; it may be tried
    /// again.
    #[error("failed to prepare a WAL segment of {bytes} bytes in {}: {source}", dir.display())]
    Shortage {
        /// The folder.
        dir: PathBuf,
        /// What was needed.
        bytes: u64,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// Something that was durable is no longer there. Nothing was changed.
    #[error(
        "the write-ahead log is damaged: {}, byte {at}: {reason}; nothing was changed; \
         run `wiber check` on the data directory to see what is lost",
        file.display()
    )]
    Damaged {
        /// Where: the file.
        file: PathBuf,
        /// Where in the file.
        at: u64,
        /// What is wrong, and how it is known.
        reason: String,
    },
    /// Written by a later version of this program.
    #[error("failed to read {}: it has {what} {found}, and this version knows only 1", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// "WAL format" or "a record of kind".
        what: &'static str,
        /// The one found.
        found: u32,
    },
    /// The folder holds no segment.
    #[error("failed to open the write-ahead log: {} holds no segment", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A new log was to be created where there is one.
    #[error("failed to create a write-ahead log: {} already holds one", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
}

impl WalError {
    /// Whether stored data are damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self, WalError::Damaged { .. } | WalError::Missing { .. })
    }

    /// Whether there was no room or no file descriptor, nothing was written, and it may be tried again.
    pub fn is_shortage(&self) -> bool {
        matches!(self, WalError::Shortage { .. })
    }

    /// Whether it was for want of room.
    pub fn is_no_space(&self) -> bool {
        matches!(self, WalError::Shortage { source, .. } if crate::disk::is_no_space(source))
    }
}

/// For `map_err`: what was tried, on which file.
fn failed(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> WalError {
    move |source| WalError::Io { what, file: file.to_owned(), source: Arc::new(source) }
}

/// The last term and index of every shard, to see that none is left out.
#[derive(Clone, Default, Debug)]
struct Continuity(BTreeMap<u32, (u64, u64)>);

impl Continuity {
    /// Notes the next entry of a shard. False if it does not follow the one before.
    #[must_use]
    fn follows(&mut self, shard: u32, term: u64, index: u64) -> bool {
        let last = self.0.insert(shard, (term, index));
        last.is_none_or(|(last_term, last_index)| {
            let next = last_index.checked_add(1) == Some(index) && term >= last_term;
            let replaces = index <= last_index && term > last_term;
            next || replaces
        })
    }
}
