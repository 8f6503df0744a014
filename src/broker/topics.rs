//! The topics of a shard.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::delivery::Policy;
use crate::disk::Disk;
use crate::ids::{ConnId, TopicName};
use crate::log::{LogSettings, TailBudget, TopicLog};
use crate::topic::{Topic, TopicKey};
use crate::wal::Lsn;

use super::letter::Outbox;
use super::registry::shard_of;

/// What every topic is made with.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub dir: PathBuf,
    /// How logs are kept.
    pub log: LogSettings,
    /// The room for recent lines, shared by all topics.
    pub tail: Arc<TailBudget>,
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

/// A topic and what its shard keeps beside it.
#[derive(Debug)]
pub(super) struct TopicSlot {
    pub(super) topic: Topic,
    /// Connections that follow it without a group.
    pub(super) followers: Vec<(ConnId, Arc<Outbox>)>,
    /// Records of the log up to this one are in its state since it was opened.
    pub(super) covered: Lsn,
    pub(super) is_dirty: bool,
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
}

impl Topics {
    /// No topics yet, for the shard of this number among so many.
    pub fn new(workshop: Workshop, shard: u32, shards: u32) -> Self {
        Self { workshop, shard, shards, keys: HashMap::new(), slots: Vec::new(), free: Vec::new() }
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
            Some(TopicSlot { topic, followers: Vec::new(), covered, is_dirty: false });
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
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &TopicSlot> {
        self.slots.iter().flatten()
    }

    /// In the order of their keys.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut TopicSlot> {
        self.slots.iter_mut().flatten()
    }

    /// A connection stops following; a topic that was nothing but followed is forgotten.
    pub(super) fn unfollow(&mut self, key: TopicKey, conn: ConnId) {
        let slot = self.slot_mut(key);
        slot.followers.retain(|(id, _)| *id != conn);
        slot.topic.unfollow();
        if slot.topic.is_empty() && !slot.is_dirty {
            let name = slot.topic.name().clone();
            self.keys.remove(&name);
            self.slots[key.get()] = None;
            self.free.push(key);
        }
    }
}
