//! What the connections of one run share: when it is measured, and what has been done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::messages::Ring;
use super::times::Times;
use crate::time::Moment;

/// From when to when a run loads, and from when it is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The load begins.
    pub(super) begin: Moment,
    /// Measuring begins.
    pub(super) start: Moment,
    /// Both end.
    pub(super) end: Moment,
}

impl Span {
    /// Whether what happens then is measured.
    pub(super) fn measures(&self, moment: Moment) -> bool {
        (self.start..self.end).contains(&moment)
    }
}

/// How many of one kind of thing were done, and how long each took.
#[derive(Debug)]
pub(super) struct Tally {
    span: Span,
    total: AtomicU64,
    measured: AtomicU64,
    times: Mutex<Times>,
}

impl Tally {
    pub(super) fn new(span: Span) -> Self {
        let (total, measured) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { span, total, measured, times: Mutex::new(Times::new()) }
    }

    /// So many were done by now.
    pub(super) fn done(&self, count: u64, now: Moment) {
        self.total.fetch_add(count, Ordering::Relaxed);
        if self.span.measures(now) {
            self.measured.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// To add how long they took, many at a time.
    pub(super) fn recorder(&self) -> Recorder<'_> {
        Recorder { span: self.span, times: locked(&self.times) }
    }

    /// How many in all.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many while it was measured.
    pub(super) fn measured(&self) -> u64 {
        self.measured.load(Ordering::Relaxed)
    }

    pub(super) fn times(&self) -> Times {
        locked(&self.times).clone()
    }
}

/// Adds to the times of a [`Tally`].
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    span: Span,
    times: MutexGuard<'a, Times>,
}

impl Recorder<'_> {
    /// `count` things that were to be done at `meant` are done. What counts is when they were
    /// meant to be, however late they are: what takes longest is never left out.
    pub(super) fn add(&mut self, meant: Moment, now: Moment, count: u64) {
        if self.span.measures(meant) {
            self.times.add(now.since(meant), count);
        }
    }
}

/// Who reads a topic: a plain subscriber, or a group.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    /// The group's name; none for a plain subscriber.
    pub(super) group: Option<String>,
    /// Messages that came, each once.
    pub(super) got: AtomicU64,
    /// Acknowledgements that were answered.
    pub(super) acked: AtomicU64,
    /// What has come.
    pub(super) seen: Mutex<Seen>,
}

impl Consumer {
    /// How far it is: in a group, with everything.
    pub(super) fn progress(&self) -> u64 {
        match self.group {
            Some(_) => self.acked.load(Ordering::Relaxed),
            None => self.got.load(Ordering::Relaxed),
        }
    }
}

/// Which offsets have come.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<u64>);

impl Seen {
    /// Notes that it came; false if it did before.
    pub(super) fn insert(&mut self, offset: u64) -> bool {
        let (word, bit) = (usize::try_from(offset / 64).unwrap_or(usize::MAX), 1 << (offset % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1 + self.0.len() / 2, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}

/// A topic of the run.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) consumers: Vec<Arc<Consumer>>,
    /// Messages handed to the system, to be sent.
    pub(super) sent: AtomicU64,
    /// Told whenever a consumer has got on.
    pub(super) moved: Notify,
}

impl Topic {
    /// How many more may be published, so that the slowest consumer is not further behind.
    pub(super) fn room(&self, backlog: u64) -> u64 {
        let Some(slowest) = self.consumers.iter().map(|consumer| consumer.progress()).min() else {
            return u64::MAX;
        };
        slowest.saturating_add(backlog).saturating_sub(self.sent.load(Ordering::Relaxed))
    }
}

/// The topics that one connection publishes to, in turn.
#[derive(Debug)]
pub(super) struct Round {
    topics: Vec<usize>,
    /// Where in them the next message goes.
    next: usize,
}

impl Round {
    /// The share of connection number `n` of so many. With more connections than topics, several have
    /// one.
    pub(super) fn new(n: usize, connections: usize, topics: usize) -> Self {
        let topics = match connections >= topics {
            true => vec![n % topics],
            false => (n..topics).step_by(connections).collect(),
        };
        Self { topics, next: 0 }
    }

    /// Their lines, as many as fit on the way.
    pub(super) fn ring(&self, topics: &[Topic], size: usize, window: u32) -> Ring {
        let names: Vec<&str> = self.topics.iter().map(|t| &*topics[*t].name).collect();
        Ring::new(&names, size, window)
    }

    /// So many more are sent.
    pub(super) fn sent(&mut self, load: &Load, messages: u64) {
        if let [only] = self.topics[..] {
            load.topics[only].sent.fetch_add(messages, Ordering::Relaxed);
            return;
        }
        for _ in 0..messages {
            load.topics[self.topics[self.next]].sent.fetch_add(1, Ordering::Relaxed);
            self.next = (self.next + 1) % self.topics.len();
        }
    }

    /// How many more may be published to them in turn, so that the slowest consumer of any is not
    /// further behind; and the topic that says so.
    pub(super) fn room<'l>(&self, load: &'l Load, backlog: u64) -> (u64, &'l Topic) {
        let first = &load.topics[self.topics[0]];
        if first.consumers.is_empty() {
            // Nor has any other.
            return (u64::MAX, first);
        }
        let rooms = self.topics.iter().map(|at| {
            let topic = &load.topics[*at];
            (topic.room(backlog), topic)
        });
        let (room, topic) = rooms.min_by_key(|(room, _)| *room).expect("a connection has a topic");
        (room.saturating_mul(self.topics.len() as u64), topic)
    }
}

/// Everything that the connections of one run share.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) span: Span,
    pub(super) topics: Vec<Topic>,
    pub(super) published: Tally,
    pub(super) delivered: Tally,
    /// How soon after it was published a message may come to a group again; `None` if that is not known.
    pub(super) again_after: Option<Duration>,
    /// The run has failed or was interrupted: threads shall end.
    pub(super) is_over: AtomicBool,
}

/// What a lock guards, also after a panic: that ends the run anyway.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_to_be_done_in_time_counts_however_late_it_is() {
        let at = Moment::from_millis;
        let span = Span { begin: at(0), start: at(10), end: at(20) };
        let tally = Tally::new(span);
        let mut recorder = tally.recorder();
        recorder.add(at(9), at(15), 2);
        recorder.add(at(19), at(5000), 1);
        recorder.add(at(20), at(21), 1);
        drop(recorder);
        let times = tally.times();
        assert_eq!(times.json()["count"], 1);
        assert!(times.percentile(50.0) > Duration::from_secs(4));
        tally.done(1, at(9));
        tally.done(2, at(10));
        tally.done(4, at(20));
        assert_eq!((tally.total(), tally.measured()), (7, 2));
    }

    #[test]
    fn topics_are_shared_out_and_have_their_turn() {
        let consumer = |got: u64| Consumer { got: AtomicU64::new(got), ..Consumer::default() };
        let topic = |n: u64| Topic {
            name: n.to_string(),
            consumers: vec![Arc::new(consumer(10 - n))],
            sent: AtomicU64::new(10),
            moved: Notify::new(),
        };
        let at = Moment::from_millis;
        let span = Span { begin: at(0), start: at(10), end: at(20) };
        let load = Load {
            span,
            topics: (0..5).map(topic).collect(),
            published: Tally::new(span),
            delivered: Tally::new(span),
            again_after: None,
            is_over: AtomicBool::new(false),
        };
        let of = |n, connections| Round::new(n, connections, 5).topics;
        assert_eq!([of(0, 2), of(1, 2)], [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!([of(4, 7), of(5, 7), of(6, 7)], [[4], [0], [1]]);
        let mut round = Round::new(1, 2, 5);
        let room = |round: &Round| {
            let (room, topic) = round.room(&load, 8);
            (room, topic.name.as_str())
        };
        assert_eq!(room(&round), (10, "3"), "five of each, since the last is three behind");
        round.sent(&load, 3);
        let sent = load.topics.iter().map(|topic| topic.sent.load(Ordering::Relaxed));
        assert_eq!(sent.collect::<Vec<_>>(), [10, 12, 10, 11, 10]);
        assert_eq!(room(&round), (8, "3"));
        // `--backlog` may be any number: it stood still with none published, and was content.
        assert_eq!(round.room(&load, u64::MAX).0, u64::MAX);
    }

    #[test]
    fn what_came_twice_is_seen() {
        let mut seen = Seen::default();
        assert!(seen.insert(1) && seen.insert(64) && seen.insert(100_000));
        assert!(!seen.insert(64) && seen.insert(63));
    }
}
