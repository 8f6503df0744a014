//! Writing the files of a shard's topics: at once, a little later if there are many of them, and again
//! when the disk had no room.

use std::ops::Range;
use std::time::Duration;

use crate::disk::is_shortage;
#[cfg(any(test, feature = "sim"))]
use crate::ids::TopicName;
use crate::log::LogError;
use crate::time::Moment;
use crate::topic::{Topic, TopicKey};

use super::gate::Full;
use super::shard::{Shard, ShardError};

/// How long to wait before a file that could not be written is tried again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(500);

/// So many files that still can't be written are tried before the others wait for the next time: each try
/// takes system calls, and there may be thousands.
const RETRIED_MAX: usize = 16;

/// So many topics whose lines have waited are written in one turn, or twice as many as have begun to wait.
const LATE_WRITTEN_MIN: usize = 128;

impl Shard {
    /// Writes the files of topics with appends, but for what may wait.
    /// What a full disk does not take stays in memory and is tried again: it is safe in the
    /// write-ahead log, nobody can read it yet, and no more can be published.
    pub(super) fn flush(&mut self, now: Moment) -> Result<(), ShardError> {
        self.unflushed = 0;
        let mut full = Vec::new();
        self.retry(now, &mut full)?;
        let mut dirty = std::mem::take(&mut self.dirty);
        let may_wait = self.retry_at.is_none() && self.topics.are_many(dirty.len());
        let mut put_off = 0;
        for key in dirty.drain(..) {
            if may_wait && self.topics.put_off(key, now) {
                put_off += 1;
            } else {
                self.write(key, &mut full)?;
            }
        }
        self.dirty = dirty;
        for _ in 0..LATE_WRITTEN_MIN.max(2 * put_off) {
            let Some(key) = self.topics.overdue(now) else { break };
            self.write(key, &mut full)?;
        }
        if self.retry_at.is_some() || !full.is_empty() {
            self.postponed.extend(full);
            let is_full = self.next_postponed().is_some();
            self.gate.set(Full::Topic { shard: self.number }, is_full);
            let pending = self.retry_at.filter(|at| *at > now);
            self.retry_at = is_full.then(|| pending.unwrap_or(now + SHORTAGE_PAUSE));
        }
        Ok(())
    }

    /// When it is time, tries those again for which the disk had no room.
    fn retry(&mut self, now: Moment, full: &mut Vec<TopicKey>) -> Result<(), LogError> {
        if self.retry_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        while full.len() < RETRIED_MAX
            && let Some(key) = self.next_postponed()
        {
            self.postponed.pop_front();
            self.topics.slot_mut(key).is_postponed = false;
            self.write(key, full)?;
        }
        Ok(())
    }

    /// The first of those for which the disk had no room. Some were written since, for another reason.
    fn next_postponed(&mut self) -> Option<TopicKey> {
        while let Some(key) = self.postponed.front() {
            if self.topics.slot(*key).is_postponed {
                return Some(*key);
            }
            self.postponed.pop_front();
        }
        None
    }

    /// Writes a topic's file; adds it to those for which the disk has no room.
    fn write(&mut self, key: TopicKey, full: &mut Vec<TopicKey>) -> Result<(), LogError> {
        match self.topics.flush(key) {
            Ok(()) => self.fresh.push(key),
            Err(LogError::Io { source, path }) if is_shortage(&source) => {
                if self.retry_at.is_none() && full.is_empty() {
                    tracing::error!(event = "write_postponed", path = %path.display(),
                        "failed to write a topic's file, and will try again: {source}");
                }
                let slot = self.topics.slot_mut(key);
                slot.is_dirty = true;
                if !std::mem::replace(&mut slot.is_postponed, true) {
                    full.push(key);
                }
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Somebody is about to read the topic: writes what waits of it. If the disk has no room for it, it is
    /// tried again with the rest of those.
    pub(super) fn write_late(&mut self, now: Moment, key: TopicKey) -> Result<(), LogError> {
        if !self.topics.is_late(key) {
            return Ok(());
        }
        let mut full = Vec::new();
        self.write(key, &mut full)?;
        if !full.is_empty() {
            self.gate.set(Full::Topic { shard: self.number }, true);
            self.retry_at.get_or_insert(now + SHORTAGE_PAUSE);
            self.postponed.extend(full);
        }
        Ok(())
    }

    /// Writes the files of the topics at these places, or fails.
    pub(super) fn write_piece(&mut self, piece: Range<usize>) -> Result<(), LogError> {
        for key in self.topics.unwritten(piece) {
            self.topics.flush(key)?;
            self.fresh.push(key);
        }
        Ok(())
    }

    /// Flushes the files of all topics with appends, or fails.
    pub(super) fn flush_all(&mut self) -> Result<(), LogError> {
        self.unflushed = 0;
        while let Some(key) = self.dirty.last() {
            self.topics.flush(*key)?;
            self.fresh.push(*key);
            self.dirty.pop();
        }
        Ok(())
    }

    /// Whether lines of this topic wait to be written.
    #[cfg(any(test, feature = "sim"))]
    pub fn is_late(&self, topic: &TopicName) -> bool {
        self.topics.find(topic).is_some_and(|key| self.topics.is_late(key))
    }
}

/// Flushes what a topic has of a batch so far. True if the disk has no room: the flush at the end of the
/// turn says so, and sees to it.
pub(super) fn flush_early(topic: &mut Topic) -> Result<bool, LogError> {
    match topic.flush() {
        Ok(_) => Ok(false),
        Err(LogError::Io { source, .. }) if is_shortage(&source) => Ok(true),
        Err(other) => Err(other),
    }
}
