//! What clients did, heard and were promised.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::time::Moment;

/// A message as a group's business: topic, group, offset.
pub(super) type Unit = (String, String, u64);

/// Where a message is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) id: String,
    pub(super) offset: u64,
}

/// How far a topic reaches: the first message that is kept, the last one that can be read, and the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub(super) first: u64,
    pub(super) visible: u64,
    pub(super) end: u64,
}

/// A history as it was told to a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) topic: &'static str,
    /// How many messages were asked for.
    pub(super) wanted: u64,
    /// How far the topic reached then.
    pub(super) asked: Extent,
    /// How many came, with the first and the last offset of them.
    pub(super) count: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// How often a text was sent. Publishers never send the same text for two messages; they send it
/// again if the connection broke before the answer.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) topic: &'static str,
    /// How often, answered or not.
    pub(super) times: usize,
    /// How often the answer was a refusal.
    pub(super) refused: usize,
}

/// A line that a client heard.
#[derive(Debug)]
pub(super) struct Heard {
    /// The client.
    pub(super) who: String,
    pub(super) line: String,
    pub(super) due: Due,
}

/// What a client had to hear next.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// Nothing: all it asked was answered.
    Nothing,
    /// Exactly this.
    Line(String),
    /// The answer to `PUB` to this topic.
    Published(&'static str),
    /// The answer to `ACK` of a message that the client was sent on the same connection.
    Acked(Unit),
    /// A message of this topic's history behind the one with offset `last`.
    History { topic: &'static str, last: Option<u64> },
    /// The end of this topic's history.
    HistoryEnd(Told),
    /// The message of this topic with one of these offsets, for a subscriber.
    Follow { topic: &'static str, next: RangeInclusive<u64> },
    /// Any message of this topic, for a member of a group.
    Deliver { topic: &'static str },
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    /// What was sent.
    pub(super) sent: BTreeMap<String, Sent>,
    /// Answered `OK published`, and when: message → place.
    pub(super) published: BTreeMap<String, (Place, Moment)>,
    /// How many acknowledgements were sent, answered or not.
    pub(super) acks_sent: BTreeMap<Unit, usize>,
    /// Answered `OK ack_received`, and when.
    pub(super) acked: BTreeMap<Unit, Moment>,
    /// Of `published`, those since the oracles last looked.
    pub(super) fresh_published: Vec<String>,
    /// Of `acked`, those since the oracles last looked.
    pub(super) fresh_acked: Vec<Unit>,
    /// What clients heard since the oracles last looked.
    pub(super) heard: Vec<Heard>,
    /// How often a text was sent again.
    pub(super) repeated: usize,
    /// Answered OK, and lost as the fsync setting allows.
    pub(super) lost: usize,
}

impl Ledger {
    /// A text goes out to the topic.
    pub(super) fn send(&mut self, message: &str, topic: &'static str) {
        let new = || Sent { topic, times: 0, refused: 0 };
        let sent = self.sent.entry(message.to_owned()).or_insert_with(new);
        sent.times += 1;
        self.repeated += usize::from(sent.times > 1);
    }

    /// It was answered `OK published`.
    pub(super) fn publish(&mut self, message: &str, place: Place, now: Moment) {
        let before = self.published.insert(message.to_owned(), (place, now));
        assert!(before.is_none(), "whoever has the answer does not send again: {message}");
        self.fresh_published.push(message.to_owned());
    }

    /// It was refused.
    pub(super) fn refuse(&mut self, message: &str) {
        self.sent.get_mut(message).expect("what is refused was sent").refused += 1;
    }

    /// An acknowledgement was answered `OK ack_received`.
    pub(super) fn ack(&mut self, unit: Unit, now: Moment) {
        self.acked.entry(unit.clone()).or_insert(now);
        self.fresh_acked.push(unit);
    }
}
