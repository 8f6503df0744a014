//! Committing: batches of all shards go into one write-ahead log and are made durable together.
//!
//! This is the seam for a cluster: alone, a batch is committed when its record is on this disk; in
//! a cluster it will be when a quorum has it. Shards see the difference only in when
//! [`Message::Committed`] comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::config::Fsync;
use crate::time::{Moment, Now};
use crate::wal::{Entry, Lsn, SpareJob, Wal, WalError};

use super::mailbox::Mailbox;
use super::shard::Submission;
use super::thread::Message;

/// How long the log waits for room on the disk before it looks again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(200);

/// What the log's thread is asked for.
#[derive(Debug)]
pub enum WalMessage {
    /// Make a batch durable.
    Write(Submission),
    /// Make all that was written durable now, and say so.
    Sync(SyncSender<Lsn>),
    /// A checkpoint covers the log up to this record.
    Free(Lsn),
    /// Sync and end.
    Stop,
}

/// How commands become durable.
#[derive(Clone, Debug)]
pub enum Commit {
    /// In this node's log.
    Alone(Arc<Mailbox<WalMessage>>),
}

impl Commit {
    /// Asks for a batch to be committed; its shard hears of it.
    pub fn submit(&self, submission: Submission) {
        match self {
            Commit::Alone(mailbox) => mailbox.post(WalMessage::Write(submission)),
        }
    }
}

/// How far the log is, for all to read.
#[derive(Debug, Default)]
pub struct WalStats {
    last: AtomicU64,
    bytes: AtomicU64,
}

impl WalStats {
    /// The last record written.
    pub fn last(&self) -> Lsn {
        Lsn::new(self.last.load(Ordering::Relaxed))
    }

    /// Bytes written since the start.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The log's thread.
#[derive(Debug)]
pub struct WalThread {
    wal: Wal,
    fsync: Fsync,
    mailbox: Arc<Mailbox<WalMessage>>,
    shards: Vec<Arc<Mailbox<Message>>>,
    stats: Arc<WalStats>,
    spares: mpsc::Sender<SpareJob>,
    sync_at: Option<Moment>,
}

impl WalThread {
    /// A thread for this log. Jobs of preparing segments go to `spares`.
    pub fn new(
        wal: Wal,
        fsync: Fsync,
        mailbox: Arc<Mailbox<WalMessage>>,
        shards: Vec<Arc<Mailbox<Message>>>,
        stats: Arc<WalStats>,
        spares: mpsc::Sender<SpareJob>,
    ) -> Self {
        stats.last.store(wal.last().get(), Ordering::Relaxed);
        Self { wal, fsync, mailbox, shards, stats, spares, sync_at: None }
    }

    /// Serves until asked to stop.
    ///
    /// # Errors
    /// [`WalError`]: what is on disk is not known any more, and the process has to end.
    pub fn run(mut self) -> Result<(), WalError> {
        let mut messages = Vec::new();
        let mut batch = Vec::new();
        loop {
            self.ask_for_spare();
            let patience = self.sync_at.map(|at| at.since(Now::read().moment));
            self.mailbox.drain(&mut messages, patience);
            let mut stop = false;
            let mut asked = Vec::new();
            for message in messages.drain(..) {
                match message {
                    WalMessage::Write(submission) => batch.push(submission),
                    WalMessage::Sync(sender) => asked.push(sender),
                    WalMessage::Free(lsn) => self.wal.free_through(lsn),
                    WalMessage::Stop => stop = true,
                }
            }
            self.write(&mut batch)?;
            self.sync_if_due(stop || !asked.is_empty())?;
            for sender in asked {
                // Whoever asked may have given up waiting.
                sender.try_send(self.wal.durable()).ok();
            }
            if stop {
                return Ok(());
            }
        }
    }

    fn write(&mut self, batch: &mut Vec<Submission>) -> Result<(), WalError> {
        if batch.is_empty() {
            return Ok(());
        }
        let entries: Vec<Entry<'_>> = batch
            .iter()
            .map(|submission| Entry {
                shard: submission.shard,
                term: 0,
                index: submission.index,
                payload: &submission.payload,
            })
            .collect();
        let first = self.wal.last().get() + 1;
        loop {
            match self.wal.append(&entries) {
                Ok(_) => break,
                Err(full) if full.is_no_space() => {
                    tracing::error!(event = "disk_full", "no room for the write-ahead log: {full}");
                    std::thread::sleep(NO_SPACE_PAUSE);
                }
                Err(other) => return Err(other),
            }
        }
        if self.fsync == Fsync::Always {
            self.wal.sync()?;
        }
        self.stats.last.store(self.wal.last().get(), Ordering::Relaxed);
        self.stats.bytes.store(self.wal.bytes_written(), Ordering::Relaxed);
        for (lsn, submission) in (first..).zip(batch.drain(..)) {
            let shard = &self.shards[submission.shard as usize];
            shard.post(Message::Committed {
                index: submission.index,
                lsn: Lsn::new(lsn),
                payload: submission.payload,
            });
        }
        Ok(())
    }

    /// With `interval`: syncs when what was written first is that old.
    fn sync_if_due(&mut self, is_asked: bool) -> Result<(), WalError> {
        if self.wal.durable() == self.wal.last() {
            self.sync_at = None;
            return Ok(());
        }
        let now = Now::read().moment;
        let due = match self.fsync {
            Fsync::Always => true,
            Fsync::Interval(interval) => *self.sync_at.get_or_insert(now + interval) <= now,
            Fsync::Never => false,
        };
        if due || is_asked {
            self.wal.sync()?;
            self.sync_at = None;
        }
        Ok(())
    }

    fn ask_for_spare(&mut self) {
        if let Some(job) = self.wal.spare_job() {
            // With nobody left to prepare segments, the log makes its own when it needs one.
            self.spares.send(job).ok();
        }
    }
}
