//! The running broker: its threads, which shard a topic is on, and stopping in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::{Fsync, MinFree};
use crate::delivery::Policy;
use crate::disk::Disk;
use crate::ids::TopicName;
use crate::log::{LogSettings, TailBudget};
use crate::proto::{ErrorCode, WireError};
use crate::time::{Moment, Now};
use crate::wal::{self, Lsn, SpareJob, WalError};

use super::checkpoint::{Checkpoint, CheckpointError, Part};
use super::commit::{Commit, WalMessage, WalStats, WalThread};
use super::letter::Letter;
use super::lock;
use super::mailbox::Mailbox;
use super::open::{Held, Layout, Opened};
use super::shard::{Gate, Shard, ShardError};
use super::thread::{self, Message};
use super::topics::Workshop;

/// How often the checkpoint thread looks whether it has something to do.
const HOUSEKEEPING_PAUSE: Duration = Duration::from_millis(250);

/// How long to wait when no log segment could be prepared.
const SPARE_PAUSE: Duration = Duration::from_secs(1);

/// The shard of a topic; its dead-letter topic is on the same one.
pub fn shard_of(topic: &TopicName, shards: u32) -> u32 {
    crc32c::crc32c(topic.family().as_bytes()) % shards
}

/// What a broker is started with.
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
    /// What stays free on the disk.
    pub min_free: MinFree,
    /// Timings of groups.
    pub policy: Policy,
    /// Credit of a member.
    pub prefetch: u32,
    /// The room for recent lines.
    pub tail: Arc<TailBudget>,
    /// What stands in the way of publishing.
    pub gate: Arc<PublishGate>,
}

impl Settings {
    pub(super) fn workshop(&self, disk: &Arc<dyn Disk>) -> Workshop {
        Workshop {
            disk: Arc::clone(disk),
            dir: self.data_dir.clone(),
            log: self.log,
            tail: Arc::clone(&self.tail),
            policy: Arc::new(Policy { dead_letters: true, ..self.policy.clone() }),
            dead_letter_policy: Arc::new(Policy { dead_letters: false, ..self.policy.clone() }),
        }
    }
}

/// Whether publishing is possible: set by housekeeping, asked for every letter.
#[derive(Debug, Default)]
pub struct PublishGate(AtomicU8);

const DISK_FULL: u8 = 1;

impl PublishGate {
    fn set_disk_full(&self, full: bool) -> bool {
        let state = if full { DISK_FULL } else { 0 };
        self.0.swap(state, Ordering::Relaxed) != state
    }
}

impl Gate for PublishGate {
    fn refusal(&self) -> Option<WireError> {
        (self.0.load(Ordering::Relaxed) == DISK_FULL).then(|| {
            let text = "the disk has less room than storage.min_free keeps free";
            WireError::new(ErrorCode::DiskFull, text).with("retry_after", "1s")
        })
    }
}

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
    /// A topic's file could not be synced.
    #[error("a checkpoint failed to sync the topics' files: {0}")]
    Sync(std::io::Error),
    /// A thread panicked: a mistake in the code.
    #[error("the {0} thread panicked")]
    Panicked(String),
    /// A thread that had to answer is gone.
    #[error("a thread ended too early")]
    Gone,
}

/// The running broker.
#[derive(Debug)]
pub struct Broker {
    shards: Vec<Arc<Mailbox<Message>>>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    shards: Vec<JoinHandle<Option<Shard>>>,
    wal: JoinHandle<Option<()>>,
    wal_mailbox: Arc<Mailbox<WalMessage>>,
    keeper: JoinHandle<Option<Keeper>>,
    stop_keeper: SyncSender<()>,
    _lock: Held,
}

impl Broker {
    /// Starts the threads. The receiver gets the reason if one of them can't go on.
    pub fn start(
        opened: Opened,
        disk: &Arc<dyn Disk>,
        settings: &Settings,
    ) -> (Broker, UnboundedReceiver<Fatal>) {
        let (fatal, failures) = unbounded_channel();
        let wal_mailbox = Arc::new(Mailbox::default());
        let mailboxes: Vec<_> =
            opened.shards.iter().map(|_| Arc::new(Mailbox::default())).collect();
        let stats = Arc::new(WalStats::default());
        let (spares, spare_jobs) = mpsc::channel();
        let wal = WalThread::new(
            opened.wal,
            settings.fsync,
            Arc::clone(&wal_mailbox),
            mailboxes.clone(),
            Arc::clone(&stats),
            spares,
        );
        prepare_spares(spare_jobs, &fatal);
        let commit = Commit::Alone(Arc::clone(&wal_mailbox));
        let shards = opened.shards.into_iter().zip(&mailboxes).enumerate();
        let shards = shards
            .map(|(number, (shard, mailbox))| {
                let (mailbox, commit) = (Arc::clone(mailbox), commit.clone());
                let serve = move || thread::run(shard, &mailbox, &commit).map_err(Fatal::from);
                spawn(format!("shard-{number}"), fatal.clone(), serve)
            })
            .collect();
        let keeper = Keeper {
            disk: Arc::clone(disk),
            layout: Layout::new(&settings.data_dir),
            settings: settings.clone(),
            shards: mailboxes.clone(),
            wal: Arc::clone(&wal_mailbox),
            stats,
            number: opened.checkpoint,
            previous: Lsn::default(),
            last: Lsn::default(),
            last_bytes: 0,
            last_at: Now::read().moment,
        };
        let (stop_keeper, stopped) = mpsc::sync_channel(1);
        let threads = Threads {
            shards,
            wal: spawn("wal".to_owned(), fatal.clone(), move || Ok(wal.run()?)),
            wal_mailbox,
            keeper: spawn("keeper".to_owned(), fatal, move || keeper.run(&stopped)),
            stop_keeper,
            _lock: opened.lock,
        };
        (Broker { shards: mailboxes, threads: Mutex::new(Some(threads)) }, failures)
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        u32::try_from(self.shards.len()).expect("a handful")
    }

    /// The mailbox of a shard.
    pub fn mailbox(&self, shard: u32) -> &Arc<Mailbox<Message>> {
        &self.shards[shard as usize]
    }

    /// Posts a letter to a shard.
    pub fn post(&self, shard: u32, letter: Letter) {
        self.mailbox(shard).post(Message::Letter(letter));
    }

    /// Finishes what was taken, writes a clean checkpoint and ends the threads.
    ///
    /// # Errors
    /// [`Fatal`]: the next start will recover.
    pub fn stop(&self) -> Result<(), Fatal> {
        let Some(threads) = lock(&self.threads).take() else { return Ok(()) };
        // The keeper first: a checkpoint that it is writing needs the shards.
        threads.stop_keeper.try_send(()).ok();
        let mut keeper = join(threads.keeper)?;
        for mailbox in &self.shards {
            mailbox.post(Message::Stop);
        }
        let shards = threads.shards.into_iter().map(join).collect::<Result<Vec<_>, _>>()?;
        let last = keeper.stats.last();
        let parts = shards.into_iter().map(|mut shard| shard.part(last));
        let parts = parts.collect::<Result<_, _>>()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        threads.wal_mailbox.post(WalMessage::Sync(sender));
        receiver.recv().map_err(|_gone| Fatal::Gone)?;
        keeper.write(parts, true)?;
        threads.wal_mailbox.post(WalMessage::Stop);
        join(threads.wal)
    }
}

fn join<T>(thread: JoinHandle<Option<T>>) -> Result<T, Fatal> {
    thread.join().ok().flatten().ok_or(Fatal::Gone)
}

/// Starts a thread whose end by error or panic ends the broker.
fn spawn<T: Send + 'static>(
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

/// Prepares log segments beside the log's thread, which would have to wait for it.
fn prepare_spares(jobs: Receiver<SpareJob>, fatal: &UnboundedSender<Fatal>) {
    let serve = move || {
        for job in jobs {
            if let Err(error) = job.run() {
                tracing::warn!(event = "spare_failed", "{error}");
                // The job is offered again; a full disk is not asked all the time.
                std::thread::sleep(SPARE_PAUSE);
            }
        }
        Ok(())
    };
    drop(spawn("spares".to_owned(), fatal.clone(), serve));
}

/// Housekeeping: checkpoints, and whether the disk has room.
#[derive(Debug)]
struct Keeper {
    disk: Arc<dyn Disk>,
    layout: Layout,
    settings: Settings,
    shards: Vec<Arc<Mailbox<Message>>>,
    wal: Arc<Mailbox<WalMessage>>,
    stats: Arc<WalStats>,
    number: u64,
    /// The position of the checkpoint before the last: the log is kept from there.
    previous: Lsn,
    last: Lsn,
    last_bytes: u64,
    last_at: Moment,
}

impl Keeper {
    fn run(mut self, stopped: &Receiver<()>) -> Result<Keeper, Fatal> {
        self.last = Checkpoint::newest(self.disk.as_ref(), &self.layout.checkpoints())?
            .map(|newest| newest.lsn())
            .unwrap_or_default();
        self.previous = Checkpoint::oldest_lsn(self.disk.as_ref(), &self.layout.checkpoints())?;
        loop {
            self.watch_room();
            if self.is_due() {
                let parts = self.parts()?;
                self.write(parts, false)?;
            }
            match stopped.recv_timeout(HOUSEKEEPING_PAUSE) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(self),
            }
        }
    }

    fn is_due(&self) -> bool {
        let news = self.stats.last() > self.last;
        let bytes = self.stats.bytes() - self.last_bytes;
        let age = Now::read().moment.since(self.last_at);
        news && (bytes >= self.settings.checkpoint_bytes
            || age >= self.settings.checkpoint_interval)
    }

    fn parts(&self) -> Result<Vec<Part>, Fatal> {
        let (sender, receiver) = mpsc::sync_channel(self.shards.len());
        let last = self.stats.last();
        for shard in &self.shards {
            shard.post(Message::Checkpoint { sender: sender.clone(), last });
        }
        drop(sender);
        let parts: Vec<Part> = receiver.iter().collect();
        if parts.len() < self.shards.len() {
            return Err(Fatal::Gone);
        }
        // What a checkpoint covers must not be ahead of what the log has durable.
        let (sender, receiver) = mpsc::sync_channel(1);
        self.wal.post(WalMessage::Sync(sender));
        receiver.recv().map_err(|_gone| Fatal::Gone)?;
        Ok(parts)
    }

    /// Syncs the topics' files, writes the checkpoint and frees the log before the last one.
    fn write(&mut self, parts: Vec<Part>, is_clean: bool) -> Result<(), Fatal> {
        let (bytes, now) = (self.stats.bytes(), Now::read());
        let (checkpoint, syncs) = Checkpoint::of(self.number + 1, is_clean, parts);
        for sync in syncs {
            sync.run(self.disk.as_ref()).map_err(Fatal::Sync)?;
        }
        checkpoint.write(self.disk.as_ref(), &self.layout.checkpoints(), now.wall)?;
        self.number += 1;
        self.previous = self.last;
        self.last = checkpoint.lsn();
        self.last_bytes = bytes;
        self.last_at = now.moment;
        self.wal.post(WalMessage::Free(self.previous));
        tracing::debug!(event = "checkpoint", number = self.number, lsn = self.last.get());
        Ok(())
    }

    fn watch_room(&self) {
        let space = match self.disk.space(&self.layout.data) {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(
                    event = "space_unknown",
                    "failed to ask for the disk's room: {error}"
                );
                return;
            }
        };
        let keep = self.settings.min_free.bytes_of(space.total);
        let full = space.free < keep;
        if self.settings.gate.set_disk_full(full) {
            if full {
                tracing::error!(
                    event = "disk_full",
                    free = space.free,
                    min_free = keep,
                    "publishing is refused until the disk has room again"
                );
            } else {
                tracing::info!(
                    event = "disk_has_room",
                    free = space.free,
                    min_free = keep,
                    "publishing goes on"
                );
            }
        }
    }
}
