//! Who is in the group, what each holds, and whose turn it is.
//!
//! ```text
//!   seat    1     2     3     4     5        given out in order of joining, never twice
//!           a     b     c     d     e
//!   held    2/5   5/5   0/5   1/1   0/5      credit = prefetch − held
//!           ▲           ▲           paused
//!           with room   with room and the turn: the next message is for c, then a
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use super::leases::Slot;
use super::numbers::NumberMap;
use crate::ids::ConnId;
use crate::planted::{self, Bug};

/// The place of a member in memory, while it is one.
pub(super) type MemberIndex = u32;

pub(super) struct Member {
    pub(super) id: ConnId,
    pub(super) name: Arc<str>,
    prefetch: u32,
    seat: u64,
    is_paused: bool,
    /// What it has a lease of, in no order: an index of the leases.
    held: Vec<Slot>,
}

impl Member {
    pub(super) fn held(&self) -> &[Slot] {
        &self.held
    }

    pub(super) fn prefetch(&self) -> u32 {
        self.prefetch
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    fn has_room(&self) -> bool {
        let credit = if planted::has(Bug::CreditTwice) { 2 * self.prefetch } else { self.prefetch };
        !self.is_paused && self.held.len() < credit as usize
    }
}

#[derive(Default)]
pub(super) struct Members {
    members: Vec<Option<Member>>,
    vacant: Vec<MemberIndex>,
    by_id: NumberMap<ConnId, MemberIndex>,
    /// Those with room, by seat: an index, so that nobody without credit is ever looked at.
    room: BTreeMap<u64, MemberIndex>,
    seats_given: u64,
    /// The first seat that the next message is offered to.
    turn: u64,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn has_room(&self) -> bool {
        !self.room.is_empty()
    }

    pub(super) fn find(&self, id: ConnId) -> Option<MemberIndex> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, index: MemberIndex) -> &Member {
        self.members[index as usize].as_ref().expect("a member's index is used while it is one")
    }

    fn get_mut(&mut self, index: MemberIndex) -> &mut Member {
        self.members[index as usize].as_mut().expect("a member's index is used while it is one")
    }

    /// The members in order of their seats.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        let mut all: Vec<&Member> = self.members.iter().flatten().collect();
        all.sort_unstable_by_key(|member| member.seat);
        all.into_iter()
    }

    /// Gives `id` the last seat. It must not be a member.
    pub(super) fn join(&mut self, id: ConnId, name: Arc<str>, prefetch: u32) {
        let seat = self.seats_given;
        self.seats_given += 1;
        let member = Some(Member { id, name, prefetch, seat, is_paused: false, held: Vec::new() });
        let index = match self.vacant.pop() {
            Some(index) => {
                self.members[index as usize] = member;
                index
            }
            None => {
                self.members.push(member);
                MemberIndex::try_from(self.members.len() - 1).expect("fewer than 2^32 members")
            }
        };
        assert!(self.by_id.insert(id, index).is_none(), "{id} is a member already");
        self.note_room(index);
    }

    pub(super) fn rename(&mut self, index: MemberIndex, name: Arc<str>) {
        self.get_mut(index).name = name;
    }

    pub(super) fn set_prefetch(&mut self, index: MemberIndex, prefetch: u32) {
        self.get_mut(index).prefetch = prefetch;
        self.note_room(index);
    }

    /// It gets nothing more, whatever its credit, until [`Members::resume`].
    pub(super) fn pause(&mut self, index: MemberIndex) {
        self.get_mut(index).is_paused = true;
        self.note_room(index);
    }

    /// It gets messages again.
    pub(super) fn resume(&mut self, index: MemberIndex) {
        self.get_mut(index).is_paused = false;
        self.note_room(index);
    }

    /// Takes a member away that holds nothing any more.
    pub(super) fn leave(&mut self, index: MemberIndex) {
        let member = self.members[index as usize].take().expect("a member leaves once");
        assert!(member.held.is_empty(), "what {} holds goes back before it leaves", member.id);
        self.room.remove(&member.seat);
        self.by_id.remove(&member.id);
        self.vacant.push(index);
    }

    /// Whose turn it is among those with room; `avoid` only if nobody else has any.
    pub(super) fn in_turn(&self, avoid: Option<ConnId>) -> Option<MemberIndex> {
        let (seat, index) = self.room_from(self.turn)?;
        if avoid == Some(self.get(index).id) {
            return self.room_from(seat + 1).map(|(_, index)| index);
        }
        Some(index)
    }

    /// The turn goes on to the seat behind this member's.
    pub(super) fn end_turn(&mut self, index: MemberIndex) {
        self.turn = self.get(index).seat + 1;
    }

    fn room_from(&self, seat: u64) -> Option<(u64, MemberIndex)> {
        let next = self.room.range(seat..).next().or_else(|| self.room.first_key_value());
        next.map(|(seat, index)| (*seat, *index))
    }

    /// Notes that the member holds `slot` now; returns where, for [`Members::put_back`].
    pub(super) fn hold(&mut self, index: MemberIndex, slot: Slot) -> usize {
        let member = self.get_mut(index);
        member.held.push(slot);
        let place = member.held.len() - 1;
        if !member.has_room() {
            self.note_room(index);
        }
        place
    }

    /// Ends what [`Members::hold`] began; returns the slot that is now at `place`, if one is.
    pub(super) fn put_back(&mut self, index: MemberIndex, place: usize) -> Option<Slot> {
        let member = self.get_mut(index);
        member.held.swap_remove(place);
        let moved = member.held.get(place).copied();
        if member.held.len() + 1 == member.prefetch as usize {
            self.note_room(index);
        }
        moved
    }

    fn note_room(&mut self, index: MemberIndex) {
        let member = self.get(index);
        let (seat, has_room) = (member.seat, member.has_room());
        if has_room {
            self.room.insert(seat, index);
        } else {
            self.room.remove(&seat);
        }
    }

    /// Asserts that the indexes agree with the members.
    pub(super) fn check(&self) {
        let mut present = 0;
        let mut with_room = 0;
        for (index, member) in self.members.iter().enumerate() {
            let Some(member) = member else { continue };
            present += 1;
            with_room += usize::from(member.has_room());
            let index = MemberIndex::try_from(index).expect("fewer than 2^32 members");
            assert_eq!(self.find(member.id), Some(index), "{} is found by its id", member.id);
            let listed = self.room.get(&member.seat) == Some(&index);
            assert_eq!(listed, member.has_room(), "{} is listed if it has room", member.id);
        }
        assert_eq!(present, self.by_id.len(), "members found by id");
        assert_eq!(with_room, self.room.len(), "members with room");
        assert_eq!(present + self.vacant.len(), self.members.len(), "vacant places");
    }
}
