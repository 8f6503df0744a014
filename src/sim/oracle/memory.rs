//! The memory of a group is in proportion to what is in flight, never to what was or will be: no
//! more messages than are unsettled and than its bound, and no more ranges than holes.

use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    let bound = view.node.settings.policy.unsettled_max;
    for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
        for (name, progress) in topic.progress() {
            let group = topic.group(topic.group_key(name).expect("it was just listed"));
            let lag = usize::try_from(progress.lag(topic.log().end())).unwrap_or(usize::MAX);
            let (ranges, messages) = (progress.ranges(), group.unsettled());
            // What is acknowledged late, before it was given out again, comes on top.
            let most = lag.min(bound.saturating_add(group.counts().settling));
            let attempted = progress.histories().count();
            if ranges > lag || attempted > lag || messages > most {
                let topic = topic.name();
                return Err(format!(
                    "group {name} of {topic} keeps {ranges} ranges, {messages} messages and \
                     attempts of {attempted}, lags by {lag}, and may keep {bound}"
                ));
            }
        }
    }
    Ok(())
}
