//! One owner for each message of a group at a time: at most one lease, and none of what is settled.

use std::collections::BTreeMap;

use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
        for (name, progress) in topic.progress() {
            let group = topic.group(topic.group_key(name).expect("it was just listed"));
            let what = format!("group {name} of {}", topic.name());
            let mut holders = BTreeMap::new();
            for (member, ..) in group.each_member() {
                for offset in group.held_by(member) {
                    if let Some(other) = holders.insert(offset, member) {
                        return Err(format!("{what}: {other} and {member} both hold {offset}"));
                    }
                    if progress.is_settled(offset) {
                        return Err(format!("{what}: {member} holds {offset}, which is settled"));
                    }
                }
            }
            let leased = group.counts().in_flight;
            if holders.len() != leased {
                let held = holders.len();
                return Err(format!(
                    "{what}: members hold {held} messages, and {leased} are leased"
                ));
            }
        }
    }
    Ok(())
}
