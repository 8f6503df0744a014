//! What is due when: a priority queue over slots, each in it at most once.
//!
//! Nearly all deadlines are those of leases, all of the same length, so they come in the order in
//! which they are due: those stand in a linked list, where adding and removing take constant time.
//! What comes out of order (retries, extended leases) stands in a tree.

use std::collections::BTreeSet;

use super::leases::Slot;
use crate::time::Moment;

const NONE: Slot = Slot::MAX;

#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    List { before: Slot, after: Slot },
    Tree,
}

pub(super) struct Deadlines {
    /// By slot.
    entries: Vec<(Moment, Place)>,
    /// Ends of the list: what is due first, what is due last.
    first: Slot,
    last: Slot,
    tree: BTreeSet<(Moment, Slot)>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), first: NONE, last: NONE, tree: BTreeSet::new() }
    }

    /// When something is due next.
    pub(super) fn first(&self) -> Option<Moment> {
        let listed = (self.first != NONE).then(|| self.entries[self.first as usize].0);
        let in_tree = self.tree.first().map(|(at, _)| *at);
        listed.into_iter().chain(in_tree).min()
    }

    /// What is due by `now`, in no order.
    pub(super) fn until(&self, now: Moment) -> Vec<Slot> {
        let mut due: Vec<Slot> = self.tree.range(..=(now, NONE)).map(|(_, slot)| *slot).collect();
        let mut slot = self.first;
        while slot != NONE {
            let (at, Place::List { after, .. }) = self.entries[slot as usize] else {
                unreachable!("slot {slot} is in the list");
            };
            if at > now {
                break;
            }
            due.push(slot);
            slot = after;
        }
        due
    }

    /// Adds a deadline that is expected not to be before those added like this until now.
    pub(super) fn add_in_order(&mut self, slot: Slot, at: Moment) {
        if self.last != NONE && at < self.entries[self.last as usize].0 {
            return self.add(slot, at);
        }
        *self.vacant_entry(slot) = (at, Place::List { before: self.last, after: NONE });
        match self.last {
            NONE => self.first = slot,
            last => *self.link(last).1 = slot,
        }
        self.last = slot;
    }

    /// Adds any deadline.
    pub(super) fn add(&mut self, slot: Slot, at: Moment) {
        *self.vacant_entry(slot) = (at, Place::Tree);
        self.tree.insert((at, slot));
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let (at, place) = self.entries[slot as usize];
        match place {
            Place::Nowhere => unreachable!("slot {slot} has a deadline"),
            Place::Tree => assert!(self.tree.remove(&(at, slot)), "slot {slot} is in the tree"),
            Place::List { before, after } => {
                match before {
                    NONE => self.first = after,
                    before => *self.link(before).1 = after,
                }
                match after {
                    NONE => self.last = before,
                    after => *self.link(after).0 = before,
                }
            }
        }
        self.entries[slot as usize].1 = Place::Nowhere;
    }

    fn vacant_entry(&mut self, slot: Slot) -> &mut (Moment, Place) {
        let index = slot as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, (Moment::default(), Place::Nowhere));
        }
        let entry = &mut self.entries[index];
        assert!(matches!(entry.1, Place::Nowhere), "slot {slot} has one deadline");
        entry
    }

    /// What stands before and after a slot of the list.
    fn link(&mut self, slot: Slot) -> (&mut Slot, &mut Slot) {
        match &mut self.entries[slot as usize].1 {
            Place::List { before, after } => (before, after),
            Place::Nowhere | Place::Tree => unreachable!("slot {slot} is in the list"),
        }
    }

    /// All of it, in no order, with every link checked.
    pub(super) fn check(&self) -> Vec<(Moment, Slot)> {
        let mut all: Vec<_> = self.tree.iter().copied().collect();
        let (mut previous, mut at, mut due) = (NONE, self.first, Moment::default());
        while at != NONE {
            let (moment, Place::List { before, after }) = self.entries[at as usize] else {
                panic!("slot {at} is linked and not in the list");
            };
            assert_eq!(before, previous, "the link back of slot {at}");
            assert!(moment >= due, "slot {at} is listed behind what is due later");
            all.push((moment, at));
            (previous, at, due) = (at, after, moment);
        }
        assert_eq!(self.last, previous, "the end of the list");
        all
    }
}
