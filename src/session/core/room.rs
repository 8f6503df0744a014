//! What a session may hold, and what it does not take or ask for meanwhile.

use super::super::shares::{SHARE_BYTES_MIN, room};
use super::{Core, Slot};
use crate::broker::outbox::Room;
use crate::limits::SESSION_OUT_BYTES_MAX;
use crate::session::drafts::Drafts;

/// Most commands whose answers are outstanding, counted in letters and histories. At the bound the
/// session reads no more until some are answered.
const SLOTS_MAX: usize = 256;

/// What an answer is taken for, in bytes, before it is there.
const OWED_BYTES: usize = 64;

/// Most commands whose answers have not come to the output: what a peer that reads nothing can have made
/// is a mebibyte of usual answers, however short its commands are. Refusals are two to four times as long.
const OWED_MAX: usize = SESSION_OUT_BYTES_MAX / OWED_BYTES;

/// Groups may send as much as this part of what a connection may have unsent, whatever else that is: 1/16.
const TURN_PART: usize = 16;

/// So many may be outstanding when the memory that all sessions share is used up.
const OWED_MIN: usize = SHARE_BYTES_MIN / OWED_BYTES;

impl Core {
    /// Most bytes to read next, of so many that are worth it, while so many of a message have come;
    /// `None` if there is no room for more.
    pub fn read_max(&self, hint: usize, part: usize) -> Option<usize> {
        if hint + part <= SHARE_BYTES_MIN {
            return Some(hint);
        }
        room(self.settings.shares.limit(), part).map(|most| hint.min(most))
    }

    /// Whether more bytes would be taken now.
    pub fn wants_input(&self) -> bool {
        !self.is_closing && self.may_answer(&Drafts::default())
    }

    /// Whether there may be one more answer, with those that have no place yet.
    pub(super) fn may_answer(&self, drafts: &Drafts) -> bool {
        self.slots.len() + drafts.list.len() < SLOTS_MAX
            && self.may_owe()
            && self.may_have_unsent(self.out.len() + self.ready + drafts.ready)
    }

    /// Whether the answers to more commands may be outstanding. All sessions change what that depends
    /// on: those that owe little need not look.
    fn may_owe(&self) -> bool {
        let most = || OWED_MAX.min(self.settings.shares.limit() / OWED_BYTES);
        self.owed < OWED_MIN || self.owed < most()
    }

    /// Twice what its subscriptions may fill: they must not keep its commands from being read.
    fn may_have_unsent(&self, bytes: usize) -> bool {
        bytes <= SHARE_BYTES_MIN || bytes <= self.settings.shares.limit()
    }

    /// Nothing is done here for a while, and so many bytes of commands wait to be taken: what is held
    /// meanwhile counts.
    pub fn rest(&mut self, waiting: usize) {
        self.readers.rest(&self.out, waiting + self.held_bytes());
    }

    /// What groups may send. They have their turn beside a plain subscription that always has more: if
    /// theirs has left, there need not be much room, and there is some if there is memory. But nothing that
    /// would be held until its time is over, or that nobody could acknowledge.
    pub fn room(&self) -> Room {
        if self.is_closing || self.joins_behind_history() {
            return Room { bytes: 0, is_ample: false };
        }
        let most = self.settings.shares.limit();
        let limit = most.min(self.settings.unsent_max);
        let unsent = self.out.len() + self.held_bytes();
        let has_left = self.held.is_empty() && self.pushed <= self.out.sent();
        let turn = if has_left { limit / TURN_PART } else { 0 };
        let bytes = limit.saturating_sub(unsent).max(turn.min(most.saturating_sub(unsent)));
        Room { bytes, is_ample: room(limit, unsent).is_some() || bytes > 0 && has_left }
    }

    /// Whether the answer to a `SUB` in a group waits for a `HISTORY` before it, which comes as fast as the
    /// peer reads.
    pub fn joins_behind_history(&self) -> bool {
        let mut is_behind = self.readers.history.is_some();
        let mut joins = |slot: &Slot| match slot {
            Slot::Lines(_) => false,
            Slot::Letter { joins, .. } => is_behind && *joins > 0,
            Slot::History { .. } => {
                is_behind = true;
                false
            }
        };
        self.joining > 0 && self.slots.iter().any(&mut joins)
    }

    /// What has to wait for its turn.
    fn held_bytes(&self) -> usize {
        self.ready + self.held.iter().map(Vec::len).sum::<usize>()
    }
}
