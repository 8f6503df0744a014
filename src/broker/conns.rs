//! The connections that a shard pushes to: their outboxes and what they belong to.

use std::sync::Arc;

use crate::delivery::numbers::NumberMap;
use crate::ids::ConnId;
use crate::topic::{Pushes, TopicKey};

use super::letter::Piece;
use super::memberships::Memberships;
use super::outbox::Outbox;

/// A connection that subscribed to something on this shard.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) outbox: Arc<Outbox>,
    pub(super) consumer: Arc<str>,
    pub(super) memberships: Memberships,
    pub(super) follows: Vec<TopicKey>,
    lines: Vec<u8>,
    /// So many bytes may be pushed before its outbox is asked again.
    unasked: usize,
    /// Of which so many are posted.
    posted: usize,
}

/// Of the room that its outbox has, so much is used without asking again: 1/16. To ask is to get a
/// cache line from the session's processor.
const UNASKED_PART: usize = 16;

/// All of them. Looked up, never iterated.
#[derive(Debug, Default)]
pub(super) struct Conns {
    by_id: NumberMap<ConnId, Conn>,
    /// Those with lines that were not sent yet.
    touched: Vec<ConnId>,
    /// There is more to do than to send what others can send.
    pub(super) is_busy: bool,
    /// Takes what is pushed to a connection that is gone.
    nowhere: Vec<u8>,
}

impl Conns {
    pub(super) fn ensure(
        &mut self,
        id: ConnId,
        outbox: &Arc<Outbox>,
        consumer: &Arc<str>,
    ) -> &mut Conn {
        self.by_id.entry(id).or_insert_with(|| Conn {
            outbox: Arc::clone(outbox),
            consumer: Arc::clone(consumer),
            memberships: Memberships::default(),
            follows: Vec::new(),
            lines: Vec::new(),
            unasked: 0,
            posted: 0,
        })
    }

    /// Before anything more is pushed to it, its outbox is asked for its room.
    pub(super) fn ask_again(&mut self, id: ConnId) {
        if let Some(conn) = self.by_id.get_mut(&id) {
            (conn.unasked, conn.posted) = (0, 0);
        }
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.by_id.remove(&id)
    }

    /// Sends what was pushed.
    pub(super) fn send(&mut self) {
        for id in self.touched.drain(..) {
            let Some(conn) = self.by_id.get_mut(&id) else { continue };
            if !conn.lines.is_empty() {
                conn.posted += conn.lines.len();
                let push = Piece::Push(std::mem::take(&mut conn.lines));
                conn.outbox.post(push, !self.is_busy);
            }
        }
    }
}

impl Pushes for Conns {
    fn has_room(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.by_id.get_mut(&id) else { return true };
        let unposted = conn.lines.len();
        if conn.posted + unposted < conn.unasked {
            return true;
        }
        let room = conn.outbox.room_behind(unposted);
        (conn.unasked, conn.posted) = (unposted + room / UNASKED_PART, 0);
        room > 0
    }

    fn push(&mut self, id: ConnId) -> &mut Vec<u8> {
        match self.by_id.get_mut(&id) {
            Some(conn) => {
                if conn.lines.is_empty() {
                    self.touched.push(id);
                }
                &mut conn.lines
            }
            None => {
                self.nowhere.clear();
                &mut self.nowhere
            }
        }
    }
}
