//! Reading stored messages for a session, off its task and off every shard.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::disk::Disk;
use crate::ids::{Offset, TopicName};
use crate::limits::SESSION_OUT_BYTES_MAX;
use crate::log::{LogError, LogShared, Reader};
use crate::proto::Tag;
use crate::topic::lines;

/// Memory for what sessions hold for their peers, in bytes.
const SHARED_BYTES: usize = 64 << 20;

/// The least that a session may hold of it, in bytes, however many there are.
pub(super) const SHARE_BYTES_MIN: usize = 32 << 10;

/// The most, in bytes: as much as a session may have unsent, and what is read meanwhile.
const SHARE_BYTES_MAX: usize = 2 * SESSION_OUT_BYTES_MAX;

/// A session may hold as much as this part of what is free: 1/8.
const FREE_PART: usize = 8;

/// What is read at once, in bytes.
const BLOCK_BYTES_MAX: usize = 256 << 10;

/// What a line may need, to begin with.
const LINE_BYTES_GUESS: usize = 256;

/// A job that has found so many damaged messages says so before it goes on.
const DAMAGED_MAX: usize = 1000;

/// What all sessions hold for their peers, in bytes: unsent, about to be read for them, or not taken yet
/// of what they sent.
#[derive(Debug, Default)]
pub struct Shares(AtomicUsize);

impl Shares {
    /// What all of them hold.
    pub(super) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// How much a session may hold now: a part of what nobody holds. However greedy the others are, and
    /// whoever came first, there is something left, and all together hold no more than there is but for
    /// the least that each may have.
    pub fn limit(&self) -> usize {
        let free = SHARED_BYTES.saturating_sub(self.held());
        (free / FREE_PART).clamp(SHARE_BYTES_MIN, SHARE_BYTES_MAX)
    }
}

/// What one session holds of it.
#[derive(Debug)]
pub struct Hold {
    shares: Arc<Shares>,
    bytes: usize,
}

impl Hold {
    /// Nothing yet.
    pub fn new(shares: &Arc<Shares>) -> Self {
        Self { shares: Arc::clone(shares), bytes: 0 }
    }

    /// It is so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        let all = &self.shares.0;
        match bytes.cmp(&self.bytes) {
            Less => drop(all.fetch_sub(self.bytes - bytes, Ordering::Relaxed)),
            Equal => return,
            Greater => drop(all.fetch_add(bytes - self.bytes, Ordering::Relaxed)),
        }
        self.bytes = bytes;
    }

    /// How much it may be.
    pub fn limit(&self) -> usize {
        self.shares.limit()
    }
}

/// How much more a session may hold that holds so much; `None` while that is more than half of what it
/// may: there is to be enough room for a read to be worth it.
pub(super) fn room(limit: usize, bytes: usize) -> Option<usize> {
    (bytes <= limit / 2).then(|| limit - bytes)
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What a read job is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// The `HISTORY` that is being answered.
    History,
    /// The plain subscription of this number.
    Follow(usize),
}

/// A place in a topic's files, and what the lines are for.
#[derive(Debug)]
pub struct ReadJob {
    reader: Reader,
    topic: TopicName,
    form: Form,
    next: Offset,
    /// The last offset wanted.
    last: Offset,
    is_placed: bool,
    /// Most bytes of a log that one job reads, and of lines that it makes; a larger message comes alone.
    bytes: usize,
}

/// What lines a job makes.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// `MSG …` for a subscription.
    Msg,
    /// `HISTORY …` as an answer.
    History(Option<Tag>),
}

/// What a job brought.
#[derive(Debug)]
pub struct ReadDone {
    /// Whole lines.
    pub lines: Vec<u8>,
    /// The first offset that was not read.
    pub next: Offset,
    /// Damaged messages that were passed over.
    pub damaged: Vec<LogError>,
    /// Why it can't go on, if so.
    pub error: Option<LogError>,
}

impl ReadJob {
    /// Will read from `next` to `last`.
    pub fn new(
        disk: &Arc<dyn Disk>,
        log: Arc<LogShared>,
        topic: TopicName,
        form: Form,
        next: Offset,
        last: Offset,
    ) -> Self {
        let reader = Reader::new(Arc::clone(disk), log);
        Self { reader, topic, form, next, last, is_placed: false, bytes: SHARE_BYTES_MIN }
    }

    /// Lets the next job read so much.
    #[must_use]
    pub fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// How much it may read.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Goes on to a later end, from where the last job ended or from elsewhere.
    pub fn go_on(&mut self, next: Offset, last: Offset) {
        self.is_placed &= next == self.next;
        self.next = next;
        self.last = last;
    }

    /// Whether all was read.
    pub fn is_done(&self) -> bool {
        self.next > self.last
    }

    /// Reads one piece. Blocks on the disk. Between its jobs it keeps no file open.
    pub fn run(&mut self) -> ReadDone {
        let wanted = (self.last.get() + 1).saturating_sub(self.next.get());
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let lines = Vec::with_capacity(wanted.saturating_mul(LINE_BYTES_GUESS).min(self.bytes));
        let mut done = ReadDone { lines, next: self.next, damaged: Vec::new(), error: None };
        while !self.is_done() && done.lines.is_empty() && done.damaged.len() < DAMAGED_MAX {
            if let Err(error) = self.piece(&mut done) {
                done.error = Some(error);
                break;
            }
        }
        done.next = self.next;
        self.reader.pause(self.bytes.min(BLOCK_BYTES_MAX));
        done
    }

    fn piece(&mut self, done: &mut ReadDone) -> Result<(), LogError> {
        if !self.is_placed {
            self.reader.seek(self.next)?;
            self.is_placed = true;
        }
        let mut bytes = 0;
        let room = |done: &ReadDone| done.damaged.len() < DAMAGED_MAX;
        while bytes.max(done.lines.len()) < self.bytes && room(done) && !self.is_done() {
            let (topic, form) = (&self.topic, self.form);
            match self.reader.next() {
                Ok(Some(record)) => {
                    bytes += record.raw.len();
                    self.next = record.offset.next();
                    match form {
                        Form::Msg => lines::write_msg(&mut done.lines, topic, &record),
                        Form::History(tag) => {
                            lines::write_history(&mut done.lines, tag.as_ref(), topic, &record);
                        }
                    }
                }
                Ok(None) => {
                    // The log is shorter than it was said to be: nothing more can come.
                    self.next = self.last.next();
                }
                Err(error) if error.is_damage() => {
                    done.damaged.push(error);
                    self.next = self.next.next();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_share_the_memory_whoever_comes_first_and_however_much_they_want() {
        let shares = Arc::<Shares>::default();
        let greedy = || {
            let mut hold = Hold::new(&shares);
            while let Some(room) = room(hold.limit(), hold.bytes) {
                hold.set(hold.bytes + room);
            }
            assert!((SHARE_BYTES_MIN / 2..=SHARE_BYTES_MAX).contains(&hold.bytes));
            hold
        };
        let first = greedy();
        assert_eq!(first.bytes, SHARE_BYTES_MAX);
        let all: Vec<Hold> = std::iter::once(first).chain((1..10_000).map(|_| greedy())).collect();
        let held = |count: usize| all[..count].iter().map(|hold| hold.bytes).sum::<usize>();
        assert_eq!(shares.held(), held(10_000));
        for count in [10, 100, 1_000, 10_000] {
            let most = SHARED_BYTES + count * SHARE_BYTES_MIN;
            assert!(held(count) <= most, "{} of {most} bytes for {count}", held(count));
        }
        // Those who come late find more than the least.
        assert!(all[50].bytes > SHARE_BYTES_MIN, "{}", all[50].bytes);
        drop(all);
        assert_eq!((shares.held(), shares.limit()), (0, SHARE_BYTES_MAX));
    }
}
