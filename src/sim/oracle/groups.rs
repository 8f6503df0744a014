//! Groups: at most one lease for a message, nobody over the credit, nothing ready while somebody
//! has credit, memory in proportion to what is in flight; and a group that was there stays.

use std::collections::BTreeMap;

use crate::ids::Offset;

use super::super::node::{Node, PREFETCH};
use super::View;

/// Every group that was seen, with the message it began with.
#[derive(Default)]
pub(super) struct Groups {
    starts: BTreeMap<(String, String), Offset>,
}

impl Groups {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        let mut found = 0;
        for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
            for (name, progress) in topic.progress() {
                let group = topic.group(topic.group_key(name).expect("it was just listed"));
                group.check();
                let what = format!("group {name} of {}", topic.name());
                for (_, member, prefetch, held) in group.each_member() {
                    if prefetch != PREFETCH || held > PREFETCH as usize {
                        return Err(format!("{what}: {member} holds {held} with a credit of 3"));
                    }
                }
                let lag = usize::try_from(progress.lag(topic.log().end())).unwrap_or(usize::MAX);
                let (ranges, unsettled) = (progress.ranges(), group.unsettled());
                if ranges > lag || unsettled > lag {
                    return Err(format!(
                        "{what} keeps {ranges} ranges and {unsettled} messages, and lags by {lag}"
                    ));
                }
                let key = (topic.name().as_str().to_owned(), name.as_str().to_owned());
                let start = self.starts.entry(key).or_insert_with(|| progress.floor());
                if progress.floor() < *start {
                    return Err(format!("{what} went back before its start"));
                }
                found += 1;
            }
        }
        if found < self.starts.len() {
            return Err(format!("{} groups were there, and {found} are", self.starts.len()));
        }
        Ok(())
    }

    /// The last message before the group's first, if the group was seen.
    pub(super) fn start(&self, topic: &str, group: &str) -> Option<Offset> {
        self.starts.get(&(topic.to_owned(), group.to_owned())).copied()
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
