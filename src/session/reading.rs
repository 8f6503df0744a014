//! What a session reads for its peer: histories, and plain subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::letter::Bookmark;
use crate::disk::Disk;
use crate::ids::{Offset, TopicName};
use crate::limits::SESSION_OUT_BYTES_MAX;
use crate::log::{LogError, LogShared};
use crate::proto::{ErrorCode, Tag, WireError};

use super::out::Out;
use super::read::{Form, ReadJob, Reading};
use super::shares::{Hold, SHARE_BYTES_MIN, Shares, room};

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
    topic: TopicName,
    log: Arc<LogShared>,
    bookmark: Arc<Bookmark>,
    job: Option<ReadJob>,
    is_reading: bool,
    /// It is in the queue.
    is_due: bool,
}

impl Follow {
    pub(super) fn new(topic: TopicName, log: Arc<LogShared>, bookmark: Arc<Bookmark>) -> Self {
        Self { topic, log, bookmark, job: None, is_reading: false, is_due: false }
    }

    /// Whether there are messages that it could have now.
    fn has_more(&self) -> bool {
        !self.is_reading && self.bookmark.get() <= self.log.end()
    }

    /// Its job is back, and has read what stands before `next`.
    fn read(&mut self, job: ReadJob, next: Offset) {
        self.job = Some(job);
        self.is_reading = false;
        self.bookmark.set(next);
    }

    /// Moves chunks to the output up to this length of it; a job when the next messages are not in the
    /// tail cache any more.
    fn pull(&mut self, out: &mut Out, len: usize, disk: &Arc<dyn Disk>) -> Option<ReadJob> {
        while out.len() < len && self.has_more() {
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

/// All that a session reads, and what it holds of the memory for it.
#[derive(Debug)]
pub(super) struct Readers {
    /// Most connections never have one.
    pub(super) history: Option<Box<History>>,
    follows: Vec<Follow>,
    /// How many of them are being read from files.
    reading: usize,
    /// They get nothing more.
    is_over: bool,
    /// Who may have more, the first one first when there is room: the history (0), or the subscription of
    /// this number less one. Nobody else is looked at, however many there are.
    due: VecDeque<usize>,
    /// The history is in the queue.
    is_history_due: bool,
    /// What jobs that run may bring, in bytes.
    coming: usize,
    hold: Hold,
}

impl Readers {
    /// None yet.
    pub(super) fn new(shares: &Arc<Shares>) -> Self {
        let hold = Hold::new(shares);
        Self {
            history: None,
            follows: Vec::new(),
            reading: 0,
            is_over: false,
            due: VecDeque::new(),
            is_history_due: false,
            coming: 0,
            hold,
        }
    }

    /// A plain subscription begins.
    pub(super) fn follow(&mut self, topic: TopicName, log: Arc<LogShared>, from: Arc<Bookmark>) {
        let number = self.follows.len();
        from.set_number(number);
        self.follows.push(Follow::new(topic, log, from));
        self.note(number);
    }

    /// There may be more for these subscriptions. One without a number is looked at when it begins.
    pub(super) fn more(&mut self, due: &[Arc<Bookmark>]) {
        due.iter().filter_map(|bookmark| bookmark.number()).for_each(|number| self.note(number));
    }

    /// Subscriptions get nothing more, but what is being read for them.
    pub(super) fn end_following(&mut self) {
        self.is_over = true;
        self.due.retain(|turn| *turn == 0);
    }

    /// Puts a subscription into the queue.
    fn note(&mut self, number: usize) {
        if !self.is_over && !std::mem::replace(&mut self.follows[number].is_due, true) {
            self.due.push_back(number + 1);
        }
    }

    /// Puts the history into the queue if it has to be read on.
    fn note_history(&mut self) {
        let waits = self.history.as_ref().is_some_and(|history| history.job.is_some());
        if waits && !std::mem::replace(&mut self.is_history_due, true) {
            self.due.push_back(0);
        }
    }

    /// Moves ready chunks to the output while there is room, and gives what has to be read from files.
    /// All have their turn: nobody waits behind one that always has more.
    pub(super) fn pull(&mut self, out: &mut Out, disk: &Arc<dyn Disk>) -> Vec<(Reading, ReadJob)> {
        let mut jobs = Vec::new();
        if !self.count(out) {
            return jobs;
        }
        let limit = self.hold.limit();
        self.note_history();
        for _ in 0..self.due.len() {
            let Some(room) = room(limit, out.len() + self.coming) else { break };
            let Some(turn) = self.due.pop_front() else { break };
            let (reading, job) = match turn.checked_sub(1) {
                None => {
                    self.is_history_due = false;
                    let job = self.history.as_mut().and_then(|history| history.job.take());
                    (Reading::History, job)
                }
                Some(number) => {
                    let follow = &mut self.follows[number];
                    let job = follow.pull(out, out.len() + room / 2, disk);
                    self.reading += usize::from(job.is_some());
                    follow.is_due = false;
                    if follow.has_more() {
                        self.note(number);
                    }
                    (Reading::Follow(number), job)
                }
            };
            if let Some(job) = job {
                let left = limit.saturating_sub(out.len() + self.coming);
                let bytes = left.clamp(SHARE_BYTES_MIN / 2, SESSION_OUT_BYTES_MAX);
                self.coming += bytes;
                jobs.push((reading, job.with_bytes(bytes)));
            }
        }
        self.count(out);
        jobs
    }

    /// Whether [`Readers::pull`] would find something.
    pub(super) fn wants_pull(&mut self, out: &Out) -> bool {
        if !self.count(out) {
            return false;
        }
        self.note_history();
        // Others may have sent what there was.
        while let Some(turn) = self.due.front() {
            match turn.checked_sub(1).map(|number| &mut self.follows[number]) {
                None if self.history.as_ref().is_none_or(|history| history.job.is_none()) => {
                    self.is_history_due = false;
                }
                Some(follow) if !follow.has_more() => follow.is_due = false,
                None | Some(_) => return !self.is_full(out),
            }
            self.due.pop_front();
        }
        false
    }

    /// Whether there is no use in more messages of its subscriptions: it has as many unsent as it may
    /// have, or reads them from a file, or they are over. Whatever changes that wakes it.
    pub(super) fn is_sated(&self, out: &Out) -> bool {
        self.is_over || self.reading == self.follows.len() || self.is_full(out)
    }

    /// Whether there is no room for more. What waits to be taken does not count here: only the peer can
    /// change that. All sessions change what it depends on: those that have nothing need not look.
    fn is_full(&self, out: &Out) -> bool {
        let bytes = out.len() + self.coming;
        bytes > 0 && room(self.hold.limit(), bytes).is_none()
    }

    /// A job is back.
    pub(super) fn came(&mut self, job: &ReadJob) {
        self.coming -= job.bytes();
    }

    /// A subscription's job is back, and has read what stands before `next`.
    pub(super) fn followed(&mut self, number: usize, job: ReadJob, next: Offset) {
        self.follows[number].read(job, next);
        self.reading -= 1;
        self.note(number);
    }

    /// Counts what is held, with so many bytes that came and wait.
    pub(super) fn rest(&mut self, out: &Out, waiting: usize) {
        self.hold.set(out.kept() + self.coming + waiting);
    }

    /// Counts what is held by a session that reads; for one that reads nothing there is time for that
    /// when it rests.
    fn count(&mut self, out: &Out) -> bool {
        let reads = self.history.is_some() || !self.follows.is_empty();
        if reads {
            self.hold.set(out.kept() + self.coming);
        }
        reads
    }
}

/// What a reader is told of messages that are stored, and can't be read before the disk has taken them.
pub(super) fn unwritten(first: Offset, last: Offset) -> WireError {
    let text = format!(
        "messages {first} to {last} are stored, but not in the topic's file yet: the disk is full"
    );
    WireError::new(ErrorCode::DiskFull, text).with("retry_after", "1s")
}

/// What a reader is told of a message that can't be read; those behind it follow all the same.
pub(super) fn unreadable(topic: &TopicName, error: &LogError) -> WireError {
    if let LogError::Gone { first, .. } = error {
        let told = WireError::new(ErrorCode::OffsetGone, error.to_string());
        return told.with("topic", topic).with("first", first);
    }
    if !error.is_damage() {
        // Nothing is known to be lost: perhaps no more files can be opened at the moment.
        let told = WireError::new(ErrorCode::Busy, error.to_string());
        return told.with("topic", topic).with("retry_after", "1s");
    }
    let told = WireError::new(ErrorCode::Corrupt, error.to_string()).with("topic", topic);
    match error {
        LogError::Corrupt { offset, .. } => told.with("offset", offset),
        LogError::Io { .. }
        | LogError::Sync { .. }
        | LogError::Gone { .. }
        | LogError::Damaged { .. } => told,
    }
}
