//! What a broker is started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Fsync, MinFree};
use crate::delivery::Policy;
use crate::disk::Disk;
use crate::log::{LogSettings, Retention, TailBudget};
use crate::wal;

use super::ahead::Ahead;
use super::casing::Casing;
use super::gate::PublishGate;
use super::topics::Workshop;

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its files are.
    pub data_dir: PathBuf,
    /// How many shards, at least one.
    pub shards: u32,
    /// Drawn by the caller; the identity of a new directory.
    pub node_seed: u64,
    /// Drawn by the caller; marks the records of a new log, and is told to nobody.
    pub wal_secret: u64,
    /// When OK is said.
    pub fsync: Fsync,
    /// The write-ahead log's segments.
    pub wal: wal::Settings,
    /// The topics' segments.
    pub log: LogSettings,
    /// A checkpoint is due after so many bytes of log …
    pub checkpoint_bytes: u64,
    /// … or after this time, if anything was written.
    pub checkpoint_interval: Duration,
    /// How much of each topic is kept.
    pub retention: Retention,
    /// What stays free on the disk.
    pub min_free: MinFree,
    /// Timings of groups.
    pub policy: Policy,
    /// Credit of a member.
    pub prefetch: u32,
    /// Most topic files that a shard keeps open, at most [`crate::limits::OPEN_LOGS_MAX`].
    pub open_logs_max: usize,
    /// With new lines for more topics than this in a turn, those that nobody reads may wait.
    pub topics_written_max: usize,
    /// The room for recent lines.
    pub tail: Arc<TailBudget>,
    /// What stands in the way of publishing.
    pub gate: Arc<PublishGate>,
    /// Who syncs files between checkpoints.
    pub ahead: Arc<Ahead>,
}

impl Settings {
    pub(super) fn workshop(&self, disk: &Arc<dyn Disk>, casing: Option<&Arc<Casing>>) -> Workshop {
        Workshop {
            disk: Arc::clone(disk),
            dir: self.data_dir.clone(),
            log: self.log,
            open_max: self.open_logs_max,
            written_max: self.topics_written_max,
            tail: Arc::clone(&self.tail),
            ahead: Arc::clone(&self.ahead),
            casing: casing.cloned(),
            policy: Arc::new(Policy { dead_letters: true, ..self.policy.clone() }),
            dead_letter_policy: Arc::new(Policy { dead_letters: false, ..self.policy.clone() }),
        }
    }
}
