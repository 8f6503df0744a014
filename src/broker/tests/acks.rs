//! What groups do with acknowledgements and pauses, one connection in many of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::super::letter::{Item, Letter, Piece, Span};
use super::super::open;
use super::super::outbox::Outbox;
use super::super::settings::Settings;
use super::super::shard::Shard;
use super::life::{Ledger, Node, Op, live, now, settings, topic};
use super::logged::logged;
use crate::disk::Disk;
use crate::disk::sim::{Crash, SimDisk};
use crate::ids::{ConnId, GroupName, Offset};
use crate::log::TailBudget;
use crate::time::Now;
use crate::topic::Commands;
use crate::wal::Lsn;

/// A shard that has messages in files only, and one connection.
struct Room {
    shard: Shard,
    conn: ConnId,
    outbox: Arc<Outbox>,
    seq: u64,
}

impl Room {
    fn open(disk: &SimDisk) -> Room {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let tail = Arc::new(TailBudget::new(0));
        let opened = open::open(&shared, &Settings { shards: 1, tail, ..settings() }, now(0));
        let opened = opened.unwrap();
        drop(opened.lock);
        let [shard] = opened.shards.try_into().unwrap();
        Room { shard, conn: ConnId(1), outbox: Arc::default(), seq: 0 }
    }

    /// Asks for it, and gives all lines that come.
    fn ask(&mut self, item: Item, bytes: &[u8]) -> Vec<String> {
        self.ask_as(vec![item], bytes, None)
    }

    /// The same, with other commands written instead of those that this makes.
    fn ask_as(
        &mut self,
        items: Vec<Item>,
        bytes: &[u8],
        commands: Option<Commands>,
    ) -> Vec<String> {
        self.seq += 1;
        let letter = Letter {
            conn: self.conn,
            outbox: Arc::clone(&self.outbox),
            seq: self.seq,
            bytes: Bytes::copy_from_slice(bytes),
            items,
            permit: None,
        };
        self.shard.letter(now(0), letter).unwrap();
        self.finish(now(0), commands);
        let mut pieces = Vec::new();
        self.outbox.take(&mut pieces);
        let bytes = pieces.into_iter().flat_map(|piece| match piece {
            Piece::Push(lines) | Piece::Reply { lines, .. } => lines,
        });
        let text = String::from_utf8(bytes.collect()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Does all that there is to do.
    fn finish(&mut self, now: Now, commands: Option<Commands>) {
        let mut other = commands.map(Commands::into_bytes);
        loop {
            if let Some(batch) = self.shard.submit() {
                let payload = other.take().unwrap_or(batch.payload);
                self.shard.committed(now, batch.index, Lsn::new(batch.index), payload).unwrap();
            }
            self.shard.send(now).unwrap();
            if self.shard.is_idle() {
                return;
            }
        }
    }

    /// It is so many seconds later than it ever was.
    fn wake(&mut self, seconds: u64) {
        self.shard.wake(now(seconds)).unwrap();
        self.finish(now(seconds), None);
    }

    fn follow(&mut self, name: &str) -> Vec<String> {
        let (topic, consumer) = (topic(name), Arc::from("c1"));
        self.ask(Item::Subscribe { tag: None, topic, group: None, consumer }, b"")
    }

    fn subscribe(&mut self, name: &str, group: &str) -> Vec<String> {
        let group = Some(GroupName::parse(group.as_bytes()).unwrap());
        let (topic, consumer) = (topic(name), Arc::from("c1"));
        self.ask(Item::Subscribe { tag: None, topic, group, consumer }, b"")
    }

    fn publish(&mut self, name: &str, message: &str, commands: Option<Commands>) -> Vec<String> {
        let messages = vec![whole(message)];
        let item = Item::Publish { tag: None, topic: topic(name), messages };
        self.ask_as(vec![item], message.as_bytes(), commands)
    }

    /// Publishes a message with an id of its own, and gives that.
    fn publish_as(&mut self, name: &str, id: &str, message: &str) -> String {
        let mut commands = Commands::default();
        commands.topic(&topic(name));
        commands.time(now(0).wall);
        commands.append_more(id, "", message.as_bytes());
        self.publish(name, message, Some(commands));
        id.to_owned()
    }

    /// Speaks for another connection from now on; gives the outbox of the one before.
    fn switch(&mut self, conn: u64, outbox: Arc<Outbox>) -> Arc<Outbox> {
        self.conn = ConnId(conn);
        std::mem::replace(&mut self.outbox, outbox)
    }

    fn ack(&mut self, id: &str) -> Vec<String> {
        self.ask(Item::Ack { tag: None, id: whole(id) }, id.as_bytes())
    }

    /// How many messages of a topic no group has settled, in all groups.
    fn lag(&self, name: &str) -> u64 {
        let its = |t: &&crate::topic::Topic| *t.name() == topic(name);
        let topic = self.shard.topics().find(its).unwrap();
        topic.progress().map(|(_, progress)| progress.lag(topic.log().end())).sum()
    }
}

fn whole(text: &str) -> Span {
    Span { start: 0, end: u32::try_from(text.len()).unwrap() }
}

/// The id in `OK published <id> …`, or in `MSG <topic> <id> …`.
fn id(lines: &[String]) -> String {
    lines[0].split(' ').nth(2).unwrap().to_owned()
}

const DONE: [&str; 1] = ["OK ack_received"];

fn is_refused(lines: &[String]) -> bool {
    lines.len() == 1 && lines[0].starts_with("ERR NOT_PENDING ")
}

#[test]
fn one_that_is_in_many_groups_settles_one_delivery_of_a_message_after_the_other() {
    let mut room = Room::open(&SimDisk::new());
    for name in ["a", "b", "c"] {
        for group in ["x", "y", "z"] {
            room.subscribe(name, group);
        }
    }
    let first = id(&room.publish("a", "first", None));
    let second = id(&room.publish("b", "second", None));
    assert!(is_refused(&room.ack(&format!("{first}0"))), "there is no such message");
    for left in (0..3).rev() {
        assert_eq!(room.ack(&second), DONE);
        assert_eq!(room.ack(&first), DONE);
        assert_eq!((room.lag("a"), room.lag("b"), room.lag("c")), (left, left, 0));
    }
    assert!(is_refused(&room.ack(&first)));
}

/// A second acknowledgement of the same delivery, by one that is in two groups, once settled what another
/// member held: nobody was given that any more.
#[test]
fn one_that_acknowledges_a_delivery_twice_settles_nothing_that_another_holds() {
    for own in [None, Some("order-7")] {
        for second in ["a", "b"] {
            // Of two topics only ids that do not tell their topic are the same.
            if own.is_none() && second == "b" {
                continue;
            }
            let mut room = Room::open(&SimDisk::new());
            room.subscribe("a", "x");
            let outbox = room.switch(2, Arc::default());
            room.subscribe(second, "y");
            let other = room.switch(1, outbox);
            room.subscribe(second, "y");
            let topics: BTreeSet<_> = ["a", second].into();
            let ids = topics.into_iter().map(|name| match own {
                None => id(&room.publish(name, "one", None)),
                Some(own) => room.publish_as(name, own, "one"),
            });
            let id = &ids.last().unwrap();
            room.ask(Item::Silent, b"");
            assert_eq!(room.ask(Item::Heard, b"").len(), 1, "the first group gives it again");
            assert_eq!(room.ack(id), DONE);
            assert!(is_refused(&room.ack(id)), "the other one has it");
            let outbox = room.switch(2, other);
            room.ask(Item::Closed, b"");
            room.switch(1, outbox);
            let lines = room.ask(Item::Heard, b"");
            assert_eq!(lines.len(), 1, "it comes again: {lines:?}");
            assert_eq!((room.ack(id), room.lag(second)), (DONE.map(str::to_owned).to_vec(), 0));
        }
    }
}

#[test]
fn one_that_is_in_many_groups_may_be_late_with_what_nobody_was_given_since() {
    for own in [None, Some("order-7")] {
        let mut room = Room::open(&SimDisk::new());
        for group in ["x", "y"] {
            room.subscribe("a", group);
        }
        let id = match own {
            None => id(&room.publish("a", "one", None)),
            Some(own) => room.publish_as("a", own, "one"),
        };
        room.ask(Item::Silent, b"");
        for left in [1, 0] {
            assert_eq!(room.ack(&id), DONE);
            assert_eq!(room.lag("a"), left);
        }
        assert!(is_refused(&room.ack(&id)));
    }
}

#[test]
fn an_id_that_does_not_tell_its_offset_is_known_in_every_topic() {
    let mut room = Room::open(&SimDisk::new());
    for name in ["a", "b"] {
        room.subscribe(name, "x");
        room.publish_as(name, "order-7", "one");
    }
    room.subscribe("b", "y");
    room.publish_as("b", "order-8", "two");
    // One with the form of its topic's own ids, which leads elsewhere: a line before it was removed.
    let moved = format!("msg_1_{:08x}9", topic("b").tag());
    room.publish_as("b", &moved, "three");
    assert_eq!((room.lag("a"), room.lag("b")), (1, 5));
    for (id, left) in [
        ("order-7", (0, 5)),
        ("order-7", (0, 4)),
        ("order-8", (0, 3)),
        (&moved, (0, 2)),
        (&moved, (0, 1)),
        ("order-8", (0, 0)),
    ] {
        assert_eq!(room.ack(id), DONE, "{id}");
        assert_eq!((room.lag("a"), room.lag("b")), left, "{id}");
    }
    for id in ["order-7", "order-8", &moved] {
        assert!(is_refused(&room.ack(id)), "{id}");
    }
}

/// The answer was once that to the failure of the message behind it.
#[test]
fn an_acknowledgement_counts_though_what_comes_for_its_credit_is_damaged() {
    let disk = SimDisk::new();
    let prefetch = usize::try_from(settings().prefetch).unwrap();
    let mut room = Room::open(&disk);
    room.subscribe("a", "x");
    let mut publish = |number| id(&room.publish("a", &format!("message-{number}"), None));
    let ids: Vec<_> = (0..=prefetch).map(&mut publish).collect();
    let path: PathBuf = Path::new("/srv/data/a.log").into();
    let damaged = format!("message-{prefetch}");
    let at = memchr::memmem::find(&disk.files()[&path], damaged.as_bytes()).unwrap();
    disk.flip_bit(&path, at as u64, 0).unwrap();
    assert_eq!(room.ack(&ids[0]), DONE);
    assert_eq!(room.lag("a"), 3, "the damaged one is a dead letter");
    assert_eq!(room.shard.topics().filter(|t| t.name().is_dead_letter()).count(), 1);
}

/// It was once told of the group that did something next.
#[test]
fn a_pause_is_told_of_the_group_that_paused() {
    let mut room = Room::open(&SimDisk::new());
    for group in ["x", "y"] {
        room.subscribe("a", group);
    }
    room.outbox.grant(super::super::outbox::Room { bytes: 0, is_ample: false });
    let told = logged(|| assert_eq!(room.publish("a", "one", None).len(), 1));
    let paused: Vec<_> = told.lines().filter(|line| line.contains("member_paused")).collect();
    assert_eq!(paused.len(), 2, "{told}");
    assert!(paused[0].contains("group=x") && paused[1].contains("group=y"), "{paused:?}");
}

/// A worker that has lost its connection need not wait for the answer to its `SUB` before it acknowledges
/// what it has done meanwhile.
#[test]
fn an_acknowledgement_right_behind_the_subscription_counts() {
    let mut room = Room::open(&SimDisk::new());
    room.subscribe("a", "g");
    let (one, two) = (id(&room.publish("a", "one", None)), id(&room.publish("a", "two", None)));
    room.ask(Item::Closed, b"");
    (room.conn, room.outbox, room.seq) = (ConnId(2), Arc::default(), 0);
    let group = Some(GroupName::parse(b"g").unwrap());
    let (topic, consumer) = (topic("a"), Arc::from("c1"));
    let subscribe = Item::Subscribe { tag: None, topic, group, consumer };
    let ack = Item::Ack { tag: None, id: whole(&one) };
    let lines = room.ask_as(vec![subscribe, ack], one.as_bytes(), None);
    assert_eq!(lines[..2], ["OK subscribed a in group g", "OK ack_received"]);
    assert_eq!((lines.len(), id(&lines[2..])), (3, two), "and the other one comes again");
    assert_eq!(room.lag("a"), 1);
}

/// A connection that followed a topic first had no name after it had been silent.
#[test]
fn a_member_that_is_heard_again_has_its_name_in_dead_letters() {
    let disk = SimDisk::new();
    let mut room = Room::open(&disk);
    room.follow("chat");
    room.subscribe("jobs", "g");
    room.ask(Item::Silent, b"");
    room.ask(Item::Heard, b"");
    room.publish("jobs", "one", None);
    for seconds in [11, 13, 24] {
        room.wake(seconds);
    }
    let files = disk.files();
    let letters = &files[Path::new("/srv/data/jobs.dlq.log")];
    let letters = String::from_utf8_lossy(letters);
    assert_eq!(letters.matches(r#""consumer":"c1""#).count(), 2, "{letters}");
}

/// It goes on with the room that it had when it was asked last, but not when it joins another group.
#[test]
fn who_joins_is_asked_for_its_room() {
    let mut room = Room::open(&SimDisk::new());
    for name in ["a", "b"] {
        room.subscribe(name, "g");
        assert_eq!(room.publish(name, "one", None).len(), 2, "the answer and the message");
    }
    room.ask(Item::Closed, b"");
    (room.conn, room.outbox, room.seq) = (ConnId(2), Arc::default(), 0);
    let ample = super::super::outbox::Room { bytes: 1 << 20, is_ample: true };
    room.outbox.grant(ample);
    assert_eq!(room.subscribe("a", "g").len(), 2, "the answer and the message");
    room.outbox.grant(super::super::outbox::Room { bytes: 0, is_ample: false });
    assert_eq!(room.subscribe("b", "g").len(), 1, "the answer alone");
    assert_eq!(room.publish("a", "two", None).len(), 1);
    room.outbox.grant(ample);
    assert_eq!(room.ask(Item::Drained, b"").len(), 2, "both messages");
}

/// It was once refused after a restart, and the message came again.
#[test]
fn an_acknowledgement_right_behind_the_subscription_counts_after_a_restart() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    live(&mut node, &[Op::Subscribe("a"), Op::Publish("a", 2)], &mut ledger).unwrap();
    let held = node.hand(1).clone();
    live(&mut node, &[Op::Leave(1)], &mut ledger).unwrap();
    let disk = disk.crash(Crash::LoseUnsynced);
    let (mut node, _found) = Node::start(&disk, now(1)).unwrap();
    node.subscribe("a").unwrap();
    let (topic, id, offset) = held[1].clone();
    let never_given = (topic, id.replacen('_', "_1", 1), offset);
    node.hand(1).extend([never_given, held[0].clone()]);
    for _ in 0..2 {
        node.ack(1, 0, &mut ledger).unwrap();
    }
    live(&mut node, &[Op::Pass(0)], &mut ledger).unwrap();
    assert_eq!(node.offsets(1), [2]);
    let is_settled = |n| {
        let mut groups = node.topic("a").progress();
        groups.all(|(_, progress)| progress.is_settled(Offset::new(n)))
    };
    assert_eq!([1, 2].map(is_settled), [true, false]);
}
