//! What a start costs.

use std::sync::Arc;

use super::super::open;
use super::life::{Ledger, Node, Op, live, now, settings};
use crate::disk::Disk;
use crate::disk::sim::{self, SimDisk};

/// How often a start lists a directory that has so many topics.
fn lists(topics: usize) -> u64 {
    let disk = SimDisk::new();
    let (mut node, _found) = Node::start(&disk, now(0)).unwrap();
    let names = (0..topics).map(|number| &*format!("topic-{number}").leak());
    let mut ops: Vec<Op> = names.map(|name| Op::Publish(name, 3)).collect();
    ops.push(Op::Checkpoint);
    live(&mut node, &ops, &mut Ledger::default()).unwrap();
    drop(node);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let before = disk.count(sim::Op::List);
    let opened = open::open(&shared, &settings(), now(1000)).unwrap();
    let found: usize = opened.shards.iter().map(|shard| shard.topics().count()).sum();
    assert_eq!(found, topics);
    disk.count(sim::Op::List) - before
}

/// With twenty thousand topics, to list the directory for each of them took minutes.
#[test]
fn a_start_lists_the_directory_as_often_with_many_topics_as_with_few() {
    assert_eq!(lists(40), lists(2));
}
