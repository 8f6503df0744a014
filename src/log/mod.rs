//! One topic's messages as JSON lines.
//!
//! ```text
//!   append ──▶ buffer ──flush──▶ chat.log (active) ──roll──▶ chat@00000000000000000001.log (sealed)
//!                  │                 ▲   ▲
//!                  ▼                 │   └── Reader: HISTORY, subscribers and groups that are behind
//!              tail cache ───────────┴────── sparse index: offset and time → position
//! ```
//!
//! * One writer. What is flushed is visible to readers on any thread, up to [`LogShared::end`].
//! * Nothing here is synced on the hot path: the write-ahead log is the truth, and after a crash
//!   what lies behind the last checkpoint's mark is cut and appended again.
//! * Offsets are dense: 1, 2, 3 …; in name order the sealed segments and then the active one are
//!   the topic.
//! * What is no longer kept goes a whole segment at a time, from the front. Its files go later: what
//!   may still have to be gone back to needs them.
//!
//! Not here: what a client's line looks like (`topic::lines`), who still needs a message, and full
//! verification.

mod error;
mod index;
mod reader;
mod record;
mod recover;
mod retain;
mod segment;
mod shared;
mod tail;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use error::LogError;
pub use index::{Entry, entries};
pub use reader::Reader;
pub use record::{Line, LineError, NewRecord, parse_line, parse_lost, write_line};
pub(crate) use record::{record_in, record_starts, write_lost};
pub(crate) use recover::last_line;
pub use recover::{Adopted, Scan, SegmentFile, scan};
pub use retain::{Ages, Retention, RetentionPlan};
pub use segment::{Lines, Paths, RawLine};
pub use shared::LogShared;
pub use tail::{Chunk, Tail, TailBudget};
pub use verify::{Pass, Verified, Verifier};
pub use writer::{LogMark, LogSettings, SyncJob, TopicLog, TrimmedFiles, sync_many};
