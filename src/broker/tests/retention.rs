//! What a broker no longer keeps, and when its files go.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::life::{self, Ledger, Node, Op, live, now, settings};
use super::logged::logged;
use crate::broker::layout::Layout;
use crate::broker::open::Found;
use crate::broker::retention::{Retaining, Trim};
use crate::check;
use crate::disk::sim::Crash;
use crate::disk::sim::{Failure, Fault, Op as DiskOp, SimDisk};
use crate::disk::{Disk, Open};
use crate::ids::Offset;
use crate::log::Retention;
use crate::time::Now;
use crate::wal::Lsn;

const DAY: Duration = Duration::from_hours(24);

/// A broker that has published this often to a topic, thirty messages each time: they are some two or three
/// segments each.
fn busy(disk: &SimDisk, name: &'static str, times: u64) -> (Node, Ledger) {
    let (mut node, _) = Node::start(disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    let ops: Vec<_> = (0..times).map(|_| Op::Publish(name, 30)).collect();
    live(&mut node, &ops, &mut ledger).unwrap();
    (node, ledger)
}

fn first(node: &Node, name: &str) -> u64 {
    life::firsts(node)[name].get()
}

/// The segments of a topic that have their files.
fn sealed(disk: &SimDisk, name: &str) -> Vec<u64> {
    let files = disk.files();
    let is_topics = |path: &&PathBuf| path.parent() == Some(&settings().data_dir);
    let names = files.keys().filter(is_topics).filter_map(|path| path.file_name()?.to_str());
    let first =
        |file: &str| file.strip_prefix(name)?.strip_prefix('@')?.strip_suffix(".log")?.parse().ok();
    names.filter_map(first).collect()
}

#[test]
fn the_files_go_when_both_checkpoints_know_that_they_are_not_needed() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "c", 3);
    node.checkpoint(false).unwrap();
    let all = sealed(&disk, "c");
    assert!(all.len() > 4, "{all:?}");
    live(&mut node, &[Op::Retain], &mut ledger).unwrap();
    let begin = first(&node, "c");
    assert!(begin > *all.last().unwrap(), "it begins with the segment that is written");
    for checkpoint in 1..=2 {
        assert_eq!(sealed(&disk, "c"), all);
        assert!(node.is_checkpoint_due(), "nothing was written since, but files wait for it");
        node.checkpoint(false).unwrap();
        assert_eq!(node.is_checkpoint_due(), checkpoint == 1);
    }
    live(&mut node, &[Op::Retain], &mut ledger).unwrap();
    assert!(sealed(&disk, "c").is_empty());
    let index = Path::new("/srv/data/.wiber/index/c@00000000000000000001.idx");
    assert!(!disk.files().contains_key(index));
    life::check(&disk, &node, &ledger);
    node.checkpoint(true).unwrap();
    let (node, found) = Node::start(&disk, now(100)).unwrap();
    assert_eq!((found, first(&node, "c")), (Found::Clean, begin));
    assert!(!node.is_checkpoint_due(), "nothing waits for one");
}

/// No checkpoint was due before somebody published, and they stayed.
#[test]
fn files_that_the_last_life_has_left_go_though_nothing_is_written() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "c", 3);
    live(&mut node, &[Op::Retain], &mut ledger).unwrap();
    node.checkpoint(true).unwrap();
    let (mut node, found) = Node::start(&disk, now(100)).unwrap();
    assert_eq!((found, sealed(&disk, "c").is_empty()), (Found::Clean, false));
    for _ in 1..=2 {
        assert!(node.is_checkpoint_due());
        node.checkpoint(false).unwrap();
    }
    assert!(!node.is_checkpoint_due());
    node.remove_some().unwrap();
    assert!(sealed(&disk, "c").is_empty());
}

#[test]
fn what_a_group_has_not_handled_stays() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "a", 0);
    live(&mut node, &[Op::Subscribe("a"), Op::Publish("a", 60), Op::Retain], &mut ledger).unwrap();
    assert_eq!(first(&node, "a"), 1);
    // All but the last of the first segments, and then that one.
    let acks: Vec<_> = (0..30).map(|_| Op::Ack(1, 0)).collect();
    live(&mut node, &acks, &mut ledger).unwrap();
    live(&mut node, &[Op::Retain], &mut ledger).unwrap();
    let begin = first(&node, "a");
    assert!(begin > 1 && begin <= 31, "{begin}: 30 were acknowledged");
    life::check(&disk, &node, &ledger);
    // A start knows of the group and of what it needs.
    drop(node);
    let (mut node, _) = Node::start(&disk, now(1)).unwrap();
    live(&mut node, &[Op::Retain], &mut ledger).unwrap();
    assert_eq!(first(&node, "a"), begin);
}

#[test]
fn dead_letters_stay() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "a", 0);
    let mut ops = vec![Op::Subscribe("a"), Op::Publish("a", 4)];
    // Neither of two deliveries of four messages is acknowledged in time, ten times.
    for _ in 0..10 {
        ops.extend([Op::Pass(11), Op::Pass(2), Op::Pass(11), Op::Publish("a", 4)]);
    }
    ops.extend([Op::Pass(3600), Op::Retain, Op::Pass(1), Op::Retain]);
    live(&mut node, &ops, &mut ledger).unwrap();
    assert!(first(&node, "a") > 20, "{}", first(&node, "a"));
    assert_eq!(first(&node, "a.dlq"), 1);
    assert!(sealed(&disk, "a.dlq").len() > 2);
}

#[test]
fn a_topic_that_has_had_nothing_for_long_keeps_nothing_but_its_place() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "c", 1);
    // The segment that is written ends, and goes with the next look.
    live(&mut node, &[Op::Pass(21), Op::Retain, Op::Retain], &mut ledger).unwrap();
    assert_eq!(first(&node, "c"), 31);
    node.checkpoint(false).unwrap();
    node.checkpoint(false).unwrap();
    live(&mut node, &[Op::Retain], &mut ledger).unwrap();
    let of_topic = |disk: &SimDisk| {
        let is_its = |path: &&std::path::PathBuf| path.to_str().unwrap().contains("/c");
        disk.files()
            .keys()
            .filter(is_its)
            .filter(|path| !path.starts_with("/srv/data/.wiber"))
            .count()
    };
    assert_eq!(of_topic(&disk), 0);
    drop(node);
    let (mut node, _) = Node::start(&disk, now(100)).unwrap();
    live(&mut node, &[Op::Publish("c", 1)], &mut ledger).unwrap();
    let topic = node.topic("c");
    assert_eq!((topic.log().first(), topic.log().end()), (Offset::new(31), Offset::new(31)));
    life::check(&disk, &node, &ledger);
}

#[test]
fn a_file_that_cannot_be_removed_is_tried_again_and_those_behind_it_wait() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "c", 2);
    live(&mut node, &[Op::Retain, Op::Checkpoint, Op::Checkpoint], &mut ledger).unwrap();
    let all = sealed(&disk, "c");
    let path_has = "c@00000000000000000001.log".to_owned();
    let (op, failure) = (Some(DiskOp::Rename), Failure::Io);
    disk.fail(Fault { op, path_has, skip: 0, times: 1, failure });
    live(&mut node, &[Op::Retain], &mut ledger).unwrap();
    assert_eq!(sealed(&disk, "c"), all);
    live(&mut node, &[Op::Retain], &mut ledger).unwrap();
    assert!(sealed(&disk, "c").is_empty());
}

/// All topics' files stayed when one could not be removed.
#[test]
fn a_file_that_cannot_be_removed_holds_up_no_other_topic() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    let names = ["a", "b", "c"];
    let mut ops: Vec<_> = names.iter().map(|name| Op::Publish(name, 60)).collect();
    ops.extend([Op::Retain, Op::Checkpoint, Op::Checkpoint]);
    live(&mut node, &ops, &mut ledger).unwrap();
    let all = names.map(|name| sealed(&disk, name));
    assert!(all.iter().all(|files| files.len() > 2), "{all:?}");
    let path_has = "a@00000000000000000001.log".to_owned();
    let (op, failure) = (Some(DiskOp::Rename), Failure::Other(rustix::io::Errno::PERM));
    disk.fail(Fault { op, path_has, skip: 0, times: u64::MAX, failure });
    let told = logged(|| {
        for _ in 0..5 {
            node.remove_some().unwrap();
            assert_eq!(names.map(|name| sealed(&disk, name).len()), [all[0].len(), 0, 0]);
        }
    });
    assert_eq!(told.matches("retention_failed").count(), 1, "{told}");
    disk.heal();
    node.remove_some().unwrap();
    assert!(sealed(&disk, "a").is_empty());
}

/// With `.wiber` on another disk than the data nothing can be moved from here to there, and nothing was ever
/// removed.
#[test]
fn files_that_cannot_be_put_into_the_trash_are_removed_where_they_are() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "c", 3);
    live(&mut node, &[Op::Retain, Op::Checkpoint, Op::Checkpoint], &mut ledger).unwrap();
    let all = sealed(&disk, "c");
    drop(node);
    for changes in 0.. {
        let disk = disk.copy(Crash::KeepAll);
        let (mut node, _) = Node::start(&disk, now(1)).unwrap();
        node.checkpoint(false).unwrap();
        node.checkpoint(false).unwrap();
        let (op, path_has) = (Some(DiskOp::Rename), "c@".to_owned());
        let failure = Failure::Other(rustix::io::Errno::XDEV);
        disk.fail(Fault { op, path_has, skip: 0, times: u64::MAX, failure });
        disk.cut_power_after(changes);
        drop(live(&mut node, &[Op::Retain], &mut Ledger::default()));
        for seed in 0..20 {
            let sealed = sealed(&disk.copy(Crash::Random { seed }), "c");
            assert!(all.ends_with(&sealed), "{sealed:?} of {all:?} after {changes} changes");
        }
        if !disk.is_off() {
            assert!(sealed(&disk, "c").is_empty());
            break;
        }
    }
}

#[test]
fn no_more_than_a_few_segments_end_and_a_few_files_are_removed_at_once() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    let names: Vec<&'static str> = (0..80).map(|n| &*format!("t{n}").leak()).collect();
    let ops: Vec<_> = names.iter().map(|name| Op::Publish(name, 1)).collect();
    live(&mut node, &ops, &mut ledger).unwrap();
    let count = || names.iter().map(|name| sealed(&disk, name).len()).sum::<usize>();
    live(&mut node, &[Op::Pass(21), Op::RetainAll, Op::Pass(1)], &mut ledger).unwrap();
    assert_eq!(count(), 16, "eight of each shard");
    for _ in 0..8 {
        live(&mut node, &[Op::RetainAll, Op::Pass(1)], &mut ledger).unwrap();
    }
    assert_eq!(count(), 80);
    assert!(names.iter().all(|name| first(&node, name) == 2));
    live(&mut node, &[Op::Checkpoint, Op::Checkpoint], &mut ledger).unwrap();
    for left in [16, 0, 0] {
        live(&mut node, &[Op::RetainAll], &mut ledger).unwrap();
        assert_eq!(count(), left);
    }
}

/// A hole would be damage to whoever reads the files.
#[test]
fn whatever_a_power_cut_leaves_of_a_removal_is_the_end_of_the_topic() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "c", 3);
    live(&mut node, &[Op::Retain, Op::Checkpoint, Op::Checkpoint], &mut ledger).unwrap();
    let all = sealed(&disk, "c");
    drop(node);
    let mut seen = std::collections::BTreeSet::new();
    for changes in 0.. {
        let disk = disk.copy(Crash::KeepAll);
        let (mut node, _) = Node::start(&disk, now(1)).unwrap();
        node.checkpoint(false).unwrap();
        node.checkpoint(false).unwrap();
        disk.cut_power_after(changes);
        // What can't be removed any more is no failure.
        drop(live(&mut node, &[Op::Retain], &mut Ledger::default()));
        for seed in 0..20 {
            let left = disk.copy(Crash::Random { seed });
            let sealed = sealed(&left, "c");
            assert!(all.ends_with(&sealed), "{sealed:?} of {all:?} after {changes} changes");
            seen.insert(sealed.len());
        }
        if !disk.is_off() {
            break;
        }
    }
    assert!(seen.len() > 4, "{seen:?}");
}

#[test]
fn what_is_being_removed_when_it_stops_is_gone_after_the_next_start() {
    let disk = SimDisk::new();
    let (node, _) = busy(&disk, "c", 1);
    drop(node);
    let trash = Layout::new(&settings().data_dir).trash();
    disk.open(&trash.join("c@00000000000000000001.log"), Open::Create).unwrap();
    drop(Node::start(&disk, now(1)).unwrap());
    assert!(disk.list(&trash).unwrap().is_empty());
}

/// Nobody misses what is no longer kept, as long as it is there.
#[test]
fn damage_to_what_is_no_longer_kept_is_none() {
    let disk = SimDisk::new();
    let (mut node, mut ledger) = busy(&disk, "c", 2);
    let ops = [Op::Retain, Op::Publish("c", 1), Op::Checkpoint];
    live(&mut node, &ops, &mut ledger).unwrap();
    drop(node);
    let damages = |disk: &SimDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        check::check(&disk, &settings().data_dir, &mut |_, _| {}).unwrap().damages()
    };
    let file = Path::new("/srv/data/c@00000000000000000001.log");
    disk.flip_bit(file, 30, 1).unwrap();
    assert_eq!(damages(&disk), 0);
    disk.flip_bit(Path::new("/srv/data/c.log"), 30, 1).unwrap();
    assert_eq!(damages(&disk), 1);
}

/// Looks at all topics once, as the keeper does, when the log ends with the record `last`.
fn pass(
    retaining: &mut Retaining,
    node: &mut Node,
    disk: &SimDisk,
    now: Now,
    last: u64,
) -> Vec<Trim> {
    let mut trims = Vec::new();
    let last = Lsn::new(last);
    while let Some((shard, piece)) = retaining.wants(now.moment, last, 2, usize::MAX) {
        let inventory = node.shard(shard).inventory(piece);
        trims.extend(retaining.look(disk, now, last, inventory));
    }
    trims
}

/// On a full disk all of it would wait to be written.
#[test]
fn what_was_told_and_is_not_written_yet_is_not_told_again() {
    let disk = SimDisk::new();
    let (mut node, _) = busy(&disk, "c", 2);
    let mut retaining = Retaining::new(Retention { age: None, bytes: Some(0) });
    let mut pass = |seconds, last| pass(&mut retaining, &mut node, &disk, now(seconds), last).len();
    assert_eq!([pass(10, 7), pass(20, 7), pass(30, 7)], [1, 0, 0]);
    assert_eq!(pass(40, 8), 1, "something was written, and it does not show");
    assert_eq!([pass(41, 8), pass(42, 9)], [0, 1]);
}

/// It was said with every look, and all that was known of the topic was forgotten.
#[test]
fn a_file_that_cannot_be_read_is_told_once_and_what_is_known_stays() {
    let disk = SimDisk::new();
    let (mut node, _) = busy(&disk, "c", 1);
    let mut retaining = Retaining::new(Retention { age: Some(DAY), bytes: None });
    let deny = |path_has: &str, failure| {
        let (op, path_has) = (Some(DiskOp::Open), path_has.to_owned());
        disk.fail(Fault { op, path_has, skip: 0, times: u64::MAX, failure });
    };
    let mut pass = |second| {
        let before = disk.count(DiskOp::Open);
        let told = logged(|| drop(pass(&mut retaining, &mut node, &disk, now(second), second)));
        (told.matches("retention_failed").count(), disk.count(DiskOp::Open) - before)
    };
    // The oldest segment can be read, the one that is written can't.
    deny("/c.log", Failure::Other(rustix::io::Errno::ACCESS));
    assert_eq!([pass(1), pass(2), pass(3)], [(1, 2), (0, 1), (0, 1)]);
    disk.heal();
    assert_eq!([pass(4), pass(5)], [(0, 1), (0, 0)]);
}

/// Without a file descriptor that was a line in the log for each topic, four times a second.
#[test]
fn a_want_of_descriptors_is_told_once_for_all_topics() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::start(&disk, now(0)).unwrap();
    let names: Vec<&'static str> = (0..20).map(|n| &*format!("t{n}").leak()).collect();
    let ops: Vec<_> = names.iter().map(|name| Op::Publish(name, 1)).collect();
    live(&mut node, &ops, &mut Ledger::default()).unwrap();
    let mut retaining = Retaining::new(Retention { age: Some(DAY), bytes: None });
    let mut pass = |second| {
        let told = logged(|| drop(pass(&mut retaining, &mut node, &disk, now(second), second)));
        told.matches("retention_failed").count()
    };
    let (op, path_has, failure) = (Some(DiskOp::Open), String::new(), Failure::NoDescriptor);
    // There are some when it begins.
    disk.fail(Fault { op, path_has, skip: 5, times: u64::MAX, failure });
    assert_eq!([pass(1), pass(2), pass(3)], [1, 0, 0]);
    disk.heal();
    assert_eq!(pass(4), 0);
}

/// The next look came a second later, and of some hundred topics that were due at once six a second ended.
#[test]
fn while_segments_have_to_end_there_is_no_pause() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::start(&disk, now(0)).unwrap();
    let names: Vec<&'static str> = (0..80).map(|n| &*format!("t{n}").leak()).collect();
    let mut ops: Vec<_> = names.iter().map(|name| Op::Publish(name, 1)).collect();
    ops.push(Op::Pass(100));
    live(&mut node, &ops, &mut Ledger::default()).unwrap();
    let mut retaining =
        Retaining::new(Retention { age: Some(Duration::from_secs(20)), bytes: None });
    // It is looked at in the same moment, but each time something was written.
    let mut ended = Vec::new();
    for last in 1..=11 {
        let trims = pass(&mut retaining, &mut node, &disk, now(100), last);
        (0..2).for_each(|shard| node.shard(shard).trim(&trims));
        live(&mut node, &[Op::Pass(0), Op::Pass(1)], &mut Ledger::default()).unwrap();
        ended.push(names.iter().map(|name| sealed(&disk, name).len()).sum::<usize>());
    }
    assert_eq!((ended[0], ended[10]), (16, 80), "{ended:?}");
}
