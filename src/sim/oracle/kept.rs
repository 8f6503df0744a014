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
    /// What was to be kept when it was last looked: what a life has decided may be seen in the next one,
    /// which keeps more.
    before: Retention,
    /// All that was to be kept at some time, if it is not known since when the topics begin where they do.
    ever: Vec<Retention>,
    is_forgotten: bool,
    /// How large segments were when it was last looked.
    segment_bytes: u64,
    /// The latest that the clock has been: it is set back now and then.
    latest: Timestamp,
    trims: usize,
}

impl Kept {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        self.latest = self.latest.max(view.now.wall);
        let retention = view.node.settings.retention;
        // The log is applied again with segments of another size, and only whole ones go: a topic may begin
        // earlier than it did.
        let segment_bytes = view.node.settings.log.segment_bytes;
        if std::mem::replace(&mut self.segment_bytes, segment_bytes) != segment_bytes {
            self.forget();
        }
        if !self.ever.contains(&retention) {
            self.ever.push(retention);
        }
        let last = [retention, self.before];
        let any = if self.is_forgotten { &self.ever[..] } else { &last };
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
                may_go(view, topic, *before, begins, self.latest, any)?;
            }
            *before = first;
            if !retention.is_off() {
                self.begins.insert(name.as_str().to_owned(), topic.log().shared().begins());
            }
        }
        (self.before, self.is_forgotten) = (retention, false);
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
        self.is_forgotten = true;
    }
}

/// Whether each segment that went since the topic began with `before` was too old by any of these settings,
/// or too much of it was left with it. Of segments that nobody saw, two count as one: more is allowed then,
/// never less.
fn may_go(
    view: &View<'_>,
    topic: &Topic,
    before: Offset,
    begins: &[Offset],
    latest: Timestamp,
    any: &[Retention],
) -> Result<(), String> {
    let (name, first) = (topic.name(), topic.log().first());
    let index = |offset: Offset| usize::try_from(offset.get() - 1).expect("few messages");
    let Some(all) = view.records.topics.get(name.as_str()) else { return Ok(()) };
    let passed = begins.iter().copied().filter(|begin| before < *begin && *begin < first);
    let begins: Vec<Offset> = [before].into_iter().chain(passed).chain([first]).collect();
    for segment in begins.windows(2) {
        let [begin, next] = [index(segment[0]), index(segment[1])];
        let Some(last) = all.get(next - 1) else { continue };
        let left: u64 = all[begin..].iter().map(|record| record.bytes).sum();
        let goes = |Retention { age, bytes }: &Retention| {
            age.is_some_and(|age| last.ts.plus(age) < latest)
                || bytes.is_some_and(|most| left > most)
        };
        if !any.iter().any(goes) {
            let (from, ts) = (segment[0], last.ts);
            return Err(format!(
                "{name} begins with {first}: what went from {from} on was of {ts} at {latest} and \
                 {left} bytes with all behind it, and this is to be kept: {any:?}"
            ));
        }
    }
    Ok(())
}
