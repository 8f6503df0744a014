//! New lines that wait before they are written to their topics' files.
//!
//! To open, write and close a file for each message is most of what one costs when thousands of topics
//! are published to in turn. The messages are on disk already, in the write-ahead log, so as long as
//! nobody reads a topic, its lines may wait for a moment and go to the file several at a time. Whoever
//! asks for the topic has them written first. See `docs/decisions/0017-late-lines.md`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::LATE_BYTES_MAX;
use crate::time::Moment;
use crate::topic::TopicKey;

/// How long a line waits at most, as long as the shard keeps up.
pub(super) const LATE: Duration = Duration::from_millis(250);

/// The topics with such lines, in the order in which they have to be written.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// With when. Those that were written in between are still there.
    queue: VecDeque<(Moment, TopicKey)>,
    bytes: usize,
}

impl Late {
    /// A topic's lines wait from now on.
    pub(super) fn add(&mut self, key: TopicKey, now: Moment) {
        self.queue.push_back((now + LATE, key));
    }

    /// So many bytes more of them wait.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// So many bytes were taken to be written.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// When the first of them have to be written.
    pub(super) fn due_at(&self) -> Option<Moment> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// Takes the first topic, if its time has come or too much waits.
    pub(super) fn take(&mut self, now: Moment) -> Option<TopicKey> {
        let is_due = |at: Moment| at <= now || self.bytes > LATE_BYTES_MAX;
        let (_, key) = *self.queue.front().filter(|(at, _)| is_due(*at))?;
        self.queue.pop_front();
        Some(key)
    }
}
