//! The topics of a shard.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::delivery::Policy;
use crate::disk::Disk;
use crate::ids::{ConnId, TopicName};
use crate::log::{LogError, LogSettings, TailBudget, TopicLog};
use crate::topic::{Topic, TopicKey};
use crate::wal::Lsn;

use super::ahead::Ahead;
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
    /// The room for recent lines, shared by all topics.
    pub tail: Arc<TailBudget>,
    /// Who syncs their files between checkpoints.
    pub ahead: Arc<Ahead>,
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
    pub(super) is_dirty: bool,
    /// Whether it is in the queue of those whose file is open, and was written since it came up there.
    open: Option<Use>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Idle,
    Written,
}

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
        self.slots[key.get()] =
            Some(TopicSlot { topic, followers: Vec::new(), covered, is_dirty: false, open: None });
        key
    }

    /// Whether a topic of this name belongs to the shard.
    pub(super) fn is_mine(&self, name: &TopicName) -> bool {
        shard_of(name, self.shards) == self.shard
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

    /// Writes what was appended to a topic to its file.
    pub(super) fn flush(&mut self, key: TopicKey) -> Result<(), LogError> {
        let slot = self.slots[key.get()].as_mut().expect("a key is dropped with its topic");
        slot.topic.flush()?;
        slot.is_dirty = false;
        self.workshop.ahead.offer(|| slot.topic.log_mut().sync_ahead());
        if slot.open.replace(Use::Written).is_none() {
            self.open.push_back(key);
            self.close_idle();
        }
        Ok(())
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
