//! The connections that a shard pushes to: their outboxes and what they belong to.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::ConnId;
use crate::topic::{GroupKey, Pushes, TopicKey};

use super::letter::{Outbox, Piece};

/// A member's place: one group of one topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Membership {
    pub(super) topic: TopicKey,
    pub(super) group: GroupKey,
}

/// A connection that subscribed to something on this shard.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) outbox: Arc<Outbox>,
    pub(super) consumer: Arc<str>,
    pub(super) memberships: Vec<Membership>,
    pub(super) follows: Vec<TopicKey>,
    lines: Vec<u8>,
}

/// All of them. Looked up, never iterated.
#[derive(Debug, Default)]
pub(super) struct Conns {
    by_id: HashMap<ConnId, Conn>,
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
            memberships: Vec::new(),
            follows: Vec::new(),
            lines: Vec::new(),
        })
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.by_id.get(&id)
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.by_id.remove(&id)
    }

    /// The connection has joined a group, unless it is in it already.
    pub(super) fn join(&mut self, id: ConnId, place: Membership) -> bool {
        let Some(conn) = self.by_id.get_mut(&id) else { return false };
        let is_new = !conn.memberships.contains(&place);
        if is_new {
            conn.memberships.push(place);
        }
        is_new
    }

    /// Sends what was pushed.
    pub(super) fn send(&mut self) {
        for id in self.touched.drain(..) {
            let Some(conn) = self.by_id.get_mut(&id) else { continue };
            if !conn.lines.is_empty() {
                let push = Piece::Push(std::mem::take(&mut conn.lines));
                conn.outbox.post(push, !self.is_busy);
            }
        }
    }
}

impl Pushes for Conns {
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
