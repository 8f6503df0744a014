//! What a start costs.

use std::sync::Arc;

use super::super::open;
use super::life::{Ledger, Node, Op, live, now, settings};
use crate::disk::Disk;
use crate::disk::sim::{self, SimDisk};

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
