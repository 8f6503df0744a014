//! Every message that was given out and is not settled: where it stands, and until when.
//!
//! [`Leases::set`] is the only place where a message's state changes, so the sets that follow from
//! the states (what is ready, what is due, how many of each) cannot disagree with them.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::deadlines::Deadlines;
use super::members::MemberIndex;
use super::numbers::NumberMap;
use crate::ids::{ConnId, Offset};
use crate::time::{Moment, Timestamp};

/// The place of a message in memory, while it is unsettled.
pub(super) type Slot = u32;

/// One message in the hands of one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lease {
    pub(super) holder: MemberIndex,
    /// Where it stands among what the member holds.
    pub(super) place: usize,
    pub(super) sent: Timestamp,
    pub(super) until: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Just taken from the log, and about to get its first real state.
    New,
    Ready,
    Leased(Lease),
    Waiting {
        until: Moment,
    },
    Settling,
    Dying,
}

impl State {
    fn kind(self) -> usize {
        match self {
            State::New => 0,
            State::Ready => 1,
            State::Leased(_) => 2,
            State::Waiting { .. } => 3,
            State::Settling => 4,
            State::Dying => 5,
        }
    }
}

pub(super) struct Message {
    pub(super) offset: Offset,
    state: State,
    /// Deliveries that ended in vain, durable or not yet, and how many of them counted.
    pub(super) attempts: u32,
    pub(super) failures: u32,
    /// Who had it last.
    pub(super) last: Option<ConnId>,
    /// The name of the member that went away with it, until somebody else has it.
    pub(super) orphan_of: Option<Arc<str>>,
    /// Its last delivery could not be made: the lease is there, and nobody has the message.
    pub(super) is_unsent: bool,
    /// What the owner wants to remember with it.
    pub(super) mark: Option<u64>,
}

impl Message {
    pub(super) fn new(offset: Offset, attempts: u32, failures: u32) -> Self {
        Self {
            offset,
            state: State::New,
            attempts,
            failures,
            last: None,
            orphan_of: None,
            is_unsent: false,
            mark: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether an acknowledgement would count.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Settling | State::Dying)
    }
}

/// How many messages are in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Came back and can be given out at once; what was never given out is not among them.
    pub ready: usize,
    /// In the hands of a member.
    pub in_flight: usize,
    /// Waiting for a retry.
    pub waiting: usize,
    /// Acknowledged, not durably yet.
    pub settling: usize,
    /// Failed for good, the dead letter not durable yet.
    pub dying: usize,
}

pub(super) struct Leases {
    slots: Vec<Option<Message>>,
    vacant: Vec<Slot>,
    by_offset: NumberMap<Offset, Slot>,
    /// Those in state Ready.
    ready: BTreeSet<(Offset, Slot)>,
    /// Those in state Leased or Waiting.
    due: Deadlines,
    counts: [usize; 6],
}

impl Leases {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            by_offset: NumberMap::default(),
            ready: BTreeSet::new(),
            due: Deadlines::new(),
            counts: [0; 6],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_offset.len()
    }

    /// How many places there are, used or not.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn counts(&self) -> Counts {
        let [_new, ready, in_flight, waiting, settling, dying] = self.counts;
        Counts { ready, in_flight, waiting, settling, dying }
    }

    pub(super) fn find(&self, offset: Offset) -> Option<Slot> {
        self.by_offset.get(&offset).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> &Message {
        self.slots[slot as usize].as_ref().expect("a slot is used while its message is unsettled")
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Message {
        self.slots[slot as usize].as_mut().expect("a slot is used while its message is unsettled")
    }

    /// The lowest offset that is ready.
    pub(super) fn first_ready(&self) -> Option<Slot> {
        self.ready.first().map(|(_, slot)| *slot)
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.due.first()
    }

    /// What is due by `now`, in no order.
    pub(super) fn due(&self, now: Moment) -> Vec<Slot> {
        self.due.until(now)
    }

    /// Adds a message, unless its offset is here already.
    pub(super) fn insert(&mut self, message: Message) -> Option<Slot> {
        let (offset, state) = (message.offset, message.state);
        let Entry::Vacant(place) = self.by_offset.entry(offset) else { return None };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(message);
                slot
            }
            None => {
                self.slots.push(Some(message));
                Slot::try_from(self.slots.len() - 1).expect("fewer than 2^32 unsettled messages")
            }
        };
        place.insert(slot);
        self.enter(slot, offset, state);
        Some(slot)
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Message {
        let message = self.slots[slot as usize].take().expect("a message is removed once");
        self.exit(slot, message.offset, message.state);
        self.by_offset.remove(&message.offset);
        self.vacant.push(slot);
        message
    }

    pub(super) fn set(&mut self, slot: Slot, state: State) {
        let message = self.get_mut(slot);
        let (offset, before) = (message.offset, message.state);
        message.state = state;
        self.exit(slot, offset, before);
        self.enter(slot, offset, state);
    }

    /// Notes that a leased message stands elsewhere among what its holder has.
    pub(super) fn set_place(&mut self, slot: Slot, place: usize) {
        match &mut self.get_mut(slot).state {
            State::Leased(lease) => lease.place = place,
            state => unreachable!("a member holds slot {slot}, which is {state:?}"),
        }
    }

    fn enter(&mut self, slot: Slot, offset: Offset, state: State) {
        self.counts[state.kind()] += 1;
        match state {
            State::Ready => assert!(self.ready.insert((offset, slot)), "{offset} is ready twice"),
            State::Leased(lease) => self.due.add_in_order(slot, lease.until),
            State::Waiting { until } => self.due.add(slot, until),
            State::New | State::Settling | State::Dying => {}
        }
    }

    fn exit(&mut self, slot: Slot, offset: Offset, state: State) {
        self.counts[state.kind()] -= 1;
        match state {
            State::Ready => assert!(self.ready.remove(&(offset, slot)), "{offset} is not ready"),
            State::Leased(_) | State::Waiting { .. } => self.due.remove(slot),
            State::New | State::Settling | State::Dying => {}
        }
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Message)> {
        let slot = |index| Slot::try_from(index).expect("fewer than 2^32 unsettled messages");
        let filled =
            |(index, message): (usize, &'_ Option<Message>)| message.is_some().then_some(index);
        self.slots.iter().enumerate().filter_map(filled).map(move |i| (slot(i), self.get(slot(i))))
    }

    /// Asserts that what follows from the states agrees with them.
    pub(super) fn check(&self) {
        let mut counts = [0; 6];
        let mut due = Vec::new();
        for (slot, message) in self.iter() {
            counts[message.state.kind()] += 1;
            assert_eq!(self.find(message.offset), Some(slot), "{} is found", message.offset);
            match message.state {
                State::Ready => assert!(self.ready.contains(&(message.offset, slot))),
                State::Leased(Lease { until, .. }) | State::Waiting { until } => {
                    due.push((until, slot));
                }
                State::New | State::Settling | State::Dying => {}
            }
        }
        assert_eq!(counts, self.counts, "messages by state");
        assert_eq!(self.ready.len(), counts[State::Ready.kind()], "messages ready");
        assert_eq!(self.by_offset.len(), counts.iter().sum::<usize>(), "messages by offset");
        assert_eq!(self.by_offset.len() + self.vacant.len(), self.slots.len(), "vacant slots");
        let mut known = self.due.check();
        due.sort_unstable();
        known.sort_unstable();
        assert_eq!(due, known, "deadlines");
        assert_eq!(self.due.first(), due.first().map(|(at, _)| *at), "the first deadline");
    }
}
