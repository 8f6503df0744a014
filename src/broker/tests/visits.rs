//! Sessions that do the work of a shard's thread, with real threads.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;

use super::super::commit::{Commit, Log, LogWriter};
use super::super::letter::{Item, Letter, Piece, Span};
use super::super::message::Message;
use super::super::open;
use super::super::outbox::{Outbox, Sent, Wire};
use super::super::settings::Settings;
use super::super::thread::Home;
use super::super::topics::shard_of;
use super::life::{now, settings, topic};
use crate::config::Fsync;
use crate::disk::Disk;
use crate::disk::sim::{Failure, Op, SimDisk};
use crate::ids::{ConnId, GroupName};
use crate::time::Moment;

/// The home of the shard of `chat`, and its disk.
fn home() -> (Arc<Home>, SimDisk) {
    home_with(&settings())
}

fn home_with(settings: &Settings) -> (Arc<Home>, SimDisk) {
    let disk = SimDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut opened = open::open(&shared, settings, now(0)).unwrap();
    let number = shard_of(&topic("chat"), settings.shards) as usize;
    let writer = LogWriter::new(opened.wal, Fsync::Always);
    let log = Arc::new(Log::new(writer, mpsc::channel().0, Arc::default(), opened.lock));
    (Arc::new(Home::new(opened.shards.swap_remove(number), Commit::Alone(log))), disk)
}

/// A letter of one connection that publishes so many bytes.
fn letter(outbox: &Arc<Outbox>, seq: u64, bytes: u32) -> Letter {
    let messages = vec![Span { start: 0, end: bytes }];
    Letter {
        conn: ConnId(1),
        outbox: Arc::clone(outbox),
        seq,
        bytes: Bytes::from(vec![b'x'; bytes as usize]),
        items: vec![Item::Publish { tag: None, topic: topic("chat"), messages }],
        permit: None,
    }
}

/// Waits until the shard's thread sleeps.
fn rest(home: &Home) {
    while home.mailbox().at_rest(|| Some(())).is_none() {
        std::thread::yield_now();
    }
}

#[test]
fn who_finds_the_shard_at_rest_has_the_answer_at_once() {
    let (home, disk) = home();
    let outbox = Arc::new(Outbox::default());
    let refused = home.enter(letter(&outbox, 1, 5), Some(1..2));
    assert!(refused.is_some() && !outbox.is_lent(), "nobody is at home yet");
    let thread = {
        let home = Arc::clone(&home);
        std::thread::spawn(move || home.serve())
    };
    rest(&home);
    let syncs = disk.count(Op::Sync);
    assert!(home.enter(letter(&outbox, 1, 5), None).is_none());
    let mut pieces = Vec::new();
    outbox.take(&mut pieces);
    let [Piece::Reply { seq: 1, lines, .. }] = &pieces[..] else { panic!("{pieces:?}") };
    assert!(lines.starts_with(b"OK published msg_") && lines.ends_with(b" 1\n"));
    assert_eq!(disk.count(Op::Sync), syncs + 1, "it is on disk");
    rest(&home);
    assert!(home.enter(letter(&outbox, 2, 5000), None).is_some(), "a large one goes by post");
    home.mailbox().post(Message::Stop);
    thread.join().unwrap().unwrap();
    assert!(home.enter(letter(&outbox, 3, 5), None).is_some(), "nobody is at home any more");
    assert_eq!(home.shard().topics().next().unwrap().log().end().get(), 1);
}

/// Takes everything, and notes what.
#[derive(Debug, Default)]
struct Open(Mutex<Vec<u8>>);

impl Wire for Open {
    fn send(&self, bytes: &[u8]) -> usize {
        self.0.lock().unwrap().extend_from_slice(bytes);
        bytes.len()
    }
}

/// It once came back with the visitor, who wrote it when the shard had done all the rest.
#[test]
fn the_answer_leaves_in_the_middle_of_a_visit() {
    let (home, _disk) = home();
    let thread = {
        let home = Arc::clone(&home);
        std::thread::spawn(move || home.serve())
    };
    rest(&home);
    let wire = Arc::<Open>::default();
    let outbox = Arc::new(Outbox::with_wire(Arc::clone(&wire) as Arc<dyn Wire>));
    assert!(home.enter(letter(&outbox, 1, 5), Some(1..2)).is_none());
    let lines = String::from_utf8(wire.0.lock().unwrap().clone()).unwrap();
    assert!(lines.starts_with("OK published msg_") && lines.ends_with(" 1\n"), "{lines}");
    let mut pieces = Vec::new();
    assert_eq!(outbox.take(&mut pieces).sent, Sent { letters: 1, lines: 1, is_drained: false });
    assert!(pieces.is_empty() && !outbox.is_lent());
    home.mailbox().post(Message::Stop);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_failure_that_a_visitor_meets_ends_the_thread() {
    let (home, disk) = home();
    let thread = {
        let home = Arc::clone(&home);
        std::thread::spawn(move || home.serve())
    };
    rest(&home);
    disk.fail_next(Op::Sync, 1, Failure::Io);
    let outbox = Arc::new(Outbox::default());
    assert!(home.enter(letter(&outbox, 1, 5), None).is_none());
    let fatal = thread.join().unwrap().unwrap_err().to_string();
    assert!(fatal.contains("sync"), "{fatal}");
    let mut pieces = Vec::new();
    outbox.take(&mut pieces);
    assert!(pieces.is_empty(), "nothing was promised");
}

/// Waits for so many lines of a connection.
fn lines(outbox: &Arc<Outbox>, count: usize) -> Vec<String> {
    let (mut lines, begin) = (Vec::new(), Moment::read());
    while lines.len() < count {
        assert!(Moment::read() < begin + Duration::from_secs(30), "waited in vain: {lines:?}");
        let mut pieces = Vec::new();
        outbox.take(&mut pieces);
        for piece in pieces {
            let (Piece::Push(text) | Piece::Reply { lines: text, .. }) = piece;
            lines.extend(String::from_utf8(text).unwrap().lines().map(str::to_owned));
        }
        std::thread::yield_now();
    }
    lines
}

/// The shard looked at its deadlines right behind a sync that had taken long, and only then at what had
/// come meanwhile: an acknowledgement that came before anybody noticed that it was late.
#[test]
fn an_acknowledgement_in_time_counts_however_long_the_disk_takes() {
    const TIME: Duration = Duration::from_millis(400);
    for is_visit in [false, true] {
        let mut settings = settings();
        settings.policy.ack_timeout = TIME;
        settings.policy.max_retries = 0;
        let (home, disk) = home_with(&settings);
        let serving = Arc::clone(&home);
        let thread = std::thread::spawn(move || serving.serve());
        let (member, publisher) = (Arc::<Outbox>::default(), Arc::<Outbox>::default());
        let of_member = |seq, item, bytes: &str| {
            let (outbox, bytes) = (Arc::clone(&member), Bytes::from(bytes.to_owned()));
            let letter =
                Letter { conn: ConnId(2), outbox, seq, bytes, items: vec![item], permit: None };
            home.mailbox().post(Message::Letter(letter));
        };
        let group = Some(GroupName::parse(b"g").unwrap());
        let consumer = Arc::from("worker");
        of_member(1, Item::Subscribe { tag: None, topic: topic("chat"), group, consumer }, "");
        assert!(lines(&member, 1)[0].starts_with("OK subscribed "));
        home.mailbox().post(Message::Letter(letter(&publisher, 1, 5)));
        let delivered = lines(&member, 1).remove(0);
        let id = delivered.split(' ').nth(2).unwrap();
        // Another message comes, and its sync takes until the lease is long over.
        rest(&home);
        let (held, syncs) = (disk.hold_syncs(), disk.count(Op::Sync));
        let since = Moment::read();
        let visitor = is_visit.then(|| {
            let (home, letter) = (Arc::clone(&home), letter(&publisher, 2, 5));
            std::thread::spawn(move || assert!(home.enter(letter, None).is_none()))
        });
        if !is_visit {
            home.mailbox().post(Message::Letter(letter(&publisher, 2, 5)));
        }
        while disk.count(Op::Sync) == syncs {
            std::thread::yield_now();
        }
        // The shard's thread has woken up for it, and waits for whoever is there.
        while Moment::read() < since + TIME + TIME / 4 {
            std::thread::yield_now();
        }
        let span = Span { start: 0, end: u32::try_from(id.len()).unwrap() };
        of_member(2, Item::Ack { tag: None, id: span }, id);
        drop(held);
        let answers = lines(&member, 2);
        assert!(answers.contains(&"OK ack_received".to_owned()), "{is_visit}: {answers:?}");
        visitor.into_iter().for_each(|visitor| visitor.join().unwrap());
        home.mailbox().post(Message::Stop);
        thread.join().unwrap().unwrap();
    }
}
