//! A batch on its way through the log, and who waits for it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::ids::{ConnId, DerivedId, GroupName, Offset, TopicName};
use crate::proto::{Tag, WireError, encode};
use crate::time::Timestamp;
use crate::topic::{Commands, TopicKey};

use super::outbox::Outbox;

/// Commands, and the letters that are answered when they are committed and applied.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) commands: Commands,
    pub(super) tickets: Vec<Ticket>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.tickets.is_empty()
    }
}

/// A batch that is applied, and answered when its topics' files are written.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) tickets: Vec<Ticket>,
    pub(super) appended: Vec<Appended>,
}

impl Done {
    /// Whether its lists, when they are empty, are worth keeping for another batch.
    pub(super) fn is_small(&self) -> bool {
        const SMALL: usize = 256;
        self.tickets.capacity() <= SMALL && self.appended.capacity() <= SMALL
    }
}

/// One letter's answers.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) conn: ConnId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) seq: u64,
    pub(super) answers: Vec<Answer>,
    /// Held until the answer is given.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    /// How many requests it answers.
    pub(super) fn answers(&self) -> usize {
        let of = |answer: &Answer| match answer {
            Answer::Published(published) => published.appends.len(),
            Answer::Acked { count, .. } => *count as usize,
            _ => 1,
        };
        self.answers.iter().map(of).sum()
    }
}

/// The answer to one item of a letter.
#[derive(Debug)]
pub(super) enum Answer {
    Published(Published),
    /// So many messages are done with.
    Acked {
        tag: Option<Tag>,
        count: u32,
    },
    /// Ready, but not to leave before the batch is committed.
    Line(Vec<u8>),
    Join {
        tag: Option<Tag>,
        topic: TopicName,
        group: GroupName,
        consumer: Arc<str>,
    },
    Follow {
        tag: Option<Tag>,
        topic: TopicName,
        at: Place,
        consumer: Arc<str>,
    },
    Read {
        topic: TopicName,
        at: Place,
    },
}

/// Where a request stands among the messages of its batch: it sees those before it and no others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Behind so many appends of the batch.
    Behind(usize),
    /// The topic ended here for it.
    End(Offset),
}

impl Place {
    /// Where the topic ended.
    pub(super) fn end(self) -> Offset {
        match self {
            Place::End(end) => end,
            Place::Behind(_) => unreachable!("it is found when the batch is applied"),
        }
    }
}

/// A message that a batch appended.
pub(super) type Appended = (TopicKey, Offset);

impl Answer {
    /// Adds the answer to an acknowledgement, to those before it if nothing tells them apart.
    pub(super) fn acked(answers: &mut Vec<Answer>, tag: Option<Tag>) {
        match answers.last_mut() {
            Some(Answer::Acked { tag: None, count }) if tag.is_none() => *count += 1,
            _ => answers.push(Answer::Acked { tag, count: 1 }),
        }
    }

    pub(super) fn refused(tag: Option<&Tag>, error: &WireError) -> Answer {
        let mut line = Vec::new();
        encode::error(&mut line, tag, error);
        Answer::Line(line)
    }
}

/// Answers to messages that were appended one after the other.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) tag: Option<Tag>,
    pub(super) topic_tag: u32,
    pub(super) ts: Timestamp,
    /// Which appends of the batch these are.
    pub(super) appends: std::ops::Range<usize>,
}

impl Published {
    /// Writes the lines, given what the batch appended.
    pub(super) fn write(&self, appended: &[Appended], out: &mut Vec<u8>) {
        for (_, offset) in &appended[self.appends.clone()] {
            let id = DerivedId::new(self.topic_tag, *offset, self.ts);
            encode::published(out, self.tag.as_ref(), id, *offset);
        }
    }
}
