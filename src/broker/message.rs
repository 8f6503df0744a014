//! What shards, the log's thread and the keeper tell one another.

use std::ops::Range;
use std::sync::mpsc::SyncSender;

use crate::wal::{Entry, Lsn};

use super::checkpoint::Part;
use super::fatal::Fatal;
use super::letter::Letter;
use super::retention::{Inventory, Trim};

/// What comes into a shard's mailbox.
#[derive(Debug)]
pub enum Message {
    /// Requests of a connection.
    Letter(Letter),
    /// A batch is committed.
    Committed {
        /// The batch.
        index: u64,
        /// Its record in the log.
        lsn: Lsn,
        /// Its commands.
        payload: Vec<u8>,
    },
    /// A checkpoint wants the shard's state.
    Checkpoint {
        /// Where it goes; `None` while topics' files can't be written.
        sender: SyncSender<Option<Part>>,
        /// The last record of the log when it was asked for.
        last: Lsn,
        /// Which topics, by their places: a piece at a time.
        piece: Range<usize>,
    },
    /// The keeper wants to know what there is.
    Inventory {
        /// Where it goes.
        sender: SyncSender<Inventory>,
        /// Which topics, by their places.
        piece: Range<usize>,
    },
    /// Messages are no longer kept.
    Trim(Vec<Trim>),
    /// Somebody else had a turn: look at the timers.
    Look,
    /// Somebody else had a turn, and the process has to end.
    Failed(Fatal),
    /// Finish what was taken, then end.
    Stop,
}

/// Something that is to be made durable.
#[derive(Debug)]
pub struct Submission {
    /// The shard.
    pub shard: u32,
    /// Number of the batch on its shard, from 1 without a gap.
    pub index: u64,
    /// The commands.
    pub payload: Vec<u8>,
}

/// A batch up to this size is worth writing by its shard's own thread, in bytes: nothing is gained
/// by doing other work meanwhile, and two changes of threads are saved.
const OWN_BYTES_MAX: usize = 16 << 10;

impl Submission {
    /// Whether its shard should rather wait for it than change threads for it.
    pub fn is_quick(&self) -> bool {
        self.payload.len() <= OWN_BYTES_MAX
    }

    /// What becomes its record.
    pub fn entry(&self) -> Entry<'_> {
        Entry { shard: self.shard, term: 0, index: self.index, payload: &self.payload }
    }
}

/// What the log's thread is asked for.
#[derive(Debug)]
pub enum WalMessage {
    /// Make a batch durable.
    Write(Submission),
    /// Make all that was written durable now, and say so.
    Sync(SyncSender<Lsn>),
    /// A checkpoint covers the log up to this record.
    Free(Lsn),
    /// Preparing a segment failed a while ago, and may be tried again.
    OfferSpare,
    /// Sync and end.
    Stop,
}
