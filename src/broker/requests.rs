//! What connections ask of a shard besides publishing, and what they are answered.

use std::sync::Arc;

use crate::delivery::{Departure, Event, Verdict};
use crate::ids::{ConnId, DerivedId, GroupName, Offset, TopicName};
use crate::log::LogError;
use crate::proto::{Tag, WireError, encode};
use crate::time::{Moment, Now};

use super::batch::{Answer, Appended, Ticket};
use super::letter::{Bookmark, Item, Piece, Then};
use super::memberships::Membership;
use super::outbox::Outbox;
use super::shard::{ANSWERS_SENT_MAX, Shard, ShardError};
use super::topics::Follower;

/// About how long the answer to a message is, in bytes.
const ANSWER_BYTES: usize = 64;

impl Shard {
    /// An acknowledgement: by the one who holds the message, or else by one who held it before. Gives
    /// the answer if it is refused.
    pub(super) fn ack(
        &mut self,
        now: Now,
        conn: ConnId,
        tag: Option<&Tag>,
        id: &[u8],
    ) -> Result<Option<Answer>, ShardError> {
        let verdict = match self.pending(conn, id) {
            None => None,
            Some((place, offset)) => {
                let (topic, mut desk) = self.desk(now, place.topic);
                topic.tell(place.group, Event::Ack { member: conn, offset }, &mut desk)?
            }
        };
        let is_acked = matches!(verdict, Some(Verdict::Acked { .. }));
        Ok((!is_acked).then(|| Answer::refused(tag, &WireError::not_pending(id))))
    }

    /// The unsettled message that a member means by an id, and in which of its groups: one in which it
    /// holds it, or else one in which it had it last. If only one group can be meant, it may have had it
    /// earlier, or on another connection: in one of many, what it says again of a delivery in another would
    /// settle a message that somebody else has.
    fn pending(&mut self, conn: ConnId, id: &[u8]) -> Option<(Membership, Offset)> {
        let memberships = &mut self.conns.get_mut(conn)?.memberships;
        let (mut held, mut late) = (None, None);
        if let Some(id) = DerivedId::parse(id) {
            for (number, place) in memberships.of(id.tag) {
                let topic = &mut self.topics.slot_mut(place.topic).topic;
                let Some(look) = topic.pending(place.group, id.offset, Some(id.millis)) else {
                    continue;
                };
                if look.holder == Some(conn) {
                    held = Some((number, (place, id.offset)));
                    break;
                }
                let may = look.last == Some(conn) || memberships.of(id.tag).nth(1).is_none();
                late = late.or_else(|| may.then_some((place, id.offset)));
            }
        }
        if let Some((number, message)) = held {
            memberships.found(number);
            return Some(message);
        }
        for (topic, group, offset) in self.given.of(id) {
            let place = Membership { topic, group };
            let topic = &mut self.topics.slot_mut(topic).topic;
            if !memberships.contains(topic.tag(), place) {
                continue;
            }
            let Some(look) = topic.pending(group, offset, None) else { continue };
            if look.holder == Some(conn) {
                return Some((place, offset));
            }
            // Other topics may have had messages with this id.
            let may = look.last == Some(conn) || memberships.is_one();
            late = late.or_else(|| may.then_some((place, offset)));
        }
        late
    }

    /// A connection asks for a group: the commands that create it, unless it exists. If it does, an
    /// acknowledgement may come right behind, of what the connection had before it was lost.
    pub(super) fn ask(
        &mut self,
        conn: ConnId,
        outbox: &Arc<Outbox>,
        tag: Option<Tag>,
        topic: TopicName,
        group: GroupName,
        consumer: Arc<str>,
    ) -> Answer {
        if let Some(refusal) = self.topics.refusal(&topic) {
            return Answer::refused(tag.as_ref(), &refusal);
        }
        let place = self.topics.find(&topic).and_then(|key| {
            let group = self.topics.slot(key).topic.group_key(&group)?;
            Some(Membership { topic: key, group })
        });
        match place {
            None => {
                self.open.commands.topic(&topic);
                self.open.commands.group(&group);
                self.open.commands.create_group();
            }
            Some(place) if !outbox.is_closed() => {
                self.conns.ensure(conn, outbox, &consumer).memberships.ask(topic.tag(), place);
            }
            Some(_) => {}
        }
        Answer::Join { tag, topic, group, consumer }
    }

    /// What a session says of its connection, and wants no answer to.
    pub(super) fn hear_of(
        &mut self,
        now: Now,
        conn: ConnId,
        item: &Item,
    ) -> Result<(), ShardError> {
        match item {
            // What it holds goes to others.
            Item::Silent => self.leave(now, conn, Departure::Silent),
            Item::Heard => self.heard(now, conn),
            Item::Drained => self.drained(now, conn),
            Item::Closed => self.closed(now, conn),
            _ => unreachable!("that wants an answer"),
        }
    }

    /// The silent connection is heard again.
    fn heard(&mut self, now: Now, conn: ConnId) -> Result<(), ShardError> {
        let Some(known) = self.conns.get(conn) else { return Ok(()) };
        let name = Arc::clone(&known.consumer);
        for place in known.memberships.clone().iter() {
            self.join(now, conn, place, &name)?;
        }
        Ok(())
    }

    /// The connection has room again for what groups held back.
    fn drained(&mut self, now: Now, conn: ConnId) -> Result<(), ShardError> {
        let Some(known) = self.conns.get(conn) else { return Ok(()) };
        for place in known.memberships.clone().iter() {
            let (topic, mut desk) = self.desk(now, place.topic);
            topic.tell(place.group, Event::Resume { member: conn }, &mut desk)?;
        }
        Ok(())
    }

    /// The connection is closed.
    fn closed(&mut self, now: Now, conn: ConnId) -> Result<(), ShardError> {
        self.leave(now, conn, Departure::Closed)?;
        if let Some(gone) = self.conns.remove(conn) {
            for key in gone.follows {
                self.topics.unfollow(key, conn);
            }
        }
        Ok(())
    }

    fn leave(&mut self, now: Now, conn: ConnId, why: Departure) -> Result<(), ShardError> {
        let Some(known) = self.conns.get(conn) else { return Ok(()) };
        for place in known.memberships.clone().iter() {
            let (topic, mut desk) = self.desk(now, place.topic);
            topic.tell(place.group, Event::Leave { member: conn, why }, &mut desk)?;
        }
        Ok(())
    }

    fn join(
        &mut self,
        now: Now,
        member: ConnId,
        place: Membership,
        name: &Arc<str>,
    ) -> Result<(), ShardError> {
        let prefetch = self.prefetch;
        let (topic, mut desk) = self.desk(now, place.topic);
        let end = topic.log().shared().end();
        topic.tell(place.group, Event::LogEnd { end }, &mut desk)?;
        let join = Event::Join { member, name: Arc::clone(name), prefetch };
        topic.tell(place.group, join, &mut desk)?;
        Ok(())
    }

    /// Answers a letter whose batch is committed and applied.
    pub(super) fn answer(
        &mut self,
        now: Now,
        ticket: Ticket,
        appended: &[Appended],
    ) -> Result<(), ShardError> {
        let count = ticket.answers().min(ANSWERS_SENT_MAX);
        let mut lines = Vec::with_capacity(count * ANSWER_BYTES);
        let mut then = None;
        let mut joins = Vec::new();
        for answer in &ticket.answers {
            match answer {
                Answer::Published(published) => published.write(appended, &mut lines),
                Answer::Acked { tag, count } => {
                    for _ in 0..*count {
                        encode::ack_received(&mut lines, tag.as_ref());
                    }
                }
                Answer::Line(line) => lines.extend_from_slice(line),
                Answer::Join { tag, topic, group, consumer } => {
                    encode::subscribed(&mut lines, tag.as_ref(), topic, Some(group));
                    if !ticket.outbox.is_closed() {
                        joins.push((topic, group, consumer));
                    }
                }
                Answer::Follow { tag, topic, at, consumer } => {
                    encode::subscribed(&mut lines, tag.as_ref(), topic, None);
                    then = self.follow(now.moment, &ticket, topic, at.end(), consumer)?;
                }
                Answer::Read { topic, at } => {
                    let key = self.topics.find(topic);
                    if let Some(key) = key {
                        self.write_late(now.moment, key)?;
                    }
                    let log = key.map(|key| self.topics.slot(key).topic.shared());
                    then = Some(Then::Read { log, end: at.end() });
                }
            }
        }
        let reply = Piece::Reply { seq: ticket.seq, lines, then };
        ticket.outbox.post(reply, !self.conns.is_busy);
        for (topic, group, consumer) in joins {
            let place = self.topics.find(topic).and_then(|topic| {
                let group = self.topics.slot(topic).topic.group_key(group)?;
                Some(Membership { topic, group })
            });
            let place = place.expect("the group's creation was applied before the answer");
            self.write_late(now.moment, place.topic)?;
            let tag = topic.tag();
            let conn = self.conns.ensure(ticket.conn, &ticket.outbox, consumer);
            if conn.memberships.insert(tag, place) {
                self.conns.ask_again(ticket.conn);
                self.join(now, ticket.conn, place, consumer)?;
            }
        }
        Ok(())
    }

    /// Lets the connection follow the topic behind `end`, unless it does already.
    ///
    /// # Errors
    /// What writing a log says.
    fn follow(
        &mut self,
        now: Moment,
        ticket: &Ticket,
        topic: &TopicName,
        end: Offset,
        consumer: &Arc<str>,
    ) -> Result<Option<Then>, LogError> {
        if ticket.outbox.is_closed() {
            return Ok(None);
        }
        let key = self.topics.ensure(topic);
        self.write_late(now, key)?;
        let conn = self.conns.ensure(ticket.conn, &ticket.outbox, consumer);
        if conn.follows.contains(&key) {
            return Ok(None);
        }
        conn.follows.push(key);
        let slot = self.topics.slot_mut(key);
        let from = Arc::new(Bookmark::new(end.next()));
        slot.followers.push(Follower {
            conn: ticket.conn,
            outbox: Arc::clone(&ticket.outbox),
            bookmark: Arc::clone(&from),
        });
        slot.topic.follow();
        Ok(Some(Then::Follow { topic: topic.clone(), log: slot.topic.shared(), from }))
    }
}
