//! What a start costs, and what it leaves as it was.

use std::sync::Arc;

use super::super::checkpoint::Checkpoint;
use super::super::layout::Layout;
use super::super::open;
use super::life::{Ledger, Node, Op, live, now, settings};
use crate::check;
use crate::disk::Disk;
use crate::disk::sim::{self, SimDisk};
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
