//! The members of a group, what each holds, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{ConnId, Offset};

/// The place of a member in the round: the order of joining. Never reused in a group's life.
type Place = u64;

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: Arc<str>,
    prefetch: u32,
    place: Place,
    /// The leases it has. Credit is computed from them.
    held: BTreeSet<Offset>,
}

impl Member {
    fn has_credit(&self) -> bool {
        self.held.len() < self.prefetch as usize
    }
}

/// All members. Who has credit is kept by place, so that a turn costs the same among ten members
/// and ten thousand, however few of them have any.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_id: BTreeMap<ConnId, Member>,
    free: BTreeMap<Place, ConnId>,
    last_place: Place,
    /// Whose turn was last.
    turn: Place,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.by_id.values().map(|member| member.held.len()).sum()
    }

    pub(super) fn name(&self, id: ConnId) -> Option<Arc<str>> {
        self.by_id.get(&id).map(|member| Arc::clone(&member.name))
    }

    /// Adds a member, or gives a known one other words; returns whether it is new.
    pub(super) fn join(&mut self, id: ConnId, name: Arc<str>, prefetch: u32) -> bool {
        let is_new = !self.by_id.contains_key(&id);
        if is_new {
            self.last_place += 1;
        }
        let place = self.last_place;
        let member = self.by_id.entry(id).or_insert_with(|| Member {
            name: Arc::clone(&name),
            prefetch,
            place,
            held: BTreeSet::new(),
        });
        member.name = name;
        member.prefetch = prefetch;
        self.update(id);
        is_new
    }

    /// Removes a member; returns its name and what it held.
    pub(super) fn leave(&mut self, id: ConnId) -> Option<(Arc<str>, BTreeSet<Offset>)> {
        let member = self.by_id.remove(&id)?;
        self.free.remove(&member.place);
        Some((member.name, member.held))
    }

    /// The member whose turn it is among those with credit; another than `avoid` if there is one.
    pub(super) fn next(&self, avoid: Option<ConnId>) -> Option<ConnId> {
        let after = self.free.range(self.turn + 1..).chain(self.free.range(..=self.turn));
        let mut ids = after.map(|(_, id)| *id);
        let first = ids.next()?;
        if Some(first) == avoid { ids.next().or(Some(first)) } else { Some(first) }
    }

    /// The member gets the message; it was its turn.
    pub(super) fn lease(&mut self, id: ConnId, offset: Offset) {
        let member = self.by_id.get_mut(&id).expect("who gets a message is a member");
        self.turn = member.place;
        assert!(member.held.insert(offset), "a message is leased once");
        self.update(id);
    }

    /// The member holds the message no longer.
    pub(super) fn release(&mut self, id: ConnId, offset: Offset) {
        if let Some(member) = self.by_id.get_mut(&id) {
            member.held.remove(&offset);
            self.update(id);
        }
    }

    fn update(&mut self, id: ConnId) {
        let member = &self.by_id[&id];
        if member.has_credit() {
            self.free.insert(member.place, id);
        } else {
            self.free.remove(&member.place);
        }
    }

    /// Asserts what has to hold, given who leases what.
    pub(super) fn check(&self, leases: &BTreeMap<Offset, ConnId>) {
        let held: BTreeMap<Offset, ConnId> = self
            .by_id
            .iter()
            .flat_map(|(id, member)| member.held.iter().map(|offset| (*offset, *id)))
            .collect();
        assert_eq!(&held, leases, "what members hold is what is leased");
        for (id, member) in &self.by_id {
            assert!(member.held.len() <= member.prefetch as usize, "credit of {id}");
            let is_free = self.free.get(&member.place) == Some(id);
            assert_eq!(is_free, member.has_credit(), "the turn of {id}");
        }
        assert!(self.free.len() <= self.by_id.len());
    }
}
