//! The running broker: its threads, which shard a topic is on, and stopping in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::disk::Disk;
use crate::memory::Burst;

use super::ahead::Ahead;
use super::checkpoint::Part;
use super::commit::{Commit, Log, LogWriter, WalStats, WalThread};
use super::fatal::{Fatal, join, spawn};
use super::keeper::{Keeper, Verifying};
use super::letter::Letter;
use super::lock;
use super::mailbox::Mailbox;
use super::message::Message;
use super::open::Opened;
use super::outbox::Letters;
use super::retention::Retaining;
use super::settings::Settings;
use super::shard::ALL_TOPICS;
use super::spares;
use super::thread::Home;

/// The running broker.
#[derive(Debug)]
pub struct Broker {
    homes: Vec<Arc<Home>>,
    /// Bytes that have left sessions, but for what others sent for them.
    moved: Arc<AtomicU64>,
    stats: Arc<WalStats>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    shards: Vec<JoinHandle<Option<()>>>,
    wal: JoinHandle<Option<()>>,
    log: Arc<Log>,
    keeper: JoinHandle<Option<Keeper>>,
    stop_keeper: SyncSender<()>,
    ahead: Arc<Ahead>,
    ahead_thread: JoinHandle<Option<()>>,
}

impl Broker {
    /// Starts the threads. The receiver gets the reason if one of them can't go on.
    pub fn start(
        opened: Opened,
        disk: &Arc<dyn Disk>,
        settings: &Settings,
    ) -> (Broker, UnboundedReceiver<Fatal>) {
        let (fatal, failures) = unbounded_channel();
        let writer = LogWriter::new(opened.wal, settings.fsync);
        let stats = Arc::clone(writer.stats());
        let (spares, spare_jobs) = mpsc::channel();
        let ahead = Arc::clone(&settings.ahead);
        let log = Arc::new(Log::new(writer, spares, Arc::clone(&ahead), opened.lock));
        spares::start(spare_jobs, Arc::clone(&settings.gate), Arc::clone(&log), &fatal);
        let ahead_thread = ahead.start(&fatal);
        let commit = Commit::Alone(Arc::clone(&log));
        let home = |shard| Arc::new(Home::new(shard, commit.clone()));
        let homes: Vec<_> = opened.shards.into_iter().map(home).collect();
        let mailboxes: Vec<_> = homes.iter().map(|home| Arc::clone(home.mailbox())).collect();
        let wal = WalThread {
            log: Arc::clone(&log),
            shards: mailboxes.clone(),
            gate: Arc::clone(&settings.gate),
        };
        let serve = |(number, home): (usize, &Arc<Home>)| {
            let home = Arc::clone(home);
            spawn(format!("shard-{number}"), fatal.clone(), move || home.serve())
        };
        let shards = homes.iter().enumerate().map(serve).collect();
        let keeper = Keeper {
            checkpoints: opened.checkpoints,
            disk: Arc::clone(disk),
            settings: settings.clone(),
            shards: mailboxes,
            log: Arc::clone(&log),
            stats: Arc::clone(&stats),
            retaining: Retaining::new(settings.retention),
            verifying: Verifying::default(),
            burst: Burst::default(),
            moved: Arc::default(),
        };
        let moved = Arc::clone(&keeper.moved);
        let (stop_keeper, stopped) = mpsc::sync_channel(1);
        let threads = Threads {
            shards,
            wal: spawn("wal".to_owned(), fatal.clone(), move || Ok(wal.run()?)),
            log,
            keeper: spawn("keeper".to_owned(), fatal, move || keeper.run(&stopped)),
            stop_keeper,
            ahead,
            ahead_thread,
        };
        (Broker { homes, moved, stats, threads: Mutex::new(Some(threads)) }, failures)
    }

    /// So many bytes have left a session: sent, or dropped since the rest of their command did not come.
    pub fn count_moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What the log has written; another number whenever it has written something.
    pub fn written(&self) -> u64 {
        self.stats.last().get()
    }

    /// How often messages have waited for the log to be synced.
    pub fn syncs(&self) -> u64 {
        self.stats.syncs()
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        u32::try_from(self.homes.len()).expect("a handful")
    }

    /// The mailbox of a shard.
    pub fn mailbox(&self, shard: u32) -> &Arc<Mailbox<Message>> {
        self.homes[shard as usize].mailbox()
    }

    /// Posts a letter to a shard.
    pub fn post(&self, shard: u32, letter: Letter) {
        self.mailbox(shard).post(Message::Letter(letter));
    }

    /// Brings a letter to a shard in person, if that is at rest and the letter small: the caller then
    /// has waited for the disk, and `direct` is still lent ([`Outbox::lend`]). Otherwise the letter
    /// comes back, for [`Broker::post`].
    ///
    /// [`Outbox::lend`]: super::outbox::Outbox::lend
    pub fn enter(&self, shard: u32, letter: Letter, direct: Option<Letters>) -> Option<Letter> {
        self.homes[shard as usize].enter(letter, direct)
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
        for home in &self.homes {
            home.mailbox().post(Message::Stop);
        }
        threads.shards.into_iter().try_for_each(join)?;
        threads.ahead.stop();
        join(threads.ahead_thread)?;
        let last = keeper.stats.last();
        let parts = self.homes.iter().map(|home| home.shard().part(last, ALL_TOPICS));
        let parts: Option<Vec<Part>> = parts.collect::<Result<_, _>>()?;
        keeper.sync_log()?;
        if let Some(parts) = parts {
            keeper.write(parts, true)?;
        }
        threads.log.stop();
        join(threads.wal)
    }
}
