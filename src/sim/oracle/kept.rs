//! What a group has not handled is kept, and so is every dead letter; and what is no longer kept is gone for
//! good.

use std::collections::BTreeMap;

use crate::ids::Offset;

use super::View;

/// Where each topic began when it was last looked at.
#[derive(Default)]
pub(super) struct Kept {
    firsts: BTreeMap<String, Offset>,
    trims: usize,
}

impl Kept {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
            let (name, first) = (topic.name(), topic.log().first());
            if name.is_dead_letter() && first > Offset::FIRST {
                return Err(format!("{name} begins with {first}: dead letters are gone"));
            }
            for (group, progress) in topic.progress() {
                let needed = progress.floor().next();
                if first > needed {
                    return Err(format!("{name} begins with {first}, and {group} needs {needed}"));
                }
            }
            let before = self.firsts.entry(name.as_str().to_owned()).or_insert(Offset::FIRST);
            if first < *before {
                return Err(format!("{name} begins with {first} again, after {before}"));
            }
            self.trims += usize::from(first > *before);
            *before = first;
        }
        Ok(())
    }

    /// How often a topic was seen to begin later.
    pub(super) fn trims(&self) -> usize {
        self.trims
    }

    /// A power cut may take what was decided last.
    pub(super) fn forget(&mut self) {
        self.firsts.clear();
    }
}
