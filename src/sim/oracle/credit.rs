//! Nobody holds more than its credit, and nobody is sent more than there is room for, but for the last
//! message of each shard: that is sent if there is room for any of it, or was when the shard last asked.

use std::collections::BTreeMap;

use crate::ids::ConnId;
use crate::topic::Topic;

use super::super::node::{Node, PREFETCH, UNSENT_MAX};
use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
        for key in topic.group_keys() {
            for (member, _, prefetch, held) in topic.group(key).each_member() {
                if prefetch != PREFETCH || held > PREFETCH as usize {
                    let topic = topic.name();
                    return Err(format!(
                        "{member} holds {held} messages of {topic} with a credit of {PREFETCH}"
                    ));
                }
                let lengths = lengths(view.node, member);
                let last: usize = lengths.values().filter_map(|of_shard| of_shard.last()).sum();
                let before = lengths.values().flatten().sum::<usize>() - last;
                if before >= UNSENT_MAX {
                    return Err(format!(
                        "{member} has room for {UNSENT_MAX} bytes and was sent {lengths:?}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Of the messages that wait in a member's outbox, by the shard that sent them. Those of its plain
/// subscriptions are none of a group's.
fn lengths(node: &Node, member: ConnId) -> BTreeMap<usize, Vec<usize>> {
    let mut lengths: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    let is_member = |topic: &Topic| {
        let groups = || topic.group_keys().map(|key| topic.group(key));
        groups().any(|group| group.each_member().any(|(id, ..)| id == member))
    };
    for line in node.pushes(member).split_inclusive(|byte| *byte == b'\n') {
        let Some(message) = line.strip_prefix(b"MSG ") else { continue };
        let name = message.split(|byte| *byte == b' ').next().unwrap_or_default();
        let is_it = |topic: &Topic| topic.name().as_str().as_bytes() == name && is_member(topic);
        if let Some(shard) = node.shards.iter().position(|shard| shard.topics().any(is_it)) {
            lengths.entry(shard).or_default().push(line.len());
        }
    }
    lengths
}
