//! A disk that has no room for a topic's file for a while.

use std::path::{Path, PathBuf};

use super::life::{self, Ledger, Node, Op, live, now};
use crate::disk;
use crate::disk::sim::{self, Crash, Failure, Fault, SimDisk};

/// With thousands of topics whose files the disk did not take, every turn of the shard tried all of them
/// again, whoever had to wait for it, and each kept a file descriptor.
#[test]
fn many_files_without_room_are_tried_a_few_at_a_time_and_closed() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    live(&mut node, &[], &mut ledger).unwrap();
    let names: Vec<String> = (0..60).map(|n| format!("t{n}")).collect();
    for name in &names {
        node.publish(0, name, 1, &mut ledger).unwrap();
    }
    let written = node.write().unwrap();
    let (op, path_has) = (Some(sim::Op::Write), "t".to_owned());
    disk.fail(Fault { op, path_has, skip: 0, times: u64::MAX, failure: Failure::NoSpace });
    let count = |disk: &SimDisk| [sim::Op::Create, sim::Op::Write].map(|op| disk.count(op));
    let [opened, tried] = count(&disk);
    node.apply(written, &mut ledger).unwrap();
    // Lines of so many topics wait for a moment.
    node.stall(1, &mut ledger).unwrap();
    assert_eq!(count(&disk), [opened + 60, tried + 60]);
    for _ in 0..10 {
        node.stall(0, &mut ledger).unwrap();
    }
    assert_eq!(count(&disk), [opened + 60, tried + 60], "it is not time yet");
    for times in 1..5 {
        node.stall(1, &mut ledger).unwrap();
        let some = 60 + times * 2 * 16;
        assert_eq!(count(&disk), [opened + some, tried + some], "on two shards, each opened again");
    }
    disk.heal();
    live(&mut node, &[Op::Pass(1)], &mut ledger).unwrap();
    let files = disk.files();
    let is_there = |name: &String| files[&Path::new("/srv/data").join(format!("{name}.log"))].len();
    assert!(names.iter().all(|name| is_there(name) > 0));
    node.publish(0, "t0", 1, &mut ledger).unwrap();
    live(&mut node, &[Op::Pass(1)], &mut ledger).unwrap();
    life::check(&disk, &node, &ledger);
}

/// A checkpoint that found room for what had to wait once told nobody of it: a group had messages and
/// credit, and nothing was delivered before somebody published again.
#[test]
fn what_a_checkpoint_finds_room_for_is_delivered() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    live(&mut node, &[Op::Subscribe("a"), Op::Publish("a", 1)], &mut ledger).unwrap();
    assert_eq!(node.held(), 1);
    disk.fail(Fault {
        op: Some(sim::Op::Write),
        path_has: "a.log".to_owned(),
        skip: 0,
        times: 2,
        failure: Failure::NoSpace,
    });
    live(&mut node, &[Op::Publish("a", 1)], &mut ledger).unwrap();
    assert_eq!(node.held(), 1, "it can't be written");
    live(&mut node, &[Op::Checkpoint, Op::Pass(1)], &mut ledger).unwrap();
    assert_eq!(node.held(), 2);
}

/// From now on there is no room for the topic's file.
fn fill(disk: &SimDisk) {
    let (op, path_has) = (Some(sim::Op::Write), "a.log".to_owned());
    disk.fail(Fault { op, path_has, skip: 0, times: u64::MAX, failure: Failure::NoSpace });
}

/// Ready lines of what could not be written yet were kept for readers, and the next ones put behind them
/// though one between them had none: a group was given a wrong message for one that it never got.
#[test]
fn who_comes_while_the_disk_is_full_gets_every_message() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    live(&mut node, &[Op::Subscribe("a")], &mut ledger).unwrap();
    let mut written = Vec::new();
    for is_second in [false, true, false] {
        node.publish(0, "a", 1, &mut ledger).unwrap();
        if is_second {
            node.subscribe("a").unwrap();
        }
        written.push(node.write().unwrap());
    }
    fill(&disk);
    for (number, written) in written.into_iter().enumerate() {
        node.apply(written, &mut ledger).unwrap();
        if number == 0 {
            node.leave(1).unwrap();
        }
    }
    assert_eq!(node.held(), 0, "nothing can be written");
    disk.heal();
    live(&mut node, &[Op::Pass(1)], &mut ledger).unwrap();
    assert_eq!(node.offsets(2), [1, 2, 3]);
}

/// A group was told of what could not be written yet, if a checkpoint had just found room for what came
/// before it, and asked for it in vain: the shard panicked.
#[test]
fn a_group_is_told_of_nothing_that_can_not_be_read() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    live(&mut node, &[Op::Subscribe("a")], &mut ledger).unwrap();
    let written = [(); 2].map(|()| {
        node.publish(0, "a", 1, &mut ledger).unwrap();
        node.write().unwrap()
    });
    let [first, second] = written;
    fill(&disk);
    node.apply(first, &mut ledger).unwrap();
    disk.heal();
    // It is written with the state, but nobody is told before the shard's next turn.
    node.part().unwrap();
    fill(&disk);
    node.apply(second, &mut ledger).unwrap();
    assert_eq!(node.offsets(1), [1]);
    disk.heal();
    live(&mut node, &[Op::Pass(1)], &mut ledger).unwrap();
    assert_eq!(node.offsets(1), [1, 2]);
}

/// While the log waits for room, timers go on. A dead letter once left out the attempts that were not
/// durable when it was written.
#[test]
fn a_dead_letter_tells_of_attempts_that_are_not_durable_yet() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    live(&mut node, &[Op::Subscribe("a"), Op::Publish("a", 1)], &mut ledger).unwrap();
    assert_eq!(node.offsets(1), [1]);
    // The first attempt is over after ten seconds, and the second, the last, begins a second later.
    let mut written = Vec::new();
    for seconds in [10, 1, 10] {
        node.stall(seconds, &mut ledger).unwrap();
        written.extend(node.write().unwrap());
    }
    assert_eq!(node.offsets(1), [1, 1]);
    node.apply(written, &mut ledger).unwrap();
    let line = disk::read_all(&disk, Path::new("/srv/data/a.dlq.log")).unwrap();
    let letter: serde_json::Value = serde_json::from_slice(&line).unwrap();
    let numbers = letter["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["n"]);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2]);
    assert_eq!(letter["retry_count"], 1);
}

/// How many topics' files a power cut would leave something of.
fn on_disk(disk: &SimDisk) -> usize {
    let files = disk.copy(Crash::LoseUnsynced).files().into_iter();
    let logs = files.filter(|(path, _)| path.extension() == Some("log".as_ref()));
    logs.filter(|(_, bytes)| !bytes.is_empty()).count()
}

/// A file that had to be opened to be synced, while all descriptors were taken, once ended the process. What
/// was not synced then must be before another checkpoint counts, although nothing more was written to it.
#[test]
fn a_checkpoint_without_a_descriptor_does_not_count_and_the_next_one_syncs_what_it_could_not() {
    for skip in 0..4 {
        let disk = SimDisk::new();
        let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
        let mut ledger = Ledger::default();
        let all = ["a", "b", "c"].map(|topic| Op::Publish(topic, 1));
        live(&mut node, &all, &mut ledger).unwrap();
        let (op, path_has) = (Some(sim::Op::Open), ".log".to_owned());
        disk.fail(Fault { op, path_has, skip, times: 1, failure: Failure::NoDescriptor });
        node.checkpoint(false).unwrap();
        let is_second = |path: &PathBuf| path.ends_with("0000000000000002.json");
        let is_made = disk.files().keys().any(is_second);
        assert_eq!(is_made, skip == 3, "there are three files, and {skip} could be opened");
        if !is_made {
            assert_eq!(on_disk(&disk), 2, "the others are synced");
            // Nothing new is in it.
            node.checkpoint(false).unwrap();
        }
        let disk = disk.crash(Crash::LoseUnsynced);
        let (node, _found) = Node::start(&disk, now(1)).unwrap();
        life::check(&disk, &node, &ledger);
    }
}

/// A dead letter was written without its message if that could not be read at the moment.
#[test]
fn a_dead_letter_waits_until_its_message_can_be_read() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    let mut pass = |node: &mut Node, seconds| {
        live(node, &[Op::Pass(seconds)], &mut ledger).unwrap();
        node.held()
    };
    live(&mut node, &[Op::Subscribe("a"), Op::Publish("a", 1)], &mut Ledger::default()).unwrap();
    assert_eq!([10, 1].map(|seconds| pass(&mut node, seconds)), [1, 2]);
    let (op, path_has) = (Some(sim::Op::Open), "a.log".to_owned());
    disk.fail(Fault { op, path_has, skip: 0, times: u64::MAX, failure: Failure::NoDescriptor });
    let letters = Path::new("/srv/data/a.dlq.log");
    assert_eq!((pass(&mut node, 10), disk.files().contains_key(letters)), (2, false));
    disk.heal();
    assert_eq!(pass(&mut node, 10), 3, "it is delivered once more");
    assert_eq!(pass(&mut node, 10), 3);
    let line = disk::read_all(&disk, letters).unwrap();
    let letter: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert!(letter["msg"].as_str().unwrap().starts_with("a-1-"), "{letter}");
    assert_eq!(letter["attempts"].as_array().unwrap().len(), 3);
}

/// What could not be read for want of a descriptor was never sent, and was once a failure of the member all
/// the same: in the end, a dead letter that nobody had been given.
#[test]
fn what_can_not_be_read_is_no_failure_of_the_member() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    // Nobody reads, so the group has to read the file.
    let ops = [Op::Subscribe("a"), Op::Leave(1), Op::Publish("a", 3)];
    live(&mut node, &ops, &mut ledger).unwrap();
    let (op, path_has) = (Some(sim::Op::Open), "a.log".to_owned());
    disk.fail(Fault { op, path_has, skip: 0, times: u64::MAX, failure: Failure::NoDescriptor });
    live(&mut node, &[Op::Subscribe("a")], &mut ledger).unwrap();
    let letters = Path::new("/srv/data/a.dlq.log");
    for seconds in [10, 1, 9, 1, 10] {
        live(&mut node, &[Op::Pass(seconds)], &mut ledger).unwrap();
        assert_eq!((node.held(), disk.files().contains_key(letters)), (0, false));
    }
    let (_, progress) = node.topic("a").progress().next().unwrap();
    assert_eq!(progress.histories().count(), 0, "nobody has tried");
    // It goes on when it can be read, and who leaves meanwhile has not failed either.
    live(&mut node, &[Op::Leave(2), Op::Subscribe("a")], &mut ledger).unwrap();
    assert_eq!(node.held(), 0);
    disk.heal();
    live(&mut node, &[Op::Pass(10)], &mut ledger).unwrap();
    assert_eq!(node.offsets(3), [1, 2, 3]);
    let (_, progress) = node.topic("a").progress().next().unwrap();
    assert_eq!(progress.histories().count(), 0);
    life::check(&disk, &node, &ledger);
}
