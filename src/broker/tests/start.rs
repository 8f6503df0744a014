//! What a start costs, and what it leaves as it was.

use std::sync::Arc;

use super::super::checkpoint::Checkpoint;
use super::super::layout::Layout;
use super::super::lock_file::{self, Holder};
use super::super::open;
use super::super::registry::Broker;
use super::super::settings::Settings;
use super::life::{self, Ledger, Node, Op, live, now, settings};
use crate::check;
use crate::disk::sim::{self, Crash, Failure, SimDisk};
use crate::disk::{Disk, Open};
use crate::wal::{self, Lsn};

/// How often a start does this in a directory that has so many topics, all of them in the checkpoint or
/// only in the log.
fn starting(op: sim::Op, topics: usize, is_checkpointed: bool) -> u64 {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let names = (0..topics).map(|number| &*format!("topic-{number}").leak());
    let mut ops: Vec<Op> = names.map(|name| Op::Publish(name, 3)).collect();
    ops.extend(is_checkpointed.then_some(Op::Checkpoint));
    live(&mut node, &ops, &mut Ledger::default()).unwrap();
    drop(node);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let before = disk.count(op);
    let opened = open::open(&shared, &settings(), now(1000)).unwrap();
    let found: usize = opened.shards.iter().map(|shard| shard.topics().count()).sum();
    assert_eq!(found, topics);
    disk.count(op) - before
}

/// With twenty thousand topics, to list the directory for each of them took minutes, and to sync it for
/// each of them seconds.
#[test]
fn a_start_lists_and_syncs_the_directory_as_often_with_many_topics_as_with_few() {
    for op in [sim::Op::List, sim::Op::SyncDir] {
        for is_checkpointed in [true, false] {
            let of = |topics| starting(op, topics, is_checkpointed);
            assert_eq!(of(40), of(2), "{op:?}, in the checkpoint: {is_checkpointed}");
        }
    }
}

/// Two checkpoints are kept, so that a repair can go back to the older one when the newest is damaged. A
/// start once freed the log between the two, and until the next checkpoint there was no way back; a check
/// took that for damage.
#[test]
fn a_start_keeps_the_log_that_the_older_checkpoint_needs() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let mut ledger = Ledger::default();
    let publish = |count| vec![Op::Publish("a", 20); count];
    live(&mut node, &publish(2), &mut ledger).unwrap();
    node.checkpoint(false).unwrap();
    // Many segments.
    live(&mut node, &publish(50), &mut ledger).unwrap();
    node.checkpoint(true).unwrap();
    drop(node);

    let (mut node, _found) = Node::start(&disk, now(1000)).unwrap();
    node.spare();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let settings = settings();
    let layout = Layout::new(&settings.data_dir);
    let older = Checkpoint::oldest_lsn(&disk, &layout.checkpoints()).unwrap();
    let newest = Checkpoint::newest(&disk, &layout.checkpoints()).unwrap().unwrap().lsn();
    assert!(Lsn::ZERO < older && older < newest, "{older}, {newest}");
    wal::examine(Arc::clone(&shared), &layout.wal(), settings.wal, older).unwrap();
    let found = check::check(&shared, &settings.data_dir, &mut |_, _| {}).unwrap();
    assert_eq!(found.findings, []);

    // It is freed when it is not needed any more.
    let segments = || disk.list(&layout.wal()).unwrap().len();
    let before = segments();
    live(&mut node, &publish(1), &mut ledger).unwrap();
    node.checkpoint(false).unwrap();
    node.spare();
    assert!(segments() + 3 < before, "{before} before, {} after", segments());
}

/// Publishes much, and makes a checkpoint.
fn fill(node: &mut Node) -> Result<(), super::life::Dead> {
    live(node, &vec![Op::Publish("a", 20); 30], &mut Ledger::default())?;
    node.checkpoint(false)
}

/// What a check finds after a power cut that takes all that was not synced.
fn after_a_power_cut(disk: &SimDisk) -> Vec<check::Finding> {
    damage(disk.copy(sim::Crash::LoseUnsynced))
}

fn damage(left: SimDisk) -> Vec<check::Finding> {
    let left: Arc<dyn Disk> = Arc::new(left);
    let found = check::check(&left, &settings().data_dir, &mut |_, _| {}).unwrap().findings;
    found.into_iter().filter(|finding| finding.level == check::Level::Damage).collect()
}

/// After a power cut a checkpoint that had been removed was there again, without the log behind it.
#[test]
fn a_removed_checkpoint_does_not_come_back_without_its_log() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    for _ in 0..4 {
        fill(&mut node).unwrap();
        node.spare();
        assert_eq!(after_a_power_cut(&disk), []);
    }
}

/// The same when the broker had died before the removal was durable, and the next start freed the log.
#[test]
fn nor_does_it_after_a_start_that_found_it_removed() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    (0..3).for_each(|_| fill(&mut node).unwrap());
    // The second time: the first makes the new one durable.
    let (op, path_has) = (Some(sim::Op::SyncDir), ".wiber/checkpoint".to_owned());
    disk.fail(sim::Fault { op, path_has, skip: 1, times: 1, failure: sim::Failure::Io });
    assert!(fill(&mut node).is_err());
    drop(node);
    let (mut node, _found) = Node::start(&disk, now(1000)).unwrap();
    node.spare();
    assert_eq!(after_a_power_cut(&disk), []);
}

/// A start that was cut short goes back to the active segment of its checkpoint, and a later one that it
/// has removed may be there again. A check once took segments in the order of their names.
#[test]
fn what_a_start_that_was_cut_short_had_removed_is_no_damage() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    fill(&mut node).unwrap();
    live(&mut node, &[Op::Publish("a", 1)], &mut Ledger::default()).unwrap();
    node.checkpoint(false).unwrap();
    let later = settings().data_dir.join("a@00000000000000009999.log");
    drop(disk.open(&later, Open::Create).unwrap());
    assert_eq!(damage(disk), []);
}

/// A shard's state is taken a piece at a time, and what it does in between is in the later ones. The log
/// was durable as far as the last of them says.
#[test]
fn a_log_that_ends_before_what_some_of_the_state_covers_is_damaged() {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let ops = ["a", "b", "c"].map(|name| Op::Publish(name, 1));
    live(&mut node, &ops, &mut Ledger::default()).unwrap();
    live(&mut node, &[Op::CheckpointAmid], &mut Ledger::default()).unwrap();
    drop(node);
    let layout = Layout::new(&settings().data_dir);
    let covered = Checkpoint::newest(&disk, &layout.checkpoints()).unwrap().unwrap().covered();
    assert!(covered.from < covered.durable, "{covered:?}");
    let segment = layout.wal().join("0000000000000001.wal");
    let end_at = |lsn: Lsn| {
        let bytes = &disk.files()[&segment];
        let next = lsn.next().get().to_le_bytes();
        // Its number stands two words behind its beginning.
        let mut words = bytes.chunks(8).enumerate().skip(4096 / 8);
        let at = words.find(|(_, word)| *word == next).unwrap().0 * 8 - 16;
        let disk = disk.copy(sim::Crash::KeepAll);
        let file = disk.open(&segment, Open::Write).unwrap();
        file.write_at(&vec![0; bytes.len() - at], at as u64).unwrap();
        disk
    };
    let refused = Node::start(&end_at(covered.durable.prev()), now(1000)).err().unwrap();
    let (refused, last) = (refused.to_string(), covered.durable);
    assert!(refused.contains(&format!("a checkpoint covers up to {last}")), "{refused}");
    assert!(!damage(end_at(covered.durable.prev())).is_empty());
    drop(Node::start(&end_at(covered.durable), now(1000)).unwrap());
}

/// The folders above the data directory that the first try had made were lost in a power cut, with all that
/// was in them: the second try saw that they were there, and synced none but the last.
#[test]
fn what_a_start_that_failed_has_made_is_there_for_good_when_the_next_one_is_done() {
    for nth in 1..=4 {
        let disk = SimDisk::new();
        disk.fail_next(sim::Op::SyncDir, nth, Failure::Io);
        assert!(Node::start(&disk, now(0)).is_err(), "{nth}");
        let (mut node, _) = Node::start(&disk, now(1)).unwrap();
        let mut ledger = Ledger::default();
        live(&mut node, &[Op::Publish("a", 3)], &mut ledger).unwrap();
        let disk = disk.crash(Crash::LoseUnsynced);
        let (node, _) = Node::start(&disk, now(2)).unwrap();
        life::check(&disk, &node, &ledger);
    }
}

/// A broker that had failed gave the lock back and then ended, its threads with it: one that waited for the
/// lock could be let in beside them.
#[test]
fn a_directory_is_had_for_as_long_as_a_thread_of_the_broker_is_there() {
    let disk = SimDisk::new();
    let layout = Layout::new(&settings().data_dir);
    for stops in [true, false] {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = open::open(&shared, &settings(), now(0)).unwrap();
        let (broker, _failures) = Broker::start(opened, &shared, &settings());
        if stops {
            broker.stop().unwrap();
            drop(broker);
            // The thread that prepares segments ends by itself.
            while lock_file::look(&disk, &layout).is_some() {
                std::thread::yield_now();
            }
        } else {
            drop(broker);
            assert_eq!(lock_file::look(&disk, &layout), Some(Holder::Broker));
        }
    }
}

/// Nobody but root may list many a folder in which there is a user's own: that has been there all the time.
#[test]
fn a_folder_above_that_is_somebody_elses_hinders_no_start() {
    let disk = SimDisk::new();
    let data = settings().data_dir;
    disk.create_dir(&data).unwrap();
    let deny = |path_has: &str, skip| {
        let (op, path_has) = (Some(sim::Op::SyncDir), path_has.to_owned());
        disk.fail(sim::Fault {
            op,
            path_has,
            skip,
            times: 1,
            failure: Failure::Other(rustix::io::Errno::ACCESS),
        });
    };
    for is_served in [false, true] {
        deny("srv", 0);
        assert!(Node::start(&disk, now(0)).is_ok(), "served before: {is_served}");
    }
    // What was made has to be there for good.
    for (made, skip, above) in [("a", 0, "data"), ("b/c", 0, "data/b"), ("d/e", 1, "data")] {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        deny("srv/data", skip);
        let refused =
            open::open(&disk, &Settings { data_dir: data.join(made), ..settings() }, now(0));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(&format!("failed to use /srv/{above}: Permission")), "{refused}");
    }
}

/// A full disk was told as a directory that can't be used, and no supervisor tried again when there was room.
#[test]
fn a_start_that_fails_for_want_of_something_says_so_wherever_it_was() {
    let disk = SimDisk::new();
    let mut ops: Vec<Op> = ["a", "b"].map(|name| Op::Publish(name, 40)).into();
    ops.extend([Op::Checkpoint, Op::Publish("a", 40), Op::Publish("c", 40)]);
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    live(&mut node, &ops, &mut Ledger::default()).unwrap();
    drop(node);
    for disk in [SimDisk::new(), disk] {
        for failure in [Failure::NoSpace, Failure::NoDescriptor] {
            let mut refused = 0;
            for skip in 0.. {
                let disk = disk.copy(Crash::KeepAll);
                let path_has = String::new();
                disk.fail(sim::Fault { op: None, path_has, skip, times: 1, failure });
                let started = Node::start(&disk, now(1)).map(drop);
                if let Err(error) = &started {
                    let why = error.system().is_some_and(crate::disk::is_shortage);
                    assert!(why, "operation {skip}: {error:?}");
                    refused += 1;
                }
                if disk.operations() <= skip {
                    break;
                }
                assert!(Node::start(&disk, now(2)).is_ok(), "after operation {skip}");
            }
            assert!(refused > 10, "{refused}");
        }
    }
}
