//! A disk that has no room for a topic's file for a while.

use super::life::{Ledger, Node, Op, live, now};
use crate::disk::sim::{self, Failure, Fault, SimDisk};

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
