//! Batches with more than is written at once.

use std::sync::Arc;

use bytes::Bytes;

use super::super::letter::{Item, Letter, Piece, Span};
use super::super::open;
use super::super::outbox::Outbox;
use super::super::shard::Shard;
use super::super::topics::shard_of;
use super::life::{Ledger, Node, Op, live, now, settings, topic};
use crate::disk::Disk;
use crate::disk::sim::{self, Failure, Fault, SimDisk};
use crate::ids::ConnId;
use crate::limits::{AHEAD_BYTES_MAX, DEAD_LETTERS_AT_ONCE};
use crate::wal::Lsn;

const MESSAGES: usize = 100;

/// Applies a batch of messages to one topic, several segments of them.
fn apply(disk: &SimDisk, outbox: &Arc<Outbox>) -> Shard {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut opened = open::open(&shared, &settings(), now(0)).unwrap();
    let number = shard_of(&topic("chat"), settings().shards) as usize;
    let mut shard = opened.shards.swap_remove(number);
    let message = Span { start: 0, end: 200 };
    let letter = Letter {
        conn: ConnId(1),
        outbox: Arc::clone(outbox),
        seq: 1,
        bytes: Bytes::from(vec![b'x'; 200]),
        items: vec![Item::Publish {
            tag: None,
            topic: topic("chat"),
            messages: vec![message; MESSAGES],
        }],
        permit: None,
    };
    shard.letter(now(0), letter).unwrap();
    let batch = shard.submit().unwrap();
    shard.committed(now(0), batch.index, Lsn::new(1), batch.payload).unwrap();
    shard
}

/// Lines of the topic, in all of its files.
fn lines(disk: &SimDisk) -> usize {
    let is_log = |name: &str| name.contains("chat") && name.ends_with(".log");
    let files = disk.files().into_iter().filter(|(path, _)| is_log(&path.to_string_lossy()));
    files.map(|(_, bytes)| memchr::memchr_iter(b'\n', &bytes).count()).sum()
}

fn answers(outbox: &Outbox) -> usize {
    let mut pieces = Vec::new();
    outbox.take(&mut pieces);
    let lines = |piece: &Piece| match piece {
        Piece::Reply { lines, .. } => memchr::memchr_iter(b'\n', lines).count(),
        Piece::Push(_) => 0,
    };
    pieces.iter().map(lines).sum()
}

/// All lines of a large batch were once made before the first was written, in memory that was new each
/// time.
#[test]
fn lines_are_written_while_their_batch_is_applied_and_answered_behind_it() {
    let (disk, outbox) = (SimDisk::new(), Arc::<Outbox>::default());
    let mut shard = apply(&disk, &outbox);
    let early = lines(&disk);
    assert!((MESSAGES / 2..MESSAGES).contains(&early), "{early}");
    assert_eq!(answers(&outbox), 0);
    shard.send(now(0)).unwrap();
    assert_eq!((lines(&disk), answers(&outbox)), (MESSAGES, MESSAGES));
}

#[test]
fn a_disk_without_room_is_asked_once_while_a_batch_is_applied() {
    let (disk, outbox) = (SimDisk::new(), Arc::<Outbox>::default());
    let op = Some(sim::Op::Write);
    let path_has = "chat.log".to_owned();
    disk.fail(Fault { op, path_has, skip: 0, times: 1, failure: Failure::NoSpace });
    let mut shard = apply(&disk, &outbox);
    assert_eq!(lines(&disk), 0);
    shard.send(now(0)).unwrap();
    assert_eq!((lines(&disk), answers(&outbox)), (MESSAGES, MESSAGES));
}

/// All that members held when they hung became one batch, read and written in one turn, however much it was.
#[test]
fn many_large_messages_that_time_out_at_once_become_dead_letters_batch_by_batch() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    node.filling = 100_000;
    // Each of them holds four at a time.
    live(&mut node, &[(); 6].map(|()| Op::Subscribe("a")), &mut ledger).unwrap();
    live(&mut node, &[Op::Publish("a", 24)], &mut ledger).unwrap();
    // All fail once, and are delivered again a second later.
    live(&mut node, &[Op::Pass(10), Op::Pass(1)], &mut ledger).unwrap();
    assert_eq!(node.held(), 48);
    node.stall(10, &mut ledger).unwrap();
    let mut sizes = Vec::new();
    loop {
        let written = node.write().unwrap();
        if written.is_empty() {
            break;
        }
        sizes.extend(written.iter().map(|(_, batch)| batch.payload.len() / node.filling));
        node.apply(written, &mut ledger).unwrap();
    }
    assert_eq!(sizes, [DEAD_LETTERS_AT_ONCE, 24 - DEAD_LETTERS_AT_ONCE]);
    assert_eq!(node.topic("a.dlq").log().end().get(), 24);
}

/// With much of it on its way to a slow disk, the rest waits.
#[test]
fn nothing_more_times_out_while_much_is_on_its_way() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    live(&mut node, &[Op::Subscribe("a"), Op::Publish("a", 1)], &mut ledger).unwrap();
    node.filling = AHEAD_BYTES_MAX;
    node.publish(0, "b", 1, &mut ledger).unwrap();
    let written = node.write().unwrap();
    node.stall(10, &mut ledger).unwrap();
    assert!(node.write().unwrap().is_empty(), "its time is over, and the log is behind");
    node.apply(written, &mut ledger).unwrap();
    assert!(!node.write().unwrap().is_empty());
}
