//! A message that could be delivered, and a member with credit that is not paused: then it is
//! delivered. Nothing waits for the next event to come along.

use super::super::node::PREFETCH;
use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    if view.node.settings.gate.refusal().is_some() {
        // A full disk holds back lines, and groups are not told of them yet.
        return Ok(());
    }
    for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
        let end = topic.log().shared().end();
        for (name, progress) in topic.progress() {
            let group = topic.group(topic.group_key(name).expect("it was just listed"));
            let is_paused = |member| group.paused().any(|paused| paused == member);
            let with_credit = group
                .each_member()
                .find(|(member, .., held)| *held < PREFETCH as usize && !is_paused(*member));
            let Some((member, ..)) = with_credit else { continue };
            let in_memory = group.unsettled() as u64;
            let is_bound = group.unsettled() >= view.node.settings.policy.unsettled_max;
            let new = if is_bound { 0 } else { progress.lag(end).saturating_sub(in_memory) };
            let ready = group.counts().ready as u64 + new;
            if ready > 0 {
                let topic = topic.name();
                return Err(format!(
                    "{ready} messages of {topic} are ready in {name}, and {member} has credit"
                ));
            }
        }
    }
    Ok(())
}
