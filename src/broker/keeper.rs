//! Housekeeping: checkpoints, whether the disk has room, sealed segments, and memory after a burst.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::disk::{Disk, Gentle};
use crate::log::{Pass, SyncJob, TrimmedFiles, Verified, Verifier, sync_many};
use crate::memory::{self, Burst};
use crate::planted::{self, Bug};
use crate::time::{Moment, Now};
use crate::wal::Lsn;

use super::checkpoint::{Checkpoint, CheckpointError, Part, Taking};
use super::commit::{Log, WalStats};
use super::fatal::Fatal;
use super::gate::Full;
use super::layout::Layout;
use super::mailbox::Mailbox;
use super::message::{Message, WalMessage};
use super::retention::{Removals, Retaining};
use super::settings::Settings;

/// How often the thread looks whether it has something to do.
const PAUSE: Duration = Duration::from_millis(250);

/// A shard gives the state of so many topics at a time, which takes it half a millisecond.
const TOPICS_AT_ONCE: usize = 1_000;

/// How long to wait after a checkpoint that could not be made for want of room or of file descriptors.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(5);

/// How much of the sealed segments is read again in each round: with [`PAUSE`] 4 MiB a second.
const VERIFY_BYTES: u64 = 1 << 20;

/// How long after a pass that could not begin it is tried again.
const VERIFY_RETRY_PAUSE: Duration = Duration::from_mins(10);

/// How long after a pass through all sealed segments the next one begins.
const VERIFY_PAUSE: Duration = Duration::from_hours(24);

/// The checkpoints of a directory as they follow one another; without threads.
#[derive(Debug)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    dir: PathBuf,
    trash: PathBuf,
    number: u64,
    /// The position of the checkpoint before the last: the log is kept from there.
    previous: Lsn,
    last: Lsn,
    last_bytes: u64,
    last_at: Moment,
    removals: Removals,
    /// What could not be opened to be synced. Nobody else knows of it, and no checkpoint counts before
    /// it is.
    unsynced: Vec<SyncJob>,
}

impl Checkpoints {
    /// Behind those that are there.
    ///
    /// # Errors
    /// [`CheckpointError`] if one can't be read.
    pub fn open(
        disk: &Arc<dyn Disk>,
        layout: &Layout,
        now: Moment,
    ) -> Result<Self, CheckpointError> {
        let dir = layout.checkpoints();
        let newest = Checkpoint::newest(disk.as_ref(), &dir)?.unwrap_or_default();
        let previous = Checkpoint::oldest_lsn(disk.as_ref(), &dir)?;
        Ok(Self {
            disk: Arc::clone(disk),
            data: layout.data.clone(),
            dir,
            trash: layout.trash(),
            number: newest.number,
            previous,
            last: newest.lsn(),
            last_bytes: 0,
            last_at: now,
            removals: Removals::default(),
            unsynced: Vec::new(),
        })
    }

    /// The record from which on the log is kept: the older one needs it.
    pub fn kept_from(&self) -> Lsn {
        self.previous
    }

    /// Has these files removed when two more checkpoints are made.
    pub fn will_remove(&mut self, files: Vec<TrimmedFiles>) {
        self.removals.come(files);
    }

    /// Whether enough was written since the last one, or anything long enough ago, or files wait for one to
    /// be removed.
    pub fn is_due(&self, settings: &Settings, stats: &WalStats, now: Moment) -> bool {
        let bytes = stats.bytes() - self.last_bytes;
        let age = now.since(self.last_at);
        let is_wanted = stats.last() > self.last || self.removals.want_checkpoint();
        is_wanted && (bytes >= settings.checkpoint_bytes || age >= settings.checkpoint_interval)
    }

    /// Syncs what could not be opened the last time. As long as some of it can't be, no more should be taken
    /// from the shards.
    ///
    /// # Errors
    /// [`CheckpointError::Sync`]; unless it is a shortage, it ends the process.
    pub fn catch_up(&mut self) -> Result<(), CheckpointError> {
        self.sync(Vec::new())
    }

    /// The parts, if no shard held its own back. Otherwise what the others gave to be synced is
    /// synced here, or later if it can't be opened now.
    ///
    /// # Errors
    /// [`CheckpointError::Sync`]; it ends the process.
    pub fn all(&mut self, mut taken: Taking) -> Result<Option<Vec<Part>>, CheckpointError> {
        self.will_remove(taken.take_trimmed());
        match taken.finish() {
            Ok(parts) => Ok(Some(parts)),
            Err(syncs) => match self.sync(syncs) {
                Err(error) if !error.is_shortage() => Err(error),
                _ => Ok(None),
            },
        }
    }

    /// Syncs the topics' files and writes the checkpoint. Gives the record up to which the log is
    /// covered by the older of the two that are kept now, and may be freed.
    ///
    /// # Errors
    /// [`CheckpointError`]. With [`CheckpointError::is_shortage`] the checkpoints before it still
    /// count, and another one may be made later. Any other ends the process.
    pub fn write(
        &mut self,
        parts: Vec<Part>,
        is_clean: bool,
        stats: &WalStats,
        now: Now,
    ) -> Result<Lsn, CheckpointError> {
        let bytes = stats.bytes();
        let (checkpoint, syncs) = Checkpoint::of(self.number + 1, is_clean, parts);
        if !planted::has(Bug::CheckpointUnsynced) {
            self.sync(syncs)?;
        }
        checkpoint.write(self.disk.as_ref(), &self.dir, now.wall)?;
        self.removals.checkpoint();
        self.number += 1;
        self.previous = self.last;
        self.last = checkpoint.lsn();
        self.last_bytes = bytes;
        self.last_at = now.moment;
        tracing::debug!(event = "checkpoint", number = self.number, lsn = self.last.get());
        Ok(self.previous)
    }

    /// Removes some of the files that are of no use to any checkpoint, by way of a disk that may take its
    /// time.
    ///
    /// # Errors
    /// [`CheckpointError::Sync`]; it ends the process.
    pub fn remove_some(&mut self, gentle: &dyn Disk) -> Result<(), CheckpointError> {
        let disk = self.disk.as_ref();
        let removed = self.removals.step(disk, gentle, &self.data, &self.trash);
        removed.map_err(CheckpointError::Sync)
    }

    /// Syncs these and what is left from before, or says why some of it is left.
    fn sync(&mut self, jobs: Vec<SyncJob>) -> Result<(), CheckpointError> {
        self.unsynced.extend(jobs);
        let synced = sync_many(&mut self.unsynced, self.disk.as_ref(), &self.data);
        synced.map_err(CheckpointError::Sync)
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) checkpoints: Checkpoints,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: Settings,
    pub(super) shards: Vec<Arc<Mailbox<Message>>>,
    pub(super) log: Arc<Log>,
    pub(super) stats: Arc<WalStats>,
    pub(super) retaining: Retaining,
    pub(super) verifying: Verifying,
    pub(super) burst: Burst,
    /// Bytes that have left sessions.
    pub(super) moved: Arc<AtomicU64>,
}

impl Keeper {
    /// Serves until told to stop.
    pub(super) fn run(mut self, stopped: &Receiver<()>) -> Result<Keeper, Fatal> {
        let gentle = Gentle(Arc::clone(&self.disk));
        loop {
            watch_room(self.disk.as_ref(), &self.settings);
            let now = Moment::read();
            let mut pause = PAUSE;
            if self.checkpoints.is_due(&self.settings, &self.stats, now) {
                let is_made = match self.parts()? {
                    Some(parts) => self.write(parts, false)?,
                    None => false,
                };
                if !is_made {
                    pause = NO_SPACE_PAUSE;
                }
            }
            self.retain()?;
            self.checkpoints.remove_some(&gentle)?;
            self.verifying.step(self.disk.as_ref(), &self.settings.data_dir, now);
            if self.burst.is_over(self.stats.bytes() + self.moved.load(Ordering::Relaxed)) {
                memory::give_back();
            }
            match stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(self),
            }
        }
    }

    /// The state of all shards, unless one of them can't write its files now, or those of the last time
    /// can't be synced.
    fn parts(&mut self) -> Result<Option<Vec<Part>>, Fatal> {
        if let Err(error) = self.checkpoints.catch_up() {
            return postponed(error).map(|()| None);
        }
        let last = self.stats.last();
        let mut taking = Taking::new(self.shards.len(), TOPICS_AT_ONCE);
        while let Some((shard, piece)) = taking.wants() {
            let (sender, receiver) = mpsc::sync_channel(1);
            self.shards[shard].post(Message::Checkpoint { sender, last, piece });
            taking.take(receiver.recv().map_err(|_gone| Fatal::Gone)?);
        }
        self.sync_log()?;
        Ok(self.checkpoints.all(taking)?)
    }

    /// Looks whether some topics have to let go of messages: a piece of them in each round.
    fn retain(&mut self) -> Result<(), Fatal> {
        let (count, last) = (self.shards.len(), self.stats.last());
        let wanted = self.retaining.wants(Moment::read(), last, count, TOPICS_AT_ONCE);
        if let Some((shard, piece)) = wanted {
            let (sender, receiver) = mpsc::sync_channel(1);
            self.shards[shard].post(Message::Inventory { sender, piece });
            let inventory = receiver.recv().map_err(|_gone| Fatal::Gone)?;
            let trims = self.retaining.look(self.disk.as_ref(), Now::read(), last, inventory);
            if !trims.is_empty() {
                self.shards[shard].post(Message::Trim(trims));
            }
        }
        Ok(())
    }

    /// What a checkpoint covers must not be ahead of what the log has durable.
    pub(super) fn sync_log(&self) -> Result<(), Fatal> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.log.mailbox.post(WalMessage::Sync(sender));
        receiver.recv().map(drop).map_err(|_gone| Fatal::Gone)
    }

    /// Makes a checkpoint of these parts; false if there is no room or no file descriptor for it.
    pub(super) fn write(&mut self, parts: Vec<Part>, is_clean: bool) -> Result<bool, Fatal> {
        match self.checkpoints.write(parts, is_clean, &self.stats, Now::read()) {
            Ok(covered) => {
                self.log.mailbox.post(WalMessage::Free(covered));
                Ok(true)
            }
            Err(error) => postponed(error).map(|()| false),
        }
    }
}

/// Says that a checkpoint is made later, unless the process has to end.
fn postponed(error: CheckpointError) -> Result<(), Fatal> {
    if !error.is_shortage() {
        return Err(error.into());
    }
    tracing::warn!(event = "checkpoint_failed", "{error}; it will be tried again");
    Ok(())
}

/// Sealed segments are read again, slowly: a piece in each of the keeper's rounds.
#[derive(Debug, Default)]
pub(super) struct Verifying {
    pass: Option<Verifier>,
    next_pass: Moment,
}

impl Verifying {
    fn step(&mut self, disk: &dyn Disk, dir: &Path, now: Moment) {
        if now < self.next_pass {
            return;
        }
        let verifier = match self.pass.take() {
            Some(pass) => Ok(pass),
            None => Verifier::begin(disk, dir.to_owned()),
        };
        let stepped = verifier.and_then(|mut pass| {
            let step = pass.step(disk, VERIFY_BYTES);
            self.pass = Some(pass);
            step
        });
        match stepped {
            Ok(Verified::More(damaged)) => {
                for damage in damaged {
                    tracing::error!(
                        event = "segment_damaged",
                        "{damage}; the other messages are not touched by it; run wiber check"
                    );
                }
            }
            Ok(Verified::Done(Pass { segments, bytes, damaged })) => {
                self.pass = None;
                self.next_pass = now + VERIFY_PAUSE;
                if segments > 0 {
                    tracing::info!(
                        event = "segments_verified",
                        segments,
                        bytes,
                        damaged,
                        "the sealed segments were read again"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(event = "verify_failed", "{error}");
                if self.pass.is_none() {
                    self.next_pass = now + VERIFY_RETRY_PAUSE;
                }
            }
        }
    }
}

/// Closes the gate while less is free than is to be kept free.
pub fn watch_room(disk: &dyn Disk, settings: &Settings) {
    let space = match disk.space(&settings.data_dir) {
        Ok(space) => space,
        Err(error) => {
            tracing::warn!(event = "space_unknown", "failed to ask for the disk's room: {error}");
            return;
        }
    };
    let keep = settings.min_free.bytes_of(space.total);
    if settings.gate.set(Full::Reserve, space.free < keep) {
        tracing::info!(
            event = "disk_space",
            free = space.free,
            min_free = keep,
            "the disk has {} bytes free, and storage.min_free is {keep}",
            space.free
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::{Failure, Op, SimDisk};

    /// Four times a second it was tried again, and said so.
    #[test]
    fn a_pass_that_cannot_begin_is_tried_again_much_later() {
        let disk = SimDisk::new();
        let (mut verifying, begin) = (Verifying::default(), Moment::default());
        disk.fail_next(Op::List, 1, Failure::Io);
        for rounds in 0..10 {
            verifying.step(&disk, Path::new("/"), begin + PAUSE * rounds);
            assert_eq!(disk.count(Op::List), 1);
        }
        verifying.step(&disk, Path::new("/"), begin + VERIFY_RETRY_PAUSE);
        assert_eq!(disk.count(Op::List), 2);
    }
}
