//! What was answered `OK ack_received` is settled, and stays so; but for what a power cut may take
//! with `fsync = interval` or `never`.

use crate::ids::{GroupName, Offset, TopicName};

use super::super::ledger::Unit;
use super::super::node::Node;
use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    let judge = |unit: &Unit| {
        let (topic, group, offset) = unit;
        let missing =
            || format!("{topic} {offset} was acknowledged in {group}, and is not settled");
        is_settled(view.node, unit).then_some(()).ok_or_else(missing)
    };
    if view.is_fresh {
        return view.ledger.acked.keys().try_for_each(judge);
    }
    let fresh = view.ledger.fresh_acked.iter();
    // It may have been lost again, as it may be, before anybody looked.
    fresh.filter(|unit| view.ledger.acked.contains_key(*unit)).try_for_each(judge)
}

/// Whether the message is done with in the group.
pub(in super::super) fn is_settled(node: &Node, (topic, group, offset): &Unit) -> bool {
    let name = TopicName::parse(topic.as_bytes()).expect("it was asked for by this name");
    let group = GroupName::parse(group.as_bytes()).expect("it was asked for by this name");
    let mut topics = node.shards.iter().flat_map(|shard| shard.topics());
    let Some(topic) = topics.find(|topic| *topic.name() == name) else { return false };
    let Some(key) = topic.group_key(&group) else { return false };
    topic.group(key).progress().is_settled(Offset::new(*offset))
}
