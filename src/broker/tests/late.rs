//! Lines of many topics that nobody reads: they wait, and nobody can tell.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::late::LATE;
use super::super::letter::{Item, Letter, Span};
use super::super::open;
use super::super::outbox::Outbox;
use super::super::settings::Settings;
use super::super::shard::{ALL_TOPICS, Shard};
use super::life::{now, settings, topic};
use crate::disk::sim::{self, Failure, Fault, SimDisk};
use crate::disk::{self, Disk};
use crate::ids::{ConnId, GroupName};
use crate::limits::LATE_BYTES_MAX;
use crate::log::LogSettings;
use crate::time::Now;
use crate::wal::Lsn;

/// A shard that lets lines wait if they are of more than one topic, and one connection.
struct Room {
    disk: SimDisk,
    settings: Settings,
    shard: Shard,
    outbox: Arc<Outbox>,
    seq: u64,
    now: Now,
}

impl Room {
    fn open() -> Room {
        let disk = SimDisk::new();
        let log = LogSettings { segment_bytes: 64 << 20 };
        let settings = Settings { shards: 1, topics_written_max: 1, log, ..settings() };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = open::open(&shared, &settings, now(0)).unwrap();
        drop(opened.lock);
        let [shard] = opened.shards.try_into().unwrap();
        Room { disk, settings, shard, outbox: Arc::default(), seq: 0, now: now(0) }
    }

    /// Asks for all of it in one turn.
    fn ask(&mut self, items: Vec<Item>, bytes: &[u8]) {
        self.seq += 1;
        let letter = Letter {
            conn: ConnId(1),
            outbox: Arc::clone(&self.outbox),
            seq: self.seq,
            bytes: Bytes::copy_from_slice(bytes),
            items,
            permit: None,
        };
        self.shard.letter(self.now, letter).unwrap();
        while !self.shard.is_idle() {
            if let Some(batch) = self.shard.submit() {
                let lsn = Lsn::new(batch.index);
                self.shard.committed(self.now, batch.index, lsn, batch.payload).unwrap();
            }
            self.shard.send(self.now).unwrap();
        }
    }

    /// Publishes a message of so many bytes to each topic.
    fn publish(&mut self, topics: &[&str], bytes: u32) {
        let publish = |name: &&str| Item::Publish {
            tag: None,
            topic: topic(name),
            messages: vec![Span { start: 0, end: bytes }],
        };
        let message = vec![b'm'; usize::try_from(bytes).unwrap()];
        self.ask(topics.iter().map(publish).collect(), &message);
    }

    fn subscribe(&mut self, name: &str, group: Option<&str>) {
        let group = group.map(|group| GroupName::parse(group.as_bytes()).unwrap());
        let (topic, consumer) = (topic(name), Arc::from("c1"));
        self.ask(vec![Item::Subscribe { tag: None, topic, group, consumer }], b"");
    }

    /// Lets time pass, with nothing else to do.
    fn pass(&mut self, time: Duration) {
        self.now.moment = self.now.moment + time;
        self.shard.wake(self.now).unwrap();
        self.shard.send(self.now).unwrap();
    }

    fn part(&mut self, piece: Range<usize>) -> bool {
        self.shard.part(Lsn::default(), piece).unwrap().is_some()
    }

    /// How many lines each topic's file has.
    fn lines<const N: usize>(&self, topics: [&str; N]) -> [usize; N] {
        topics.map(|name| {
            let path = Path::new(&self.settings.data_dir).join(format!("{name}.log"));
            let bytes = disk::read_all(&self.disk, &path).unwrap_or_default();
            bytes.iter().filter(|byte| **byte == b'\n').count()
        })
    }
}

#[test]
fn lines_of_many_topics_wait_for_as_long_as_they_may() {
    let mut room = Room::open();
    room.publish(&["a", "b", "c"], 5);
    room.pass(LATE / 2);
    room.publish(&["b", "d"], 5);
    assert_eq!(room.lines(["a", "b", "c", "d"]), [0; 4]);
    let due = now(0).moment + LATE;
    assert_eq!(room.shard.wake_at(), Some(due));
    room.pass(LATE / 2);
    assert_eq!(room.lines(["a", "b", "c", "d"]), [1, 2, 1, 0]);
    assert_eq!(room.shard.wake_at(), Some(due + LATE / 2));
    room.pass(LATE / 2);
    assert_eq!(room.lines(["a", "b", "c", "d"]), [1, 2, 1, 1]);
    assert_eq!(room.shard.wake_at(), None);
}

#[test]
fn one_topic_alone_does_not_wait_and_takes_what_does_with_it() {
    let mut room = Room::open();
    room.publish(&["a", "b"], 5);
    room.publish(&["a"], 5);
    assert_eq!(room.lines(["a", "b"]), [2, 0]);
    room.publish(&["a", "c"], 5);
    room.pass(LATE);
    assert_eq!(room.lines(["a", "b", "c"]), [3, 1, 1]);
}

#[test]
fn who_asks_for_a_topic_has_its_lines_written() {
    let mut room = Room::open();
    room.publish(&["a", "b", "c", "d"], 5);
    room.ask(vec![Item::Locate { topic: topic("a") }], b"");
    assert_eq!(room.lines(["a", "b", "c", "d"]), [1, 0, 0, 0]);
    room.subscribe("b", None);
    assert_eq!(room.lines(["a", "b", "c", "d"]), [1, 1, 0, 0]);
    room.subscribe("c", Some("g"));
    assert_eq!(room.lines(["a", "b", "c", "d"]), [1, 1, 1, 0]);
}

#[test]
fn what_is_read_and_dead_letters_do_not_wait() {
    let mut room = Room::open();
    room.subscribe("a", None);
    room.subscribe("b", Some("g"));
    room.publish(&["a", "b", "c", "c.dlq", "d"], 5);
    assert_eq!(room.lines(["a", "b", "c", "c.dlq", "d"]), [1, 1, 0, 1, 0]);
}

#[test]
fn a_piece_of_a_checkpoint_has_its_topics_written() {
    let mut room = Room::open();
    room.publish(&["a", "b", "c"], 5);
    assert!(room.part(1..2));
    assert_eq!(room.lines(["a", "b", "c"]), [0, 1, 0]);
    assert!(room.part(ALL_TOPICS));
    assert_eq!(room.lines(["a", "b", "c"]), [1; 3]);
    room.pass(LATE);
    assert_eq!(room.lines(["a", "b", "c"]), [1; 3]);
}

#[test]
fn no_more_waits_than_there_is_memory_for() {
    let mut room = Room::open();
    let names: Vec<String> = (0..60).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fits = 55;
    let bytes = u32::try_from(LATE_BYTES_MAX / (fits + 1)).unwrap();
    room.publish(&names, bytes);
    assert_eq!(room.lines(["t0", "t4", "t5", "t59"]), [1, 1, 0, 0], "the first make room");
    room.publish(&["a", "b"], 5);
    for _ in 0..3 {
        room.publish(&["t58", "t59"], 5);
    }
    assert_eq!(room.lines(["t5", "t59", "a", "b"]), [0; 4], "there is room");
    room.pass(LATE);
    assert_eq!(room.lines(["t5", "t59", "a", "b"]), [1, 4, 1, 1]);
}

#[test]
fn a_full_disk_keeps_lines_that_waited_and_says_so() {
    for ask in [false, true] {
        let mut room = Room::open();
        room.publish(&["a", "b"], 5);
        room.disk.fail(Fault {
            op: Some(sim::Op::Write),
            path_has: "a.log".to_owned(),
            skip: 0,
            times: 2,
            failure: Failure::NoSpace,
        });
        assert!(!room.part(ALL_TOPICS), "the checkpoint has to wait");
        match ask {
            false => room.pass(LATE),
            true => room.ask(vec![Item::Locate { topic: topic("a") }], b""),
        }
        assert!(room.settings.gate.refusal().is_some(), "nothing can be published");
        let retry = room.shard.wake_at().expect("it is tried again");
        room.pass(retry.since(room.now.moment).max(LATE));
        assert_eq!(room.lines(["a", "b"]), [1, 1]);
        assert!(room.settings.gate.refusal().is_none());
    }
}

#[test]
fn nothing_new_waits_while_the_disk_is_full() {
    let mut room = Room::open();
    room.publish(&["a", "b"], 5);
    room.disk.fail(Fault {
        op: Some(sim::Op::Write),
        path_has: ".log".to_owned(),
        skip: 0,
        times: 6,
        failure: Failure::NoSpace,
    });
    room.pass(LATE);
    for _ in 0..2 {
        assert!(room.settings.gate.refusal().is_some());
        room.pass(2 * LATE);
    }
    room.pass(2 * LATE);
    assert_eq!(room.lines(["a", "b"]), [1, 1]);
    assert!(room.settings.gate.refusal().is_none());
}
