//! Committing: batches of all shards go into one write-ahead log and are made durable together.
//!
//! This is the seam for a cluster: alone, a batch is committed when its record is on this disk; in
//! a cluster it will be when a quorum has it. Shards see the difference only in when
//! [`Message::Committed`] comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::config::Fsync;
use crate::disk::SyncAhead;
use crate::planted::{self, Bug};
use crate::time::Moment;
use crate::wal::{Lsn, SpareJob, Wal, WalError};

use super::ahead::Ahead;
use super::gate::{Full, PublishGate};
use super::lock;
use super::lock_file::Held;
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
    /// Where jobs of preparing segments go, until it is told to stop.
    spares: Mutex<Option<mpsc::Sender<SpareJob>>>,
    ahead: Arc<Ahead>,
    /// Whoever may write to the directory has the log: as long as one of them is there nobody else has it.
    _lock: Held,
}

impl Log {
    /// A log with this writer, in a directory that is had.
    pub fn new(
        writer: LogWriter,
        spares: mpsc::Sender<SpareJob>,
        ahead: Arc<Ahead>,
        lock: Held,
    ) -> Self {
        let (writer, spares) = (Mutex::new(writer), Mutex::new(Some(spares)));
        Self { writer, mailbox: Mailbox::default(), spares, ahead, _lock: lock }
    }

    /// Lets its thread end when all is written, and the one that prepares segments after its last job.
    pub(super) fn stop(&self) {
        *lock(&self.spares) = None;
        self.mailbox.post(WalMessage::Stop);
    }

    /// Has others do what the log would later have to wait for.
    fn offer_jobs(&self, writer: &mut LogWriter) {
        self.ahead.offer(|| writer.sync_ahead());
        if let Some(spares) = &*lock(&self.spares)
            && let Some(job) = writer.spare_job()
        {
            // With nobody left to prepare segments, the log makes its own when it needs one.
            spares.send(job).ok();
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
                log.offer_jobs(&mut writer);
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
            Err(full) if full.is_shortage() => {
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
    syncs: AtomicU64,
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

    /// How often messages have waited for a sync since the start: once for each write with
    /// `fsync = always`, and never otherwise.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
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
    /// With [`WalError::is_shortage`] nothing was written, and it may be tried again. Any other: what
    /// is on disk is not known any more, and the process has to end.
    pub fn write(&mut self, batches: &[Submission]) -> Result<Lsn, WalError> {
        let first = self.wal.last().next();
        match batches {
            [one] => self.wal.append(&[one.entry()])?,
            all => self.wal.append(&all.iter().map(Submission::entry).collect::<Vec<_>>())?,
        };
        if self.fsync == Fsync::Always && !planted::has(Bug::ReplyBeforeSync) {
            self.wal.sync()?;
            self.stats.syncs.fetch_add(1, Ordering::Relaxed);
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

    /// What another thread may sync before the log has to.
    pub fn sync_ahead(&mut self) -> Option<SyncAhead> {
        self.wal.sync_ahead()
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
    /// Serves until asked to stop. While the disk has no room for what is to be written, all the
    /// rest goes on: what was written before is synced in time, and a checkpoint may make room.
    ///
    /// # Errors
    /// [`WalError`]: what is on disk is not known any more, and the process has to end.
    pub fn run(self) -> Result<(), WalError> {
        let mut messages = Vec::new();
        let mut batch = Vec::new();
        let mut sync_at: Option<Moment> = None;
        // With no room on the disk: when to look again.
        let mut retry_at: Option<Moment> = None;
        let mut stop = false;
        self.log.offer_jobs(&mut lock(&self.log.writer));
        loop {
            let wake_at = [sync_at, retry_at].into_iter().flatten().min();
            let patience = wake_at.map(|at| at.since(Moment::read()));
            self.log.mailbox.drain(&mut messages, patience);
            let mut writer = lock(&self.log.writer);
            let mut asked = Vec::new();
            for message in messages.drain(..) {
                match message {
                    WalMessage::Write(submission) => batch.push(submission),
                    WalMessage::Sync(sender) => asked.push(sender),
                    WalMessage::Free(lsn) => {
                        writer.free_through(lsn);
                        // Perhaps there is room now.
                        retry_at = retry_at.map(|_| Moment::default());
                    }
                    WalMessage::OfferSpare => {}
                    WalMessage::Stop => stop = true,
                }
            }
            let is_pausing = retry_at.is_some_and(|at| Moment::read() < at);
            if !batch.is_empty() && !is_pausing {
                let is_written = self.write(&mut writer, &mut batch, retry_at.is_some())?;
                retry_at = (!is_written).then(|| Moment::read() + NO_SPACE_PAUSE);
            }
            let stops = stop && batch.is_empty();
            if stops || !asked.is_empty() {
                let durable = writer.sync()?;
                for sender in asked {
                    // Whoever asked may have given up waiting.
                    sender.try_send(durable).ok();
                }
            } else {
                writer.sync_if_due(Moment::read())?;
            }
            self.log.offer_jobs(&mut writer);
            sync_at = writer.sync_at();
            if stops {
                return Ok(());
            }
        }
    }

    /// Writes the batches; false if there is no room or no file descriptor, and nothing was written. With
    /// `was_full` there was none the last time.
    fn write(
        &self,
        writer: &mut LogWriter,
        batch: &mut Vec<Submission>,
        was_full: bool,
    ) -> Result<bool, WalError> {
        let first = match writer.write(batch) {
            Ok(first) => first,
            Err(full) if full.is_shortage() => {
                self.gate.set(Full::Wal, true);
                return Ok(false);
            }
            Err(other) => return Err(other),
        };
        if was_full {
            // If there is still no room for the next segment, whoever prepares it says so.
            self.gate.set(Full::Wal, false);
        }
        for (lsn, submission) in (first.get()..).zip(batch.drain(..)) {
            let shard = &self.shards[submission.shard as usize];
            let Submission { index, payload, .. } = submission;
            shard.post(Message::Committed { index, lsn: Lsn::new(lsn), payload });
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::layout::Layout;
    use super::super::lock_file::{self, Holder};
    use super::*;
    use crate::disk::sim::{Crash, SimDisk};
    use crate::disk::{Disk, Space};
    use crate::wal::{Identity, Settings, examine};

    const DIR: &str = "/wal";

    fn batch(index: u64, bytes: usize) -> WalMessage {
        WalMessage::Write(Submission { shard: 0, index, payload: vec![1; bytes] })
    }

    fn arc(disk: &SimDisk) -> Arc<dyn Disk> {
        Arc::new(disk.clone())
    }

    /// Waits until a power cut would leave so many records.
    fn wait_durable(disk: &SimDisk, settings: Settings, last: u64) {
        let begin = Moment::read();
        loop {
            let left = arc(&disk.copy(Crash::LoseUnsynced));
            let found = examine(left, Path::new(DIR), settings, Lsn::ZERO).map(|log| log.last());
            if found.as_ref().is_ok_and(|found| *found == Lsn::new(last)) {
                return;
            }
            let waited = Moment::read().since(begin);
            assert!(waited < Duration::from_secs(20), "there is {found:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The log once waited for room and did nothing else: what had been answered was not synced when
    /// its interval was over, and no checkpoint could be made, which might have given it room.
    #[test]
    fn a_log_without_room_syncs_what_it_wrote_and_serves_checkpoints() {
        let (disk, settings) = (SimDisk::new(), Settings { segment_bytes: 8192 });
        let identity = Identity { node: 1, secret: 2 };
        let wal = Wal::create(arc(&disk), Path::new(DIR), identity, settings).unwrap();
        let writer = LogWriter::new(wal, Fsync::Interval(Duration::from_millis(30)));
        let (spares, jobs) = mpsc::channel();
        let layout = Layout::new(Path::new("/data"));
        disk.create_dir(&layout.meta).unwrap();
        let lock = lock_file::take(&disk, &layout, Holder::Broker).unwrap();
        let log = Arc::new(Log::new(writer, spares, Arc::default(), lock));
        let (shards, gate) = (vec![Arc::default()], Arc::<PublishGate>::default());
        let thread = WalThread { log: Arc::clone(&log), shards, gate: Arc::clone(&gate) };
        let shard = Arc::clone(&thread.shards[0]);
        let thread = std::thread::spawn(move || thread.run());
        // Nobody prepares segments, and there is no room for one.
        drop(jobs);
        disk.set_space(Space { free: 0, total: 1 << 30 });
        log.mailbox.post(batch(1, 2000));
        let mut committed = Vec::new();
        shard.drain(&mut committed, None);
        log.mailbox.post(batch(2, 4000));
        while gate.refusal().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        wait_durable(&disk, settings, 1);
        let (sender, receiver) = mpsc::sync_channel(1);
        log.mailbox.post(WalMessage::Sync(sender));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(Lsn::new(1)));
        disk.set_space(Space { free: 1 << 30, total: 1 << 30 });
        shard.drain(&mut committed, None);
        assert_eq!((committed.len(), gate.refusal()), (2, None));
        log.mailbox.post(WalMessage::Stop);
        thread.join().unwrap().unwrap();
        wait_durable(&disk, settings, 2);
    }

    /// A full segment once was synced in one go, 32 MiB of it, and whoever published waited.
    #[test]
    fn a_log_that_nobody_syncs_is_synced_ahead() {
        for (fsync, expected, syncs) in [(Fsync::Never, 1, 0), (Fsync::Always, 0, 5)] {
            let (disk, settings) = (SimDisk::new(), Settings { segment_bytes: 8 << 20 });
            let identity = Identity { node: 1, secret: 2 };
            let wal = Wal::create(arc(&disk), Path::new(DIR), identity, settings).unwrap();
            let mut writer = LogWriter::new(wal, fsync);
            let mut jobs = Vec::new();
            for index in 1..=5 {
                let payload = vec![1; 400 << 10];
                writer.write(&[Submission { shard: 0, index, payload }]).unwrap();
                jobs.extend(writer.sync_ahead());
            }
            assert_eq!(writer.stats().syncs(), syncs, "{fsync:?}");
            assert_eq!(jobs.len(), expected, "{fsync:?}: two mebibytes, and one job at a time");
            for job in jobs {
                job.run().unwrap();
                let left = arc(&disk.copy(Crash::LoseUnsynced));
                let found = examine(left, Path::new(DIR), settings, Lsn::ZERO).unwrap();
                assert_eq!(found.last(), Lsn::new(5), "{fsync:?}");
            }
        }
    }
}
