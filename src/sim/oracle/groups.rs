//! A group that was there stays, at least where it began, and its parts agree with each other.

use std::collections::BTreeMap;

use crate::ids::Offset;
use crate::time::Moment;

use super::super::loss::Loss;
use super::super::node::Node;
use super::View;

/// Every group that was seen, with the last message before its first, and when it was seen first.
#[derive(Default)]
pub(super) struct Groups {
    starts: BTreeMap<(String, String), (Offset, Moment)>,
}

impl Groups {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        let mut found = 0;
        for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
            for (name, progress) in topic.progress() {
                let key = (topic.name().as_str().to_owned(), name.as_str().to_owned());
                let new = || (progress.floor(), view.now.moment);
                let (start, _) = self.starts.entry(key).or_insert_with(new);
                if progress.floor() < *start {
                    let topic = topic.name();
                    return Err(format!("group {name} of {topic} went back before its start"));
                }
                found += 1;
            }
        }
        if found < self.starts.len() {
            return Err(format!("{} groups were there, and {found} are", self.starts.len()));
        }
        Ok(())
    }

    /// Panics if the parts of a group do not agree.
    pub(super) fn check_themselves(view: &View<'_>) {
        for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
            topic.group_keys().for_each(|key| topic.group(key).check());
        }
    }

    /// The last message before the group's first, if the group was seen.
    pub(super) fn start(&self, topic: &str, group: &str) -> Option<Offset> {
        self.starts.get(&(topic.to_owned(), group.to_owned())).map(|(start, _)| *start)
    }

    /// Groups that are not there may be forgotten, if they are young enough.
    pub(super) fn forget(&mut self, node: &Node, loss: &Loss) {
        let is_there = |(topic, group): &(String, String)| {
            let mut topics = node.shards.iter().flat_map(|shard| shard.topics());
            let topic = topics.find(|known| known.name().as_str() == topic);
            topic.is_some_and(|topic| topic.progress().any(|(name, _)| name.as_str() == group))
        };
        self.starts.retain(|key, (_, seen)| is_there(key) || !loss.excuses(*seen));
    }

    pub(super) fn is_complete(&self, node: &Node) -> Result<(), String> {
        for topic in node.shards.iter().flat_map(|shard| shard.topics()) {
            for (name, progress) in topic.progress() {
                let end = topic.log().end();
                if progress.floor() < end {
                    let (floor, topic) = (progress.floor(), topic.name());
                    return Err(format!("group {name} of {topic} is at {floor} of {end}"));
                }
            }
        }
        Ok(())
    }
}
