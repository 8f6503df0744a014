//! Attempts are never more than the policy allows, and are not forgotten before the message is
//! settled, whatever happens to the daemon.

use std::collections::BTreeMap;

use super::super::ledger::Unit;
use super::super::node::MAX_RETRIES;
use super::View;

/// A message that the disk does not give when it is to become a dead letter is delivered once more. No fault
/// lasts longer than so many times.
const UNREAD_MAX: u32 = 3;

/// How many attempts each unsettled message was seen to have.
#[derive(Default)]
pub(super) struct Attempts {
    seen: BTreeMap<Unit, usize>,
}

impl Attempts {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        let mut now = BTreeMap::new();
        for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
            for (group, progress) in topic.progress() {
                for (offset, attempts) in progress.histories() {
                    let failures = progress.failures(offset);
                    let name = topic.name();
                    if failures > MAX_RETRIES + 1 + UNREAD_MAX {
                        return Err(format!("{name} {offset} failed {failures} times in {group}"));
                    }
                    let unit = (name.as_str().to_owned(), group.as_str().to_owned(), offset.get());
                    now.insert(unit, attempts.len());
                }
                for ((topic_name, group_name, offset), seen) in &self.seen {
                    let is_this =
                        topic_name == topic.name().as_str() && group_name == group.as_str();
                    let offset = crate::ids::Offset::new(*offset);
                    if is_this
                        && !progress.is_settled(offset)
                        && progress.attempts(offset).len() < *seen
                    {
                        let left = progress.attempts(offset).len();
                        return Err(format!(
                            "{topic_name} {offset} had {seen} attempts in {group_name}, and has {left}"
                        ));
                    }
                }
            }
        }
        self.seen = now;
        Ok(())
    }

    /// The last attempts may be lost.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }
}
