//! Nobody holds more than its credit, and nobody is sent more than there is room for, but for the last
//! message: that is sent if there is room for any of it.

use super::super::node::{PREFETCH, UNSENT_MAX};
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
                let lengths = lengths(&view.node.pushes(member));
                let before: usize =
                    lengths.split_last().map_or(0, |(_, before)| before.iter().sum());
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

/// Of the messages among lines.
fn lengths(lines: &[u8]) -> Vec<usize> {
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| line.starts_with(b"MSG ")).map(<[u8]>::len).collect()
}
