//! A few seeds with every test run; `wiber-sim` runs as many as there is time for.

use std::time::Duration;

use crate::disk::sim::{Crash, SimDisk};
use crate::time::{Moment, Now, Timestamp};

use super::journal::Journal;
use super::node::{Node, Plan};
use super::{Options, run};

#[test]
fn seeds_keep_every_promise() {
    let count = std::env::var("WIBER_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    for seed in 0..count {
        if let Err(failure) = run(&Options::seed(seed)) {
            panic!("{failure}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    let hash = |seed| run(&Options::seed(seed)).unwrap().hash;
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

/// As the daemon's keeper does: what a checkpoint on its way has taken to be synced is not forgotten.
#[test]
fn a_stop_in_order_beside_a_checkpoint_loses_nothing() {
    let plan = Plan::PLAIN;
    let wall = Timestamp::from_micros(1_700_000_000_000_000);
    let now = |seconds| {
        let time = Duration::from_secs(seconds);
        Now { moment: Moment::default() + time, wall: wall.plus(time) }
    };
    let (topics, mut journal) = (["a", "b", "c", "d"], Journal::default());
    for keeper_turns in 0..8 {
        let disk = SimDisk::new();
        let (mut node, _) = Node::start(&disk, plan, now(1)).unwrap();
        node.connect(1, now(1).moment);
        let input: String = topics.iter().map(|topic| format!("PUB {topic} text\n")).collect();
        node.session_turn(1, now(1), input.as_bytes(), 1000);
        for _ in 0..2 {
            (0..node.shards()).for_each(|shard| node.shard_turn(shard, now(1)).unwrap());
            node.log_turn(now(1), &mut journal).unwrap();
        }
        for _ in 0..keeper_turns {
            node.keeper_turn(now(10)).unwrap();
        }
        node.stop(now(11), &mut journal).unwrap();
        let (node, _) = Node::start(&disk.crash(Crash::LoseUnsynced), plan, now(12)).unwrap();
        let ends: Vec<u64> = topics.iter().map(|topic| node.extent(topic).visible).collect();
        assert_eq!(ends, [1; 4], "after {keeper_turns} turns of the keeper");
    }
}
