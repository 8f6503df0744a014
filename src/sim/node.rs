//! The daemon without its threads and sockets: each of them is a method that does one turn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::broker::checkpoint::Taking;
use crate::broker::commit::LogWriter;
use crate::broker::fatal::Fatal;
use crate::broker::gate::{Full, PublishGate};
use crate::broker::keeper::{Checkpoints, watch_room};
use crate::broker::letter::Letter;
use crate::broker::message::{Message, Submission};
use crate::broker::open::{self, Found, OpenError};
use crate::broker::outbox::{Outbox, Wire};
use crate::broker::retention::Retaining;
use crate::broker::settings::Settings;
use crate::broker::shard::Shard;
use crate::broker::thread;
use crate::config::{Fsync, MinFree};
use crate::delivery::Policy;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::ids::ConnId;
use crate::log::{LogSettings, Retention, TailBudget};
use crate::session::core::{self, Core};
use crate::session::read::{ReadJob, Reading};
use crate::time::{Moment, Now};
use crate::topic::Topic;
use crate::wal::{self, Lsn, SpareJob};

use super::journal::Journal;
use super::ledger::Extent;

/// Where its files are.
pub(super) const DIR: &str = "/srv/data";

const SHARDS: u32 = 2;

/// A shard gives the keeper the state of so many topics at a time.
const TOPICS_AT_ONCE: usize = 1;

/// Retries of a message before it is a dead letter.
pub(super) const MAX_RETRIES: u32 = 2;

/// What a member may hold.
pub(super) const PREFETCH: u32 = 3;

/// A member with so many bytes unsent is sent no more: little more than a message.
pub(super) const UNSENT_MAX: usize = 100;

/// How long a member may be silent.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(6);

/// What differs from run to run, and now and then from life to life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) fsync: Fsync,
    /// Most unsettled messages of a group.
    pub(super) unsettled_max: usize,
    /// How much of a topic is kept.
    pub(super) retention: Retention,
    /// When a segment of a topic is full, in bytes.
    pub(super) log_bytes: u64,
    /// The same of the write-ahead log.
    pub(super) wal_bytes: u64,
}

impl Plan {
    /// Everything is synced, and nothing is ever too old or too much.
    pub(super) const PLAIN: Plan = Plan {
        seed: 0,
        fsync: Fsync::Always,
        unsettled_max: 100,
        retention: Retention { age: None, bytes: None },
        log_bytes: 2000,
        wal_bytes: 8 << 10,
    };

    /// The plan of this seed.
    pub(super) fn draw(seed: u64, rng: &mut StdRng) -> Plan {
        // Little more than a segment, or not for much longer than a message is handled, or both.
        let bytes = (seed % 3 == 1).then_some(3000);
        let age = (seed % 4 == 1).then_some(Duration::from_secs(3));
        let (fsync, unsettled_max) = (any_fsync(rng), any_bound(rng));
        Plan { seed, fsync, unsettled_max, retention: Retention { age, bytes }, ..Plan::PLAIN }
    }

    /// Somebody has changed a setting before the next start.
    pub(super) fn change(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..5) {
            0 => self.fsync = any_fsync(rng),
            1 => self.unsettled_max = any_bound(rng),
            2 => {
                let bytes = rng.random_bool(0.5).then(|| rng.random_range(1000..6000));
                let age = rng.random_bool(0.3).then(|| Duration::from_secs(rng.random_range(2..9)));
                self.retention = Retention { age, bytes };
            }
            3 => self.log_bytes = rng.random_range(500..4000),
            _ => self.wal_bytes = [8, 12, 16][rng.random_range(0..3)] << 10,
        }
    }
}

fn any_fsync(rng: &mut StdRng) -> Fsync {
    match rng.random_range(0..10) {
        0..6 => Fsync::Always,
        6..8 => Fsync::Interval(Duration::from_millis(rng.random_range(1..400))),
        _ => Fsync::Never,
    }
}

/// Below what the members of a group may hold together, or out of reach.
fn any_bound(rng: &mut StdRng) -> usize {
    if rng.random_bool(0.3) { 5 } else { 1000 }
}

/// The settings of a life: everything small, so that everything happens often.
fn settings(plan: Plan) -> Settings {
    let Plan { seed, fsync, unsettled_max, retention, log_bytes, wal_bytes } = plan;
    Settings {
        data_dir: PathBuf::from(DIR),
        shards: SHARDS,
        node_seed: seed,
        wal_secret: !seed,
        fsync,
        wal: wal::Settings { segment_bytes: wal_bytes },
        log: LogSettings { segment_bytes: log_bytes },
        checkpoint_bytes: 4 << 10,
        checkpoint_interval: Duration::from_secs(5),
        retention,
        min_free: MinFree::Bytes(1 << 20),
        policy: Policy {
            ack_timeout: Duration::from_secs(4),
            max_retries: MAX_RETRIES,
            backoff: vec![Duration::from_millis(500), Duration::from_secs(1)],
            dead_letters: true,
            unsettled_max,
        },
        prefetch: PREFETCH,
        open_logs_max: 2,
        topics_written_max: if seed.is_multiple_of(2) { 0 } else { 64 },
        tail: Arc::new(TailBudget::new(3000)),
        gate: Arc::new(PublishGate::default()),
        ahead: Arc::default(),
    }
}

/// The daemon; see the module.
pub(super) struct Node {
    pub(super) settings: Settings,
    pub(super) shards: Vec<Shard>,
    inboxes: Vec<Vec<Message>>,
    log: LogWriter,
    log_inbox: Vec<Submission>,
    checkpoints: Checkpoints,
    taking: Option<Taking>,
    retaining: Retaining,
    spare: Option<SpareJob>,
    sessions: BTreeMap<u64, Session>,
    session_settings: Arc<core::Settings>,
    disk: Arc<dyn Disk>,
}

struct Session {
    core: Core,
    outbox: Arc<Outbox>,
    socket: Arc<Socket>,
    buffer: BytesMut,
    jobs: Vec<(Reading, ReadJob)>,
}

/// A session's socket while it sleeps: what shards sent, and how much more goes in.
#[derive(Debug, Default)]
struct Socket(Mutex<(Vec<u8>, usize)>);

/// Now and then a socket takes no more than this of what it is given, in bytes, although it has room:
/// what comes next would go in, and must not.
const CUT_BYTES: usize = 7;

impl Wire for Socket {
    fn send(&self, bytes: &[u8]) -> usize {
        let (sent, room) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if (sent.len() + *room).is_multiple_of(3) { CUT_BYTES } else { *room };
        let count = bytes.len().min(*room).min(most);
        sent.extend_from_slice(&bytes[..count]);
        *room -= count;
        // What follows a cut one is not cut.
        *room -= usize::from(count == most && *room > 0);
        count
    }
}

impl Socket {
    /// Takes what was sent, and has so much room from now on.
    fn empty(&self, room: usize) -> Vec<u8> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = room;
        std::mem::take(&mut state.0)
    }
}

/// What came of a session's turn.
#[derive(Default)]
pub(super) struct Sent {
    /// Bytes on their way to the client.
    pub(super) bytes: Vec<u8>,
    /// Nothing more will come, and the connection is closed.
    pub(super) is_finished: bool,
}

impl Node {
    pub(super) fn start(disk: &SimDisk, plan: Plan, now: Now) -> Result<(Node, Found), OpenError> {
        Self::start_on(Arc::new(disk.clone()), plan, now)
    }

    /// The same on any disk.
    pub(super) fn start_on(
        disk: Arc<dyn Disk>,
        plan: Plan,
        now: Now,
    ) -> Result<(Node, Found), OpenError> {
        let settings = settings(plan);
        let opened = open::open(&disk, &settings, now)?;
        // The lock is that of this life, and a simulated death frees it.
        drop(opened.lock);
        let session_settings = Arc::new(core::Settings {
            message_bytes_max: 1 << 20,
            dead_after: DEAD_AFTER,
            shards: SHARDS,
            disk: Arc::clone(&disk),
            shares: Arc::default(),
            unsent_max: UNSENT_MAX,
        });
        let node = Node {
            log: LogWriter::new(opened.wal, settings.fsync),
            retaining: Retaining::new(settings.retention),
            settings,
            inboxes: opened.shards.iter().map(|_| Vec::new()).collect(),
            shards: opened.shards,
            log_inbox: Vec::new(),
            checkpoints: opened.checkpoints,
            taking: None,
            spare: None,
            sessions: BTreeMap::new(),
            session_settings,
            disk,
        };
        Ok((node, opened.found))
    }

    /// A client connects.
    pub(super) fn connect(&mut self, conn: u64, now: Moment) {
        let socket = Arc::new(Socket::default());
        let outbox = Arc::new(Outbox::with_wire(Arc::clone(&socket) as Arc<dyn Wire>));
        let settings = Arc::clone(&self.session_settings);
        let name = Arc::from(format!("c{conn}"));
        let core = Core::new(ConnId(conn), name, settings, Arc::clone(&outbox), now);
        let session = Session { core, outbox, socket, buffer: BytesMut::new(), jobs: Vec::new() };
        self.sessions.insert(conn, session);
    }

    /// Its connection is cut.
    pub(super) fn disconnect(&mut self, conn: u64) {
        if let Some(mut session) = self.sessions.remove(&conn) {
            let letters = session.core.closed();
            self.post(letters);
        }
    }

    /// The topic of this name, if there is one.
    pub(super) fn topic(&self, name: &str) -> Option<&Topic> {
        let mut all = self.shards.iter().flat_map(|shard| shard.topics());
        all.find(|topic| topic.name().as_str() == name)
    }

    /// How far the topic reaches.
    pub(super) fn extent(&self, topic: &str) -> Extent {
        let Some(log) = self.topic(topic).map(Topic::log) else {
            return Extent { first: 1, visible: 0, end: 0 };
        };
        let (first, visible) = (log.first().get(), log.shared().end().get());
        Extent { first, visible, end: log.end().get() }
    }

    /// The shards' turns are drawn by number.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    fn post(&mut self, letters: impl IntoIterator<Item = (u32, Letter)>) {
        for (shard, letter) in letters {
            self.inboxes[shard as usize].push(Message::Letter(letter));
        }
    }

    /// A turn of a shard's thread.
    pub(super) fn shard_turn(&mut self, number: usize, now: Now) -> Result<(), Fatal> {
        let log_inbox = &mut self.log_inbox;
        let commit = &mut |batch| log_inbox.push(batch);
        thread::turn(&mut self.shards[number], &mut self.inboxes[number], now, now, commit)?;
        Ok(())
    }

    /// A turn of the log's thread.
    pub(super) fn log_turn(&mut self, now: Now, journal: &mut Journal) -> Result<(), Fatal> {
        if self.spare.is_none() {
            self.spare = self.log.spare_job();
        }
        let is_full = !self.write(journal)?;
        self.log.sync_if_due(now.moment)?;
        self.settings.gate.set(Full::Wal, is_full);
        Ok(())
    }

    /// Writes what waits for it; false if there is no room.
    fn write(&mut self, journal: &mut Journal) -> Result<bool, Fatal> {
        if self.log_inbox.is_empty() {
            return Ok(true);
        }
        journal.write(self.last_written(), self.log.durable(), &self.log_inbox);
        let first = match self.log.write(&self.log_inbox) {
            Err(full) if full.is_shortage() => return Ok(false),
            written => written?.get(),
        };
        for (lsn, batch) in (first..).zip(self.log_inbox.drain(..)) {
            let Submission { shard, index, payload } = batch;
            let committed = Message::Committed { index, lsn: Lsn::new(lsn), payload };
            self.inboxes[shard as usize].push(committed);
        }
        Ok(true)
    }

    /// When the log's thread has to sync what was written.
    pub(super) fn sync_at(&self) -> Option<Moment> {
        self.log.sync_at()
    }

    /// A turn of the thread that prepares segments.
    pub(super) fn spare_turn(&mut self) {
        if let Some(job) = self.spare.take() {
            let full = job.run().is_err_and(|error| error.is_no_space());
            self.settings.gate.set(Full::Wal, full);
        }
    }

    /// A turn of the keeper: takes a piece of the shards' states, or makes the checkpoint of what it
    /// took. Says whether it made one.
    pub(super) fn keeper_turn(&mut self, now: Now) -> Result<bool, Fatal> {
        watch_room(self.disk.as_ref(), &self.settings);
        if self.taking.is_none()
            && self.checkpoints.is_due(&self.settings, self.log.stats(), now.moment)
            && self.catch_up()?
        {
            self.taking = Some(Taking::new(self.shards.len(), TOPICS_AT_ONCE));
        }
        self.checkpoints.remove_some(self.disk.as_ref())?;
        self.retain(now)?;
        let Some(mut taking) = self.taking.take() else { return Ok(false) };
        if !self.take(&mut taking, now)? {
            return self.write_checkpoint(taking, false, now);
        }
        self.taking = Some(taking);
        Ok(false)
    }

    /// Whether all is synced that the last checkpoint could not open.
    fn catch_up(&mut self) -> Result<bool, Fatal> {
        match self.checkpoints.catch_up() {
            Err(error) if error.is_shortage() => Ok(false),
            synced => Ok(synced.map(|()| true)?),
        }
    }

    /// Looks at some topics, whether they have to let go of messages.
    fn retain(&mut self, now: Now) -> Result<(), Fatal> {
        let (count, last) = (self.shards.len(), self.log.stats().last());
        let wanted = self.retaining.wants(now.moment, last, count, TOPICS_AT_ONCE);
        let Some((number, piece)) = wanted else { return Ok(()) };
        let (sender, receiver) = sync_channel(1);
        self.inboxes[number].push(Message::Inventory { sender, piece });
        self.shard_turn(number, now)?;
        let inventory = receiver.recv().map_err(|_gone| Fatal::Gone)?;
        let trims = self.retaining.look(self.disk.as_ref(), now, last, inventory);
        self.inboxes[number].push(Message::Trim(trims));
        Ok(())
    }

    /// Takes the next piece of the shards' states; false if there is none.
    fn take(&mut self, taking: &mut Taking, now: Now) -> Result<bool, Fatal> {
        let Some((number, piece)) = taking.wants() else { return Ok(false) };
        let (sender, receiver) = sync_channel(1);
        let last = self.log.stats().last();
        self.inboxes[number].push(Message::Checkpoint { sender, last, piece });
        self.shard_turn(number, now)?;
        taking.take(receiver.recv().map_err(|_gone| Fatal::Gone)?);
        Ok(true)
    }

    fn write_checkpoint(&mut self, taken: Taking, is_clean: bool, now: Now) -> Result<bool, Fatal> {
        self.log.sync()?;
        let Some(parts) = self.checkpoints.all(taken)? else { return Ok(false) };
        let stats = Arc::clone(self.log.stats());
        match self.checkpoints.write(parts, is_clean, &stats, now) {
            Ok(covered) => {
                self.log.free_through(covered);
                Ok(true)
            }
            Err(error) if error.is_shortage() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A turn of a session's task: bytes of the client go in, and at most `room` come out.
    pub(super) fn session_turn(&mut self, conn: u64, now: Now, input: &[u8], room: usize) -> Sent {
        let Some(session) = self.sessions.get_mut(&conn) else {
            return Sent { bytes: Vec::new(), is_finished: true };
        };
        let mut pieces = Vec::new();
        let taken = session.outbox.take(&mut pieces);
        let mut sent = Sent { bytes: session.socket.empty(0), is_finished: false };
        let mut letters = session.core.sent(taken.sent);
        for piece in pieces {
            session.core.piece(piece);
        }
        session.core.more(&taken.due);
        if !input.is_empty() {
            letters.extend(session.core.heard(now.moment));
            session.buffer.extend_from_slice(input);
        }
        if session.core.wants_input() && !session.buffer.is_empty() {
            letters.extend(session.core.input(&mut session.buffer).letters);
        }
        letters.extend(session.core.wake(now));
        if let Some((reading, mut job)) = session.jobs.pop() {
            let done = job.run();
            session.core.read(reading, job, done);
        }
        session.jobs.extend(session.core.pull());
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let count = session.core.out().slices(&mut slices);
        let (before, end) = (sent.bytes.len(), sent.bytes.len().max(room));
        for slice in &slices[..count] {
            let fits = slice.len().min(end - sent.bytes.len());
            sent.bytes.extend_from_slice(&slice[..fits]);
        }
        session.core.out().advance(sent.bytes.len() - before);
        // Little enough to be full now and then.
        session.socket.empty(end.saturating_sub(sent.bytes.len()) / 16);
        session.core.rest(session.buffer.len());
        session.outbox.grant(session.core.room());
        session.outbox.lend(session.core.direct());
        sent.is_finished = session.core.is_finished();
        self.post(letters);
        if sent.is_finished {
            self.disconnect(conn);
        }
        sent
    }

    /// What shards have for a client's session, and it has not taken yet.
    pub(super) fn pushes(&self, conn: ConnId) -> Vec<u8> {
        self.sessions.get(&conn.0).map_or_else(Vec::new, |session| session.outbox.pushes())
    }

    /// The last record of the log.
    pub(super) fn last_written(&self) -> Lsn {
        self.log.stats().last()
    }

    fn connections(&self) -> impl Iterator<Item = u64> {
        self.sessions.keys().copied()
    }

    /// Stops in order.
    pub(super) fn stop(mut self, now: Now, journal: &mut Journal) -> Result<(), Fatal> {
        let connections: Vec<u64> = self.connections().collect();
        connections.into_iter().for_each(|conn| self.disconnect(conn));
        // The keeper ends the checkpoint that it is at: nobody else knows what that took to be synced.
        if let Some(mut taking) = self.taking.take() {
            while self.take(&mut taking, now)? {}
            self.write_checkpoint(taking, false, now)?;
        }
        loop {
            for number in 0..self.shards.len() {
                self.shard_turn(number, now)?;
            }
            let is_idle = self.log_inbox.is_empty() && self.shards.iter().all(Shard::is_idle);
            if is_idle {
                break;
            }
            self.log_turn(now, journal)?;
        }
        let mut taking = Taking::new(self.shards.len(), TOPICS_AT_ONCE);
        while self.take(&mut taking, now)? {}
        self.write_checkpoint(taking, true, now)?;
        Ok(())
    }
}
