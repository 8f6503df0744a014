//! The floor of a group passes nothing that is not done with, and what stands above it as settled is
//! so: acknowledged by somebody, or a dead letter. What is a dead letter is settled. Nothing is
//! settled that is not in the log.

use std::collections::BTreeMap;

use crate::delivery::Progress;
use crate::ids::Offset;
use crate::topic::Topic;

use super::View;
use super::dead_letters::DeadLetters;
use super::groups::Groups;

/// How far each group was looked at: its floor, and how many messages are settled.
#[derive(Default)]
pub(super) struct Floor {
    looked: BTreeMap<(String, String), Looked>,
}

#[derive(Default)]
struct Looked {
    floor: Offset,
    unsettled: u64,
    end: Offset,
    /// Settled, and rightly: by offset.
    is_good: Vec<bool>,
}

impl Floor {
    pub(super) fn check(
        &mut self,
        view: &View<'_>,
        groups: &Groups,
        dead_letters: &DeadLetters,
    ) -> Result<(), String> {
        if view.node.settings.gate.refusal().is_some() && !view.is_fresh {
            // A full disk may hold back the line of a dead letter.
            return Ok(());
        }
        for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
            for (group, progress) in topic.progress() {
                let Some(start) = groups.start(topic.name().as_str(), group.as_str()) else {
                    continue;
                };
                let key = (topic.name().as_str().to_owned(), group.as_str().to_owned());
                let looked = self.looked.entry(key).or_default();
                looked.check(view, topic, group.as_str(), progress, start, dead_letters)?;
            }
        }
        Ok(())
    }

    /// Everything has to be looked at again.
    pub(super) fn forget(&mut self) {
        self.looked.clear();
    }
}

impl Looked {
    fn check(
        &mut self,
        view: &View<'_>,
        topic: &Topic,
        group: &str,
        progress: &Progress,
        start: Offset,
        dead_letters: &DeadLetters,
    ) -> Result<(), String> {
        let (name, end) = (topic.name(), topic.log().end());
        let unsettled = progress.lag(end);
        let is_same = (self.floor, self.unsettled, self.end) == (progress.floor(), unsettled, end);
        if is_same && !view.is_fresh {
            return Ok(());
        }
        let last = progress.settled_up_to();
        if last > end {
            return Err(format!("{group} has settled {last} of {name}, which ends at {end}"));
        }
        let above = progress.settled().flat_map(|(first, last)| first.get()..=last.get());
        let passed = self.floor.max(start).get() + 1..=progress.floor().get();
        self.is_good.resize(usize::try_from(end.get()).expect("few messages") + 1, false);
        for offset in passed.chain(above) {
            let is_good = &mut self.is_good[usize::try_from(offset).expect("few messages")];
            // A group of a dead-letter topic has nowhere to put what fails for good.
            if *is_good || name.is_dead_letter() {
                continue;
            }
            let unit = (name.as_str().to_owned(), group.to_owned(), offset);
            let may = dead_letters.has(&unit) || view.ledger.acks_sent.contains_key(&unit);
            *is_good = may;
            if !may {
                return Err(format!("{name} {offset} was settled by nobody in {group}"));
            }
        }
        if view.is_fresh {
            let is_open = |offset: &u64| !progress.is_settled(Offset::new(*offset));
            let mut open = (start.get() + 1..=end.get()).filter(is_open);
            let dead = |offset: &u64| {
                dead_letters.has(&(name.as_str().to_owned(), group.to_owned(), *offset))
            };
            if let Some(offset) = open.find(dead) {
                return Err(format!("{name} {offset} is a dead letter, and goes on in {group}"));
            }
        }
        (self.floor, self.unsettled, self.end) = (progress.floor(), unsettled, end);
        Ok(())
    }
}
