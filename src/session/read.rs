//! Reading stored messages for a session, off its task and off every shard.

use std::sync::Arc;

use crate::disk::Disk;
use crate::ids::{Offset, TopicName};
use crate::log::{LogError, LogShared, Reader};
use crate::proto::Tag;
use crate::topic::lines;

use super::shares::SHARE_BYTES_MIN;

/// What is read at once, in bytes.
const BLOCK_BYTES_MAX: usize = 256 << 10;

/// What a line may need, to begin with.
const LINE_BYTES_GUESS: usize = 256;

/// A job that has missed messages so often says so before it goes on.
const MISSING_MAX: usize = 1000;

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
    /// Messages that were passed over, since they are damaged or no longer kept.
    pub missing: Vec<LogError>,
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
        let mut done = ReadDone { lines, next: self.next, missing: Vec::new(), error: None };
        while !self.is_done() && done.lines.is_empty() && done.missing.len() < MISSING_MAX {
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
        let room = |done: &ReadDone| done.missing.len() < MISSING_MAX;
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
                    done.missing.push(error);
                    self.next = self.next.next();
                }
                Err(LogError::Gone { topic, offset, first }) => {
                    self.next = first;
                    done.missing.push(LogError::Gone { topic, offset, first });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
