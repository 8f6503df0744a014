//! The durable part of a group: what is settled, and what was tried.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Offset;
use crate::time::Timestamp;

/// Most attempts that are remembered of one message. A message that kills each of its consumers
/// may be delivered more often; what comes after these is not written down.
const ATTEMPTS_MAX: usize = 1000;

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// No acknowledgement in time.
    Timeout,
    /// The consumer said no.
    Nack,
    /// The consumer's connection was closed.
    Disconnect,
    /// The consumer was silent for too long.
    Dead,
}

impl Outcome {
    /// Whether it brings the message nearer to the dead letters. A consumer that is gone says
    /// nothing about the message.
    pub fn counts(self) -> bool {
        matches!(self, Outcome::Timeout | Outcome::Nack)
    }
}

/// One delivery that was not acknowledged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub n: u32,
    /// To whom.
    pub consumer: String,
    /// When it was delivered.
    pub sent: Timestamp,
    /// When it was given up.
    pub ended: Timestamp,
    /// Why.
    pub outcome: Outcome,
    /// A code that the consumer gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What went wrong, in the consumer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A durable change of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The message was acknowledged.
    Settled {
        /// The message.
        offset: Offset,
    },
    /// A delivery failed; the message comes again.
    Failed {
        /// The message.
        offset: Offset,
        /// The delivery.
        attempt: Attempt,
    },
    /// The last delivery failed; a dead letter is written in the same batch.
    DeadLettered {
        /// The message.
        offset: Offset,
        /// The last delivery.
        attempt: Attempt,
    },
}

/// Where a group is: everything up to the floor is settled, and some above it.
///
/// As JSON: `{"floor":7,"settled":{"9":12},"attempts":{"8":[…]}}`: settled are 1 to 7 and 9 to 12.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    floor: u64,
    /// First to last offset of each settled range above the floor; ranges never touch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    settled: BTreeMap<u64, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attempts: BTreeMap<u64, Vec<Attempt>>,
}

impl Progress {
    /// A group whose first message is `first`.
    pub fn starting_at(first: Offset) -> Self {
        Self { floor: first.prev().get(), ..Self::default() }
    }

    /// The last offset up to which everything is settled.
    pub fn floor(&self) -> Offset {
        Offset::new(self.floor)
    }

    /// How many messages above the floor are settled.
    pub fn settled_above(&self) -> u64 {
        self.settled.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether the message is settled.
    pub fn is_settled(&self, offset: Offset) -> bool {
        self.next_unsettled(offset) != offset
    }

    /// The first message from `offset` on that is not settled.
    pub fn next_unsettled(&self, offset: Offset) -> Offset {
        let at = offset.get().max(self.floor + 1);
        match self.settled.range(..=at).next_back() {
            Some((_, last)) if *last >= at => Offset::new(last + 1),
            _ => Offset::new(at),
        }
    }

    /// What was tried with a message that is not settled.
    pub fn attempts(&self, offset: Offset) -> &[Attempt] {
        self.attempts.get(&offset.get()).map_or(&[], Vec::as_slice)
    }

    /// The messages of which something was tried.
    pub fn tried(&self) -> impl Iterator<Item = Offset> {
        self.attempts.keys().copied().map(Offset::new)
    }

    /// Applies a committed change. One that was applied before changes nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Settled { offset } | Change::DeadLettered { offset, .. } => {
                self.settle(*offset)
            }
            Change::Failed { offset, attempt } => {
                if self.is_settled(*offset) {
                    return;
                }
                let attempts = self.attempts.entry(offset.get()).or_default();
                if attempts.len() < ATTEMPTS_MAX {
                    attempts.push(attempt.clone());
                }
            }
        }
    }

    fn settle(&mut self, offset: Offset) {
        if self.is_settled(offset) {
            return;
        }
        let offset = offset.get();
        self.attempts.remove(&offset);
        let before = self.settled.range(..offset).next_back();
        let joins_before = before.filter(|(_, last)| **last + 1 == offset);
        let first = joins_before.map_or(offset, |(first, _)| *first);
        let last = self.settled.remove(&(offset + 1)).unwrap_or(offset);
        if first == self.floor + 1 {
            self.settled.remove(&first);
            self.floor = last;
        } else {
            self.settled.insert(first, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn settling_in_any_order_is_a_set(offsets in proptest::collection::vec(1u64..40, 0..80)) {
            let mut progress = Progress::starting_at(Offset::new(5));
            let mut model: std::collections::BTreeSet<u64> = (1..5).collect();
            for offset in offsets {
                progress.apply(&Change::Settled { offset: Offset::new(offset) });
                model.insert(offset);
                let floor = (0..).take_while(|n| *n == 0 || model.contains(n)).last().unwrap();
                prop_assert_eq!(progress.floor, floor);
                for n in 1..45 {
                    prop_assert_eq!(progress.is_settled(Offset::new(n)), model.contains(&n));
                    let next = (n..).find(|n| !model.contains(n)).unwrap();
                    prop_assert_eq!(progress.next_unsettled(Offset::new(n)).get(), next);
                }
                let ranges: Vec<_> = progress.settled.iter().collect();
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].1 + 1 < *pair[1].0, "ranges never touch");
                }
                let json = serde_json::to_string(&progress).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Progress>(&json).unwrap(), &progress);
            }
        }
    }
}
