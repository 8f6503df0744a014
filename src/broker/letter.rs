//! What sessions and shards say to each other: a [`Letter`] in, [`Piece`]s out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::ids::{ConnId, GroupName, Offset, TopicName};
use crate::log::LogShared;
use crate::proto::Tag;

use super::bell::Bell;
use super::lock;

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
        from: Offset,
    },
    /// Read the log; nothing is there if the topic is unknown.
    Read {
        /// The log.
        log: Option<Arc<LogShared>>,
        /// Where it ended for this request: behind every message asked for before it.
        end: Offset,
    },
}

/// The way from shards to one session: pieces in order, and "there is more to read" for plain
/// subscribers. What can wait in it is bounded by what the session asked for and by its credit. The
/// default one wakes nobody: it is for those who look by themselves.
#[derive(Debug, Default)]
pub struct Outbox {
    bell: Arc<Bell>,
    waiting: std::sync::Mutex<Waiting>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: Vec<Piece>,
    is_nudged: bool,
    /// The session, if it sleeps.
    waker: Option<Waker>,
}

impl Outbox {
    /// The way to a session on the thread of this bell.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { bell, waiting: std::sync::Mutex::default(), closed: AtomicBool::new(false) }
    }

    /// Puts pieces in and wakes the session.
    pub fn post(&self, pieces: impl IntoIterator<Item = Piece>) {
        let mut waiting = lock(&self.waiting);
        waiting.pieces.extend(pieces);
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(|waker| self.bell.wake(waker));
    }

    /// Wakes the session, which then looks whether its subscriptions have more.
    pub fn nudge(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.is_nudged = true;
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(|waker| self.bell.wake(waker));
    }

    /// Takes all pieces.
    pub fn take(&self, into: &mut Vec<Piece>) {
        into.append(&mut lock(&self.waiting).pieces);
    }

    /// Ready if there are pieces, or there was a nudge since this was ready last.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = lock(&self.waiting);
        if std::mem::take(&mut waiting.is_nudged) || !waiting.pieces.is_empty() {
            return Poll::Ready(());
        }
        if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The session is gone: nothing that arrives from now on will be read.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the session is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
