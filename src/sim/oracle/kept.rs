//! What a group has not handled is kept, and so is every dead letter; what is not too much and not too old by
//! the settings is, too; and what is no longer kept is gone for good.

use std::collections::BTreeMap;

use crate::ids::Offset;
use crate::log::Retention;
use crate::time::Timestamp;
use crate::topic::Topic;

use super::View;

/// Where each topic began when it was last looked at, and its segments.
#[derive(Default)]
pub(super) struct Kept {
    firsts: BTreeMap<String, Offset>,
    begins: BTreeMap<String, Vec<Offset>>,
    /// The latest that the clock has been: it is set back now and then.
    latest: Timestamp,
    trims: usize,
}

impl Kept {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        self.latest = self.latest.max(view.now.wall);
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
            if first > *before {
                self.trims += 1;
                let begins = self.begins.get(name.as_str()).map_or(&[][..], Vec::as_slice);
                may_go(view, topic, *before, begins, self.latest)?;
            }
            *before = first;
            if !view.node.settings.retention.is_off() {
                self.begins.insert(name.as_str().to_owned(), topic.log().shared().begins());
            }
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
        self.begins.clear();
    }
}

/// Whether each segment that went since the topic began with `before` was too old, or too much of it was
/// left with it. Of segments that nobody saw, two count as one: more is allowed then, never less.
fn may_go(
    view: &View<'_>,
    topic: &Topic,
    before: Offset,
    begins: &[Offset],
    latest: Timestamp,
) -> Result<(), String> {
    let Retention { age, bytes } = view.node.settings.retention;
    let (name, first) = (topic.name(), topic.log().first());
    let index = |offset: Offset| usize::try_from(offset.get() - 1).expect("few messages");
    let Some(all) = view.records.topics.get(name.as_str()) else { return Ok(()) };
    let passed = begins.iter().copied().filter(|begin| before < *begin && *begin < first);
    let begins: Vec<Offset> = [before].into_iter().chain(passed).chain([first]).collect();
    for segment in begins.windows(2) {
        let [begin, next] = [index(segment[0]), index(segment[1])];
        let Some(last) = all.get(next - 1) else { continue };
        let is_old = age.is_some_and(|age| last.ts.plus(age) < latest);
        let left: u64 = all[begin..].iter().map(|record| record.bytes).sum();
        if !is_old && bytes.is_none_or(|most| left <= most) {
            let (from, ts) = (segment[0], last.ts);
            return Err(format!(
                "{name} begins with {first}: what went from {from} on was of {ts} at {latest} and \
                 {left} bytes with all behind it, and {age:?} and {bytes:?} are to be kept"
            ));
        }
    }
    Ok(())
}
