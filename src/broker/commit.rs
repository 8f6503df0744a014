//! Committing: batches of all shards go into one write-ahead log and are made durable together.
//!
//! This is the seam for a cluster: alone, a batch is committed when its record is on this disk; in
//! a cluster it will be when a quorum has it. Shards see the difference only in when
//! [`Message::Committed`] comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::config::Fsync;
use crate::planted::{self, Bug};
use crate::time::{Moment, Now};
use crate::wal::{Entry, Lsn, SpareJob, Wal, WalError};

use super::gate::{Full, PublishGate};
use super::lock;
use super::mailbox::Mailbox;
use super::message::{Message, Submission, WalMessage};

/// How long the log waits for room on the disk before it looks again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(200);

/// How commands become durable.
#[derive(Clone, Debug)]
pub enum Commit {
    /// In this node's log.
    Alone(Arc<Log>),
}

/// The log, as its thread and the shards share it.
#[derive(Debug)]
pub struct Log {
    writer: Mutex<LogWriter>,
    /// What the thread is asked for.
    pub mailbox: Mailbox<WalMessage>,
    /// Where jobs of preparing segments go.
    spares: Mutex<mpsc::Sender<SpareJob>>,
}

impl Log {
    /// A log with this writer.
    pub fn new(writer: LogWriter, spares: mpsc::Sender<SpareJob>) -> Self {
        Self { writer: Mutex::new(writer), mailbox: Mailbox::default(), spares: Mutex::new(spares) }
    }

    fn offer_spare(&self, writer: &mut LogWriter) {
        if let Some(job) = writer.spare_job() {
            // With nobody left to prepare segments, the log makes its own when it needs one.
            lock(&self.spares).send(job).ok();
        }
    }
}

impl Commit {
    /// Asks for a batch to be committed; its shard hears of it.
    pub fn submit(&self, submission: Submission) {
        match self {
            Commit::Alone(log) => log.mailbox.post(WalMessage::Write(submission)),
        }
    }

    /// Commits a small batch here and now, if nobody else is at the log. Otherwise it goes to the
    /// log's thread. The shard must have no other batch on its way.
    ///
    /// # Errors
    /// As for [`LogWriter::write`], but for a full disk, which the thread waits for.
    pub fn now_or_submit(&self, submission: Submission) -> Result<Option<Message>, WalError> {
        let Commit::Alone(log) = self;
        let written = match log.writer.try_lock() {
            Ok(mut writer) if writer.is_prompt() && submission.is_quick() => {
                let written = writer.write(std::slice::from_ref(&submission));
                log.offer_spare(&mut writer);
                written
            }
            _ => {
                self.submit(submission);
                return Ok(None);
            }
        };
        match written {
            Ok(lsn) => {
                let Submission { index, payload, .. } = submission;
                Ok(Some(Message::Committed { index, lsn, payload }))
            }
            Err(full) if full.is_no_space() => {
                self.submit(submission);
                Ok(None)
            }
            Err(error) => Err(error),
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

/// The log's one writer, without a thread.
#[derive(Debug)]
pub struct LogWriter {
    wal: Wal,
    fsync: Fsync,
    stats: Arc<WalStats>,
    sync_at: Option<Moment>,
}

impl LogWriter {
    /// The writer of this log.
    pub fn new(wal: Wal, fsync: Fsync) -> Self {
        let stats = Arc::new(WalStats::default());
        stats.last.store(wal.last().get(), Ordering::Relaxed);
        Self { wal, fsync, stats, sync_at: None }
    }

    /// How far the log is.
    pub fn stats(&self) -> &Arc<WalStats> {
        &self.stats
    }

    /// The last record that is known to be durable.
    pub fn durable(&self) -> Lsn {
        self.wal.durable()
    }

    /// Writes batches, a record each, and with `fsync = always` makes them durable: they are
    /// committed. Gives the number of the first record.
    ///
    /// # Errors
    /// With [`WalError::is_no_space`] nothing was written, and it may be tried again. Any other: what
    /// is on disk is not known any more, and the process has to end.
    pub fn write(&mut self, batches: &[Submission]) -> Result<Lsn, WalError> {
        let entries: Vec<Entry<'_>> = batches.iter().map(Submission::entry).collect();
        let first = self.wal.last().next();
        self.wal.append(&entries)?;
        if self.fsync == Fsync::Always && !planted::has(Bug::ReplyBeforeSync) {
            self.wal.sync()?;
        }
        self.stats.last.store(self.wal.last().get(), Ordering::Relaxed);
        self.stats.bytes.store(self.wal.bytes_written(), Ordering::Relaxed);
        Ok(first)
    }

    /// Whether a batch is committed when [`LogWriter::write`] returns, and needs no later sync.
    fn is_prompt(&self) -> bool {
        !matches!(self.fsync, Fsync::Interval(_))
    }

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// As for [`LogWriter::write`].
    pub fn sync(&mut self) -> Result<Lsn, WalError> {
        self.sync_at = None;
        if self.wal.durable() < self.wal.last() {
            self.wal.sync()?;
        }
        Ok(self.wal.durable())
    }

    /// With `fsync = interval`: syncs when what was written first is that old.
    ///
    /// # Errors
    /// As for [`LogWriter::write`].
    pub fn sync_if_due(&mut self, now: Moment) -> Result<(), WalError> {
        let Fsync::Interval(interval) = self.fsync else { return Ok(()) };
        if planted::has(Bug::IntervalForgotten) {
            return Ok(());
        }
        if self.wal.durable() == self.wal.last() {
            self.sync_at = None;
        } else if *self.sync_at.get_or_insert(now + interval) <= now {
            self.sync()?;
        }
        Ok(())
    }

    /// When [`LogWriter::sync_if_due`] has something to do.
    pub fn sync_at(&self) -> Option<Moment> {
        self.sync_at
    }

    /// A checkpoint covers the log up to this record.
    pub fn free_through(&mut self, lsn: Lsn) {
        self.wal.free_through(lsn);
    }

    /// Work for another thread that the log would otherwise do itself when it needs the outcome.
    pub fn spare_job(&mut self) -> Option<SpareJob> {
        self.wal.spare_job()
    }
}

/// The log's thread.
#[derive(Debug)]
pub struct WalThread {
    /// The log.
    pub log: Arc<Log>,
    /// Where committed batches go, by shard.
    pub shards: Vec<Arc<Mailbox<Message>>>,
    /// Closed while there is no room.
    pub gate: Arc<PublishGate>,
}

impl WalThread {
    /// Serves until asked to stop.
    ///
    /// # Errors
    /// [`WalError`]: what is on disk is not known any more, and the process has to end.
    pub fn run(self) -> Result<(), WalError> {
        let mut messages = Vec::new();
        let mut batch = Vec::new();
        let mut sync_at: Option<Moment> = None;
        self.log.offer_spare(&mut lock(&self.log.writer));
        loop {
            let patience = sync_at.map(|at| at.since(Now::read().moment));
            self.log.mailbox.drain(&mut messages, patience);
            let mut writer = lock(&self.log.writer);
            let mut stop = false;
            let mut asked = Vec::new();
            for message in messages.drain(..) {
                match message {
                    WalMessage::Write(submission) => batch.push(submission),
                    WalMessage::Sync(sender) => asked.push(sender),
                    WalMessage::Free(lsn) => writer.free_through(lsn),
                    WalMessage::OfferSpare => {}
                    WalMessage::Stop => stop = true,
                }
            }
            self.write(&mut writer, &mut batch)?;
            if stop || !asked.is_empty() {
                let durable = writer.sync()?;
                for sender in asked {
                    // Whoever asked may have given up waiting.
                    sender.try_send(durable).ok();
                }
            } else {
                writer.sync_if_due(Now::read().moment)?;
            }
            self.log.offer_spare(&mut writer);
            sync_at = writer.sync_at();
            if stop {
                return Ok(());
            }
        }
    }

    fn write(&self, writer: &mut LogWriter, batch: &mut Vec<Submission>) -> Result<(), WalError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut was_full = false;
        let first = loop {
            match writer.write(batch) {
                Ok(first) => break first,
                Err(full) if full.is_no_space() => {
                    was_full = true;
                    self.gate.set(Full::Wal, true);
                    std::thread::sleep(NO_SPACE_PAUSE);
                }
                Err(other) => return Err(other),
            }
        };
        if was_full {
            // If there is still no room for the next segment, whoever prepares it says so again.
            self.gate.set(Full::Wal, false);
        }
        for (lsn, submission) in (first.get()..).zip(batch.drain(..)) {
            let shard = &self.shards[submission.shard as usize];
            let Submission { index, payload, .. } = submission;
            shard.post(Message::Committed { index, lsn: Lsn::new(lsn), payload });
        }
        Ok(())
    }
}
