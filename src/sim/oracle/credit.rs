//! Nobody holds more than its credit.

use super::super::node::PREFETCH;
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
            }
        }
    }
    Ok(())
}
