//! The durable part of a group: what is settled, and what was tried in vain.
//!
//! ```text
//!   offsets   1 2 3 4 5 6 7 8 9 …
//!             █ █ █ · █ █ · █ ·        floor = 3, settled above it: 5-6, 8
//!                   │     │
//!                   └─────┴── may have attempts
//! ```
//!
//! It changes by [`Change`]s alone, and the same changes make the same progress on every node and
//! at every replay. Its size follows the number of gaps, not the number of messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::attempt::Attempt;
use crate::ids::Offset;
use crate::planted::{self, Bug};

/// Most attempts kept of one message. Beyond that the oldest but the first are forgotten, uncounted
/// ones before counted ones: a member that crashes at start would otherwise fill the memory. The
/// numbers of the attempts show the gap.
pub const ATTEMPTS_KEPT_MAX: usize = 32;

/// A durable change. The group asks for it ([`Action::Commit`](super::Action)), its owner makes it
/// durable and then feeds it back ([`Event::Committed`](super::Event)); on replay and on other
/// nodes the owner only feeds it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The message is done with: acknowledged, or given up where there are no dead letters.
    Settled {
        /// The message.
        offset: Offset,
    },
    /// A delivery ended without an acknowledgement, and the message will be delivered again.
    Failed {
        /// The message.
        offset: Offset,
        /// What happened.
        attempt: Attempt,
    },
    /// The message failed for good: its dead letter has been written, in the same batch.
    DeadLettered {
        /// The message.
        offset: Offset,
        /// The last attempt; those before it are [`Progress::attempts`].
        attempt: Attempt,
    },
}

impl Change {
    /// The message that this is about.
    pub fn offset(&self) -> Offset {
        match self {
            Change::Settled { offset }
            | Change::Failed { offset, .. }
            | Change::DeadLettered { offset, .. } => *offset,
        }
    }
}

/// What was tried with one unsettled message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct History {
    /// How many attempts counted, including forgotten ones.
    failures: u32,
    /// Oldest first; never empty.
    attempts: Vec<Attempt>,
}

/// The durable part of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Progress {
    floor: Offset,
    /// First → last of each settled range above the floor; neither touch one another nor the floor.
    settled: BTreeMap<Offset, Offset>,
    /// How many offsets the ranges hold: derived.
    settled_above: u64,
    /// Of unsettled messages only.
    histories: BTreeMap<Offset, History>,
}

impl Progress {
    /// The progress of a new group whose first message is to be `first`.
    pub fn starting_at(first: Offset) -> Progress {
        Progress { floor: first.prev(), ..Progress::default() }
    }

    /// The last offset up to which everything is settled.
    pub fn floor(&self) -> Offset {
        self.floor
    }

    /// The settled ranges above the floor, first and last offset of each, in order.
    pub fn settled(&self) -> impl Iterator<Item = (Offset, Offset)> {
        self.settled.iter().map(|(first, last)| (*first, *last))
    }

    /// How many settled ranges there are above the floor.
    pub fn ranges(&self) -> usize {
        self.settled.len()
    }

    /// The highest settled offset (the floor if nothing is settled above it).
    pub fn settled_up_to(&self) -> Offset {
        self.settled.last_key_value().map_or(self.floor, |(_, last)| *last)
    }

    /// Whether the message is done with.
    pub fn is_settled(&self, offset: Offset) -> bool {
        offset <= self.floor || self.range_of(offset).is_some()
    }

    /// The first unsettled offset that is not below `from`.
    pub fn unsettled_from(&self, from: Offset) -> Offset {
        let from = from.max(self.floor.next());
        self.range_of(from).map_or(from, |(_, last)| last.next())
    }

    /// How many of the messages up to `end` are not settled.
    pub fn lag(&self, end: Offset) -> u64 {
        // Beyond the end there is hardly ever anything, so counting back from there is quick.
        let beyond = self.settled.iter().rev().take_while(|(_, last)| **last > end);
        let beyond: u64 = beyond.map(|(first, last)| length(end.next().max(*first), *last)).sum();
        end.get().saturating_sub(self.floor.get()).saturating_sub(self.settled_above - beyond)
    }

    /// What was tried with an unsettled message, oldest first; nothing for a settled one.
    pub fn attempts(&self, offset: Offset) -> &[Attempt] {
        self.histories.get(&offset).map_or(&[], |history| &history.attempts)
    }

    /// The attempts of a message as they are kept with `more` behind them, those that are there already
    /// left out, and how many of all counted.
    pub(super) fn story<'a>(
        &self,
        offset: Offset,
        more: impl Iterator<Item = &'a Attempt>,
    ) -> (Vec<Attempt>, u32) {
        let mut history = self.histories.get(&offset).cloned().unwrap_or_default();
        for attempt in more {
            if history.attempts.last().is_none_or(|known| known.n < attempt.n) {
                history.add(attempt.clone());
            }
        }
        (history.attempts, history.failures)
    }

    /// The unsettled messages with attempts, and those attempts, in order of the offsets.
    pub fn histories(&self) -> impl Iterator<Item = (Offset, &[Attempt])> {
        self.histories.iter().map(|(offset, history)| (*offset, &*history.attempts))
    }

    /// How many attempts of an unsettled message counted.
    pub fn failures(&self, offset: Offset) -> u32 {
        self.histories.get(&offset).map_or(0, |history| history.failures)
    }

    /// Makes a change. Total: what is settled stays settled, and a second time changes nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Settled { offset } | Change::DeadLettered { offset, .. } => {
                self.settle(*offset);
                if planted::has(Bug::FloorPassesUnacked) {
                    self.skip_to(offset.next());
                }
            }
            Change::Failed { offset, attempt } => {
                if !self.is_settled(*offset) {
                    self.histories.entry(*offset).or_default().add(attempt.clone());
                }
            }
        }
    }

    /// The same without any attempt, for [`Bug::AttemptsInMemory`].
    pub(crate) fn without_attempts(mut self) -> Progress {
        self.histories.clear();
        self
    }

    /// Settles everything below `first`.
    pub fn skip_to(&mut self, first: Offset) {
        if first <= self.floor.next() {
            return;
        }
        self.floor = first.prev();
        self.histories = self.histories.split_off(&first);
        while let Some(range) = self.settled.first_entry()
            && *range.key() <= self.floor.next()
        {
            let (first, last) = range.remove_entry();
            self.settled_above -= length(first, last);
            self.floor = self.floor.max(last);
        }
    }

    fn settle(&mut self, offset: Offset) {
        self.histories.remove(&offset);
        if offset <= self.floor {
            return;
        }
        if offset == self.floor.next() {
            self.floor = offset;
            if let Some(range) = self.settled.first_entry()
                && *range.key() == offset.next()
            {
                let (first, last) = range.remove_entry();
                self.settled_above -= length(first, last);
                self.floor = last;
            }
            return;
        }
        let before = self.settled.range_mut(..=offset).next_back();
        let first = match before {
            Some((_, last)) if *last >= offset => return,
            Some((first, last)) if last.next() == offset => {
                *last = offset;
                *first
            }
            _ => {
                self.settled.insert(offset, offset);
                offset
            }
        };
        self.settled_above += 1;
        if let Some(last) = self.settled.remove(&offset.next()) {
            self.settled.insert(first, last);
        }
    }

    fn range_of(&self, offset: Offset) -> Option<(Offset, Offset)> {
        let (first, last) = self.settled.range(..=offset).next_back()?;
        (*last >= offset).then_some((*first, *last))
    }

    /// Asserts that the parts agree.
    pub fn check(&self) {
        let mut free_from = self.floor.next();
        for (first, last) in self.settled() {
            assert!(first > free_from, "the range from {first} touches what is settled before it");
            assert!(first <= last, "the range from {first} ends at {last}");
            free_from = last.next();
        }
        let above: u64 = self.settled().map(|(first, last)| length(first, last)).sum();
        assert_eq!(above, self.settled_above, "the count of what is settled above the floor");
        for (offset, history) in &self.histories {
            assert!(!self.is_settled(*offset), "{offset} is settled and has attempts");
            assert!(!history.attempts.is_empty(), "{offset} has an empty history");
            assert!(history.attempts.len() <= ATTEMPTS_KEPT_MAX, "{offset} keeps too much");
            let counted = history.attempts.iter().filter(|a| a.counts()).count();
            assert!(history.failures as usize >= counted, "{offset} has failures not counted");
        }
    }
}

fn length(first: Offset, last: Offset) -> u64 {
    last.get() - first.get() + 1
}

impl History {
    fn add(&mut self, attempt: Attempt) {
        self.failures = self.failures.saturating_add(u32::from(attempt.counts()));
        if self.attempts.len() == ATTEMPTS_KEPT_MAX {
            let later = &self.attempts[1..];
            let forget = later.iter().position(|attempt| !attempt.counts()).unwrap_or(0);
            self.attempts.remove(1 + forget);
        }
        self.attempts.push(attempt);
    }
}

/// Why stored progress was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the progress of a group contradicts itself at offset {0}")]
pub struct BadProgress(u64);

/// [`Progress`] as it is written: `{"floor":3,"settled":[[5,6],[8,8]],"tried":[…]}`.
#[derive(Serialize, Deserialize)]
struct Stored {
    floor: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    settled: Vec<[u64; 2]>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tried: Vec<Tried>,
}

#[derive(Serialize, Deserialize)]
struct Tried {
    offset: u64,
    failures: u32,
    attempts: Vec<Attempt>,
}

impl From<Progress> for Stored {
    fn from(progress: Progress) -> Stored {
        let tried = |(offset, History { failures, attempts }): (Offset, History)| Tried {
            offset: offset.get(),
            failures,
            attempts,
        };
        Stored {
            floor: progress.floor.get(),
            settled: progress.settled().map(|(first, last)| [first.get(), last.get()]).collect(),
            tried: progress.histories.into_iter().map(tried).collect(),
        }
    }
}

impl TryFrom<Stored> for Progress {
    type Error = BadProgress;

    fn try_from(stored: Stored) -> Result<Progress, BadProgress> {
        if stored.floor == u64::MAX {
            return Err(BadProgress(stored.floor));
        }
        let mut progress = Progress { floor: Offset::new(stored.floor), ..Progress::default() };
        for [first, last] in stored.settled {
            let in_order = first > progress.settled_up_to().get().saturating_add(1);
            if !in_order || last < first || last == u64::MAX {
                return Err(BadProgress(first));
            }
            progress.settled.insert(Offset::new(first), Offset::new(last));
            progress.settled_above += last - first + 1;
        }
        for Tried { offset, failures, attempts } in stored.tried {
            let counted = attempts.iter().filter(|attempt| attempt.counts()).count();
            let known = progress.histories.contains_key(&Offset::new(offset));
            if known
                || offset == u64::MAX
                || progress.is_settled(Offset::new(offset))
                || attempts.is_empty()
                || attempts.len() > ATTEMPTS_KEPT_MAX
                || counted > failures as usize
            {
                return Err(BadProgress(offset));
            }
            progress.histories.insert(Offset::new(offset), History { failures, attempts });
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Outcome;
    use crate::time::Timestamp;

    fn settled(floor: u64, offsets: impl IntoIterator<Item = u64>) -> Progress {
        let mut progress = Progress::starting_at(Offset::new(floor + 1));
        for offset in offsets {
            progress.apply(&Change::Settled { offset: Offset::new(offset) });
            progress.check();
        }
        progress
    }

    #[test]
    fn ranges_grow_together_from_all_sides() {
        let text = |progress: &Progress| serde_json::to_string(progress).unwrap();
        assert_eq!(text(&settled(0, [3, 5, 4, 9, 8])), r#"{"floor":0,"settled":[[3,5],[8,9]]}"#);
        assert_eq!(text(&settled(0, [3, 2, 6, 1])), r#"{"floor":3,"settled":[[6,6]]}"#);
        assert_eq!(text(&settled(7, [1, 7, 8, 8, 10, 9])), r#"{"floor":10}"#);
    }

    #[test]
    fn questions_about_what_is_settled() {
        let progress = settled(2, [5, 6, 9]);
        let (unsettled_from, lag) = (
            [0, 3, 4, 5, 6, 7, 9].map(|from| progress.unsettled_from(Offset::new(from)).get()),
            [0, 2, 3, 5, 8, 9, 20].map(|end| progress.lag(Offset::new(end))),
        );
        assert_eq!(unsettled_from, [3, 3, 4, 7, 7, 7, 10]);
        assert_eq!(lag, [0, 0, 1, 2, 4, 4, 15]);
        assert_eq!(progress.settled_up_to(), Offset::new(9));
        assert_eq!(settled(2, []).settled_up_to(), Offset::new(2));
    }

    #[test]
    fn progress_that_contradicts_itself_is_refused() {
        let attempt = r#"{"n":1,"consumer":"a","sent":0,"ended":0,"outcome":"timeout"}"#;
        let tried = |offset: u64, failures: u32, attempts: &str| {
            format!(r#"{{"offset":{offset},"failures":{failures},"attempts":[{attempts}]}}"#)
        };
        let stored = |settled: &str, tried: &str| {
            let text = format!(r#"{{"floor":3,"settled":[{settled}],"tried":[{tried}]}}"#);
            serde_json::from_str::<Progress>(&text).map(|progress| progress.check())
        };
        stored("[5,6],[8,8]", &tried(7, 1, attempt)).unwrap();
        for ranges in ["[4,5]", "[3,3]", "[6,5]", "[5,6],[7,8]", "[8,9],[5,6]", "[5,5],[5,5]"] {
            assert!(stored(ranges, "").is_err(), "{ranges}");
        }
        assert!(stored(&format!("[5,{}]", u64::MAX), "").is_err());
        assert!(stored("", &tried(u64::MAX, 1, attempt)).is_err());
        let floor = format!(r#"{{"floor":{}}}"#, u64::MAX);
        assert!(serde_json::from_str::<Progress>(&floor).is_err());
        let many = [attempt; ATTEMPTS_KEPT_MAX + 1].join(",");
        for bad in [
            tried(3, 1, attempt),
            tried(5, 1, attempt),
            tried(7, 0, attempt),
            tried(7, 1, ""),
            tried(7, 99, &many),
            [tried(7, 1, attempt), tried(7, 1, attempt)].join(","),
        ] {
            assert!(stored("[5,6]", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_story_of_many_attempts_has_the_first_and_the_last_and_counts_them_all() {
        let attempt = |n| Attempt {
            n,
            consumer: "w".to_owned(),
            sent: Timestamp::default(),
            ended: Timestamp::default(),
            outcome: Outcome::Timeout,
            reason: None,
            error: None,
            uncounted: false,
        };
        let (mut progress, offset) = (Progress::starting_at(Offset::FIRST), Offset::FIRST);
        for n in 1..=38 {
            progress.apply(&Change::Failed { offset, attempt: attempt(n) });
        }
        // Two are not durable yet, one of them is by now, and one is the last.
        let more = [attempt(38), attempt(39), attempt(40), attempt(41)];
        let (attempts, failures) = progress.story(offset, more.iter());
        assert_eq!(failures, 41);
        assert_eq!(attempts.len(), ATTEMPTS_KEPT_MAX);
        let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.n).collect();
        assert_eq!((numbers[0], numbers[1], numbers[31]), (1, 11, 41));
    }
}
