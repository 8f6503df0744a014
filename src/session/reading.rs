//! What a session reads for its peer: histories, and plain subscriptions.

use std::sync::Arc;

use crate::broker::letter::Bookmark;
use crate::disk::Disk;
use crate::ids::{Offset, TopicName};
use crate::log::{LogError, LogShared};
use crate::proto::{ErrorCode, Tag, WireError};

use super::out::Out;
use super::read::{Form, ReadJob};

/// A `HISTORY` whose lines are being read.
#[derive(Debug)]
pub(super) struct History {
    pub(super) tag: Option<Tag>,
    pub(super) topic: TopicName,
    /// With the job when it runs.
    pub(super) job: Option<ReadJob>,
    pub(super) failure: Option<WireError>,
}

/// A plain subscription.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) topic: TopicName,
    pub(super) log: Arc<LogShared>,
    bookmark: Arc<Bookmark>,
    job: Option<ReadJob>,
    pub(super) is_reading: bool,
}

impl Follow {
    pub(super) fn new(topic: TopicName, log: Arc<LogShared>, bookmark: Arc<Bookmark>) -> Self {
        Self { topic, log, bookmark, job: None, is_reading: false }
    }

    /// Whether there are messages that it could have now.
    pub(super) fn has_more(&self) -> bool {
        !self.is_reading && self.bookmark.get() <= self.log.end()
    }

    /// Its job is back, and has read what stands before `next`.
    pub(super) fn read(&mut self, job: ReadJob, next: Offset) {
        self.job = Some(job);
        self.is_reading = false;
        self.bookmark.set(next);
    }

    /// Moves chunks to the output while there is room; a job when the next messages are not in the
    /// tail cache any more.
    pub(super) fn pull(
        &mut self,
        out: &mut Out,
        room: usize,
        disk: &Arc<dyn Disk>,
    ) -> Option<ReadJob> {
        while out.len() < room && self.has_more() {
            let next = self.bookmark.get();
            match self.log.tail().since(next) {
                Some((chunk, next)) => {
                    out.chunk(chunk);
                    self.bookmark.set(next);
                }
                None => {
                    self.is_reading = true;
                    self.bookmark.set(Bookmark::AWAY);
                    let last = self.log.end();
                    let job = self.job.take().map(|mut job| {
                        job.go_on(next, last);
                        job
                    });
                    return Some(job.unwrap_or_else(|| {
                        let (log, topic) = (Arc::clone(&self.log), self.topic.clone());
                        ReadJob::new(disk, log, topic, Form::Msg, next, last)
                    }));
                }
            }
        }
        None
    }
}

/// What a reader is told of a message that can't be read; those behind it follow all the same.
pub(super) fn unreadable(topic: &TopicName, error: &LogError) -> WireError {
    if !error.is_damage() {
        // Nothing is known to be lost: perhaps no more files can be opened at the moment.
        let told = WireError::new(ErrorCode::Busy, error.to_string());
        return told.with("topic", topic).with("retry_after", "1s");
    }
    let told = WireError::new(ErrorCode::Corrupt, error.to_string()).with("topic", topic);
    match error {
        LogError::Corrupt { offset, .. } => told.with("offset", offset),
        LogError::Io { .. } | LogError::Sync { .. } | LogError::Damaged { .. } => told,
    }
}
