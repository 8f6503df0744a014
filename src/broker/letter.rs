//! What sessions and shards say to each other: a [`Letter`] in, [`Piece`]s out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::ids::{ConnId, GroupName, Offset, TopicName};
use crate::log::LogShared;
use crate::proto::Tag;

use super::outbox::Outbox;

/// The requests of one read of one connection that concern one shard, in their order.
#[derive(Debug)]
pub struct Letter {
    /// Who asks.
    pub conn: ConnId,
    /// Where the answer goes.
    pub outbox: Arc<Outbox>,
    /// Number of this letter on its connection; the reply bears it.
    pub seq: u64,
    /// The bytes that the ranges of the items refer to.
    pub bytes: Bytes,
    /// The requests.
    pub items: Vec<Item>,
    /// Room taken in the mailbox; given back when the letter is answered.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// A range of [`Letter::bytes`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes of `all` in this range.
    pub fn of(self, all: &[u8]) -> &[u8] {
        &all[self.start as usize..self.end as usize]
    }
}

/// One request, or several of a kind.
#[derive(Debug)]
pub enum Item {
    /// Messages for one topic, each answered `OK published …`.
    Publish {
        /// Repeated before each answer.
        tag: Option<Tag>,
        /// The topic.
        topic: TopicName,
        /// The messages.
        messages: Vec<Span>,
    },
    /// An acknowledgement.
    Ack {
        /// Repeated before the answer.
        tag: Option<Tag>,
        /// The message's id.
        id: Span,
    },
    /// A subscription. Without a group it is the last item of its letter.
    Subscribe {
        /// Repeated before the answer.
        tag: Option<Tag>,
        /// The topic.
        topic: TopicName,
        /// The group, or none for every message.
        group: Option<GroupName>,
        /// What the member is called in the history of attempts.
        consumer: Arc<str>,
    },
    /// Where is the log of this topic? The last item of its letter.
    Locate {
        /// The topic.
        topic: TopicName,
    },
    /// An answer that needs no shard but has its place among the others.
    Line(Vec<u8>),
    /// The connection was not heard from for too long: its messages go to others.
    Silent,
    /// The connection is heard again.
    Heard,
    /// The connection has room again for what groups held back.
    Drained,
    /// The connection is closed.
    Closed,
}

/// What a shard sends to a session.
#[derive(Debug)]
pub enum Piece {
    /// The answers of the letter `seq`, whole lines.
    Reply {
        /// The letter.
        seq: u64,
        /// The lines.
        lines: Vec<u8>,
        /// What the session does next, behind the lines.
        then: Option<Then>,
    },
    /// Deliveries of groups, whole lines.
    Push(Vec<u8>),
}

impl Piece {
    /// How many bytes of deliveries.
    pub(super) fn pushed(&self) -> usize {
        match self {
            Self::Push(lines) => lines.len(),
            Self::Reply { .. } => 0,
        }
    }
}

/// What a session does after a reply.
#[derive(Debug)]
pub enum Then {
    /// Follow the topic from this offset on.
    Follow {
        /// The topic.
        topic: TopicName,
        /// Its log.
        log: Arc<LogShared>,
        /// The first offset of the subscription.
        from: Arc<Bookmark>,
    },
    /// Read the log; nothing is there if the topic is unknown.
    Read {
        /// The log.
        log: Option<Arc<LogShared>>,
        /// Where it ended for this request: behind every message asked for before it.
        end: Offset,
    },
}

/// How far a subscription without a group is: the offset that comes next. Its session has it, and so
/// has the shard, which goes on in it when it sends for the session. The outbox decides who may.
#[derive(Debug)]
pub struct Bookmark {
    next: AtomicU64,
    /// For the session alone.
    number: AtomicUsize,
    /// There is more, and its session is about to be told. Under the lock of the outbox.
    pub(super) is_due: AtomicBool,
}

impl Bookmark {
    /// No offset: the session reads from files, and only it knows how far.
    pub const AWAY: Offset = Offset::new(u64::MAX);

    /// One at this offset.
    pub fn new(next: Offset) -> Self {
        let (next, number) = (AtomicU64::new(next.get()), AtomicUsize::new(usize::MAX));
        Self { next, number, is_due: AtomicBool::new(false) }
    }

    /// What comes next.
    pub fn get(&self) -> Offset {
        Offset::new(self.next.load(Ordering::Relaxed))
    }

    /// Goes there.
    pub fn set(&self, next: Offset) {
        self.next.store(next.get(), Ordering::Relaxed);
    }

    /// Which of its session's subscriptions this is, if that knows it yet.
    pub fn number(&self) -> Option<usize> {
        Some(self.number.load(Ordering::Relaxed)).filter(|number| *number < usize::MAX)
    }

    /// The session has given it a number.
    pub fn set_number(&self, number: usize) {
        self.number.store(number, Ordering::Relaxed);
    }
}
