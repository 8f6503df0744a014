//! The topics of a shard.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::delivery::Policy;
use crate::disk::Disk;
use crate::ids::{ConnId, TopicName};
use crate::log::{LogError, LogSettings, TailBudget, TopicLog};
use crate::proto::WireError;
use crate::time::Moment;
use crate::topic::{Topic, TopicKey};
use crate::wal::Lsn;

use super::ahead::Ahead;
use super::casing::Casing;
use super::late::Late;
use super::letter::Bookmark;
use super::outbox::Outbox;

/// What every topic is made with.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub dir: PathBuf,
    /// How logs are kept.
    pub log: LogSettings,
    /// Most files that are kept open for writing, at least one.
    pub open_max: usize,
    /// With new lines for more topics than this in a turn, those that nobody reads may wait.
    pub written_max: usize,
    /// The room for recent lines, shared by all topics.
    pub tail: Arc<TailBudget>,
    /// Who syncs their files between checkpoints.
    pub ahead: Arc<Ahead>,
    /// Who has which name, if the file system does not tell capital letters from small ones.
    pub casing: Option<Arc<Casing>>,
    /// Timings and limits of groups.
    pub policy: Arc<Policy>,
    /// The same for groups that read dead letters.
    pub dead_letter_policy: Arc<Policy>,
}

impl Workshop {
    /// A topic whose log is empty.
    pub fn fresh(&self, name: &TopicName) -> Topic {
        let log = TopicLog::create(
            Arc::clone(&self.disk),
            &self.dir,
            name.clone(),
            self.log,
            Arc::clone(&self.tail),
        );
        self.with_log(name, log)
    }

    /// A topic with this log.
    pub fn with_log(&self, name: &TopicName, log: TopicLog) -> Topic {
        let policy = if name.is_dead_letter() { &self.dead_letter_policy } else { &self.policy };
        Topic::new(name.clone(), log, Arc::clone(policy))
    }
}

/// The shard of a topic; its dead-letter topic is on the same one.
pub fn shard_of(topic: &TopicName, shards: u32) -> u32 {
    if shards == 1 {
        return 0;
    }
    crc32c::crc32c(topic.family().as_bytes()) % shards
}

/// More followers of a topic than these are woken, not sent to: their threads do it side by side.
const FOLLOWERS_SENT_MAX: usize = 4;

/// A connection that follows a topic without a group.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) conn: ConnId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) bookmark: Arc<Bookmark>,
}

/// A topic and what its shard keeps beside it.
#[derive(Debug)]
pub(super) struct TopicSlot {
    pub(super) topic: Topic,
    /// Connections that follow it without a group.
    pub(super) followers: Vec<Follower>,
    /// Records of the log up to this one are in its state since it was opened.
    pub(super) covered: Lsn,
    /// It has new lines, and is in the list of those.
    pub(super) is_dirty: bool,
    /// The disk had no room for them when that was last tried.
    pub(super) is_postponed: bool,
    /// So many bytes of its lines wait to be written ([`super::late`]).
    late: Option<usize>,
    /// Whether it is in the queue of those whose file is open, and was written since it came up there.
    open: Option<Use>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Idle,
    Written,
}

/// Most buffers for lines that are kept for those who write next, and their size, in bytes.
const SPARES_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 1 << 20;

/// All topics of a shard, by name and by key.
#[derive(Debug)]
pub struct Topics {
    workshop: Workshop,
    shard: u32,
    shards: u32,
    keys: HashMap<TopicName, TopicKey>,
    slots: Vec<Option<TopicSlot>>,
    free: Vec<TopicKey>,
    /// Topics whose file is open for writing. When there are too many, the first that was not
    /// written since it last came up is closed.
    open: VecDeque<TopicKey>,
    late: Late,
    spares: Vec<Vec<u8>>,
}

impl Topics {
    /// No topics yet, for the shard of this number among so many.
    pub fn new(workshop: Workshop, shard: u32, shards: u32) -> Self {
        Self {
            workshop,
            shard,
            shards,
            keys: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            open: VecDeque::new(),
            late: Late::default(),
            spares: Vec::new(),
        }
    }

    /// Takes a topic whose state covers the log up to `covered`.
    pub fn insert(&mut self, mut topic: Topic, covered: Lsn) -> TopicKey {
        let key = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            TopicKey::new(self.slots.len() - 1)
        });
        topic.set_key(key);
        self.keys.insert(topic.name().clone(), key);
        let followers = Vec::new();
        let slot = TopicSlot {
            topic,
            followers,
            covered,
            is_dirty: false,
            is_postponed: false,
            late: None,
            open: None,
        };
        self.slots[key.get()] = Some(slot);
        key
    }

    /// Whether a topic of this name belongs to the shard.
    pub(super) fn is_mine(&self, name: &TopicName) -> bool {
        shard_of(name, self.shards) == self.shard
    }

    /// Why there can't be a topic of this name, or `None`.
    pub(super) fn refusal(&self, name: &TopicName) -> Option<WireError> {
        let clash = self.workshop.casing.as_ref()?.claim(name).err()?;
        Some(clash.refusal())
    }

    pub(super) fn find(&self, name: &TopicName) -> Option<TopicKey> {
        self.keys.get(name).copied()
    }

    /// The topic of this name, made if there is none.
    pub(super) fn ensure(&mut self, name: &TopicName) -> TopicKey {
        match self.find(name) {
            Some(key) => key,
            None => self.insert(self.workshop.fresh(name), Lsn::default()),
        }
    }

    pub(super) fn slot(&self, key: TopicKey) -> &TopicSlot {
        self.slots[key.get()].as_ref().expect("a key is dropped with its topic")
    }

    pub(super) fn slot_mut(&mut self, key: TopicKey) -> &mut TopicSlot {
        self.slots[key.get()].as_mut().expect("a key is dropped with its topic")
    }

    /// In the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TopicSlot> {
        self.slots.iter().flatten()
    }

    /// The keys of those at these places that have lines to be written.
    pub(super) fn unwritten(&self, places: Range<usize>) -> Vec<TopicKey> {
        let count = self.slots.len();
        let places = places.start.min(count)..places.end.min(count);
        let has_lines = |place: &usize| {
            self.slots[*place].as_ref().is_some_and(|slot| slot.is_dirty || slot.late.is_some())
        };
        places.filter(has_lines).map(TopicKey::new).collect()
    }

    /// Those at these places, in the order of their keys, and where the next ones begin, if there are
    /// more.
    pub(super) fn piece_mut(
        &mut self,
        places: Range<usize>,
    ) -> (impl Iterator<Item = &mut TopicSlot>, Option<usize>) {
        let count = self.slots.len();
        let (begin, end) = (places.start.min(count), places.end.min(count));
        (self.slots[begin..end].iter_mut().flatten(), (end < count).then_some(end))
    }

    /// A topic that is about to be appended to, and whether it had nothing new before.
    pub(super) fn touch(&mut self, key: TopicKey) -> (&mut TopicSlot, bool) {
        let slot = self.slots[key.get()].as_mut().expect("a key is dropped with its topic");
        let is_first = !std::mem::replace(&mut slot.is_dirty, true);
        if is_first
            && slot.late.is_none()
            && let Some(spare) = self.spares.pop()
        {
            slot.topic.log_mut().lend(spare);
        }
        (slot, is_first)
    }

    /// Whether lines for so many topics are too many for one turn.
    pub(super) fn are_many(&self, topics: usize) -> bool {
        topics > self.workshop.written_max
    }

    /// Lets the new lines of a topic wait, if nobody reads it and they are no dead letters: those are few,
    /// and wanted.
    pub(super) fn put_off(&mut self, key: TopicKey, now: Moment) -> bool {
        let slot = self.slots[key.get()].as_mut().expect("a key is dropped with its topic");
        if slot.topic.is_read() || slot.topic.name().is_dead_letter() {
            return false;
        }
        slot.is_dirty = false;
        let bytes = slot.topic.log().unwritten();
        match slot.late.replace(bytes) {
            Some(before) => self.late.shrink(before),
            None => self.late.add(key, now),
        }
        self.late.grow(bytes);
        let spare = slot.topic.log_mut().fit();
        self.keep(spare);
        true
    }

    /// Whether lines of the topic wait.
    pub(super) fn is_late(&self, key: TopicKey) -> bool {
        self.slot(key).late.is_some()
    }

    /// The next topic whose lines have waited for long enough.
    pub(super) fn overdue(&mut self, now: Moment) -> Option<TopicKey> {
        loop {
            let key = self.late.take(now)?;
            // They may have been written since, and the topic forgotten.
            if self.slots[key.get()].as_ref().is_some_and(|slot| slot.late.is_some()) {
                return Some(key);
            }
        }
    }

    /// When [`Topics::overdue`] has one.
    pub(super) fn overdue_at(&self) -> Option<Moment> {
        self.late.due_at()
    }

    /// Writes what was appended to a topic to its file. If that fails nothing has changed.
    pub(super) fn flush(&mut self, key: TopicKey) -> Result<(), LogError> {
        let slot = self.slots[key.get()].as_mut().expect("a key is dropped with its topic");
        if let Err(error) = slot.topic.flush() {
            // It is in no queue of those that may be closed, and there may be thousands of them.
            if slot.open.is_none() {
                slot.topic.log_mut().close();
            }
            return Err(error);
        }
        (slot.is_dirty, slot.is_postponed) = (false, false);
        self.late.shrink(slot.late.take().unwrap_or_default());
        let spare = slot.topic.log_mut().spare();
        self.workshop.ahead.offer(|| slot.topic.log_mut().sync_ahead());
        if slot.open.replace(Use::Written).is_none() {
            self.open.push_back(key);
            self.close_idle();
        }
        self.keep(spare);
        Ok(())
    }

    /// Keeps a buffer for whoever writes next.
    fn keep(&mut self, spare: Option<Vec<u8>>) {
        let may_keep = self.spares.len() < SPARES_MAX;
        self.spares.extend(spare.filter(|spare| may_keep && spare.capacity() <= SPARE_BYTES_MAX));
    }

    /// Closes files until few enough are open.
    fn close_idle(&mut self) {
        while self.open.len() > self.workshop.open_max
            && let Some(key) = self.open.pop_front()
        {
            // A topic may have been forgotten, and its key may stand for another one since.
            let Some(slot) = self.slots[key.get()].as_mut() else { continue };
            match slot.open {
                Some(Use::Written) => {
                    slot.open = Some(Use::Idle);
                    self.open.push_back(key);
                }
                Some(Use::Idle) => {
                    slot.topic.log_mut().close();
                    slot.open = None;
                }
                None => {}
            }
        }
    }

    /// Tells the followers of a topic that there is more; with `may_send` it may be sent for them.
    pub(super) fn tell(&self, key: TopicKey, may_send: bool) {
        let TopicSlot { topic, followers, .. } = self.slot(key);
        if followers.is_empty() {
            return;
        }
        let log = topic.log().shared();
        let may_send = may_send && followers.len() <= FOLLOWERS_SENT_MAX;
        for Follower { outbox, bookmark, .. } in followers {
            outbox.tell(&log, bookmark, may_send);
        }
    }

    /// A connection stops following; a topic that was nothing but followed is forgotten.
    pub(super) fn unfollow(&mut self, key: TopicKey, conn: ConnId) {
        let slot = self.slot_mut(key);
        slot.followers.retain(|follower| follower.conn != conn);
        slot.topic.unfollow();
        if slot.topic.is_empty() && !slot.is_dirty {
            let name = slot.topic.name().clone();
            self.keys.remove(&name);
            self.slots[key.get()] = None;
            self.free.push(key);
        }
    }
}
