//! What was answered `OK ack_received` is settled, and stays so.

use crate::ids::{GroupName, Offset, TopicName};

use super::super::ledger::Unit;
use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    if view.is_fresh {
        return view.ledger.acked.iter().try_for_each(|unit| is_settled(view, unit));
    }
    view.ledger.fresh_acked.iter().try_for_each(|unit| is_settled(view, unit))
}

fn is_settled(view: &View<'_>, unit: &Unit) -> Result<(), String> {
    let (topic, group, offset) = unit;
    let missing = || format!("{topic} {offset} was acknowledged in {group}, and is not settled");
    let name = TopicName::parse(topic.as_bytes()).map_err(|e| e.to_string())?;
    let group = GroupName::parse(group.as_bytes()).map_err(|e| e.to_string())?;
    let mut topics = view.node.shards.iter().flat_map(|shard| shard.topics());
    let topic = topics.find(|topic| *topic.name() == name).ok_or_else(missing)?;
    let key = topic.group_key(&group).ok_or_else(missing)?;
    let is_settled = topic.group(key).progress().is_settled(Offset::new(*offset));
    is_settled.then_some(()).ok_or_else(missing)
}
