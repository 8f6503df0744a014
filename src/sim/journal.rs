//! What was written to the write-ahead log, batch by batch, as somebody at the writer's elbow saw
//! it: recovery has to come to the state that the first so many of these batches make.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::message::Submission;
use crate::delivery::Change;
use crate::ids::{GroupName, TopicName};
use crate::topic::{Command, CommandReader};
use crate::wal::Lsn;

/// What a batch changes.
#[derive(Clone, Debug)]
enum Effect {
    Append { topic: String },
    CreateGroup { topic: String, group: String },
    Settle { topic: String, group: String, first: u64, count: u64 },
}

/// One record of the log.
#[derive(Debug)]
struct Written {
    effects: Vec<Effect>,
    /// What was durable when it was written, at least: so much it vouches for.
    durable: Lsn,
}

/// The records by their number, from the first; see the module.
#[derive(Default)]
pub(super) struct Journal {
    records: Vec<Written>,
}

/// What the records up to some point make.
#[derive(Debug, Default)]
pub(super) struct State {
    /// How many messages each topic has.
    pub(super) ends: BTreeMap<String, u64>,
    /// The groups by topic and name.
    pub(super) groups: BTreeMap<(String, String), Progress>,
}

/// How far a group is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last message before its first.
    pub(super) start: u64,
    /// What is settled behind `start`.
    pub(super) settled: BTreeSet<u64>,
}

impl Journal {
    /// Batches are about to be written behind record `last`. It may come to nothing: then what was
    /// tried is forgotten with the next try, or with [`Journal::cut`].
    pub(super) fn write(&mut self, last: Lsn, durable: Lsn, batches: &[Submission]) {
        self.cut(last);
        let written = |batch: &Submission| Written { effects: effects(&batch.payload), durable };
        self.records.extend(batches.iter().map(written));
    }

    /// Only the records up to `last` are there.
    pub(super) fn cut(&mut self, last: Lsn) {
        self.records.truncate(usize::try_from(last.get()).expect("few records"));
    }

    /// How many records there are.
    pub(super) fn last(&self) -> Lsn {
        Lsn::new(self.records.len() as u64)
    }

    /// The last record that a later one vouches for.
    pub(super) fn vouched(&self) -> Lsn {
        self.records.iter().map(|record| record.durable).max().unwrap_or_default()
    }

    /// What they make.
    pub(super) fn state(&self) -> State {
        let mut state = State::default();
        for effect in self.records.iter().flat_map(|record| &record.effects) {
            match effect {
                Effect::Append { topic } => *state.ends.entry(topic.clone()).or_default() += 1,
                Effect::CreateGroup { topic, group } => {
                    let start = state.ends.get(topic).copied().unwrap_or_default();
                    let new = || Progress { start, ..Progress::default() };
                    state.groups.entry((topic.clone(), group.clone())).or_insert_with(new);
                }
                Effect::Settle { topic, group, first, count } => {
                    let group = state.groups.entry((topic.clone(), group.clone())).or_default();
                    group.settled.extend(*first..first + count);
                }
            }
        }
        state
    }
}

fn effects(payload: &[u8]) -> Vec<Effect> {
    let mut reader = CommandReader::new(payload);
    let (mut topic, mut group) = (String::new(), String::new());
    let mut effects = Vec::new();
    while let Some(command) = reader.next().expect("a batch is what the shard wrote") {
        let names = || (topic.clone(), group.clone());
        let settle = |first: u64, count: u64| {
            let (topic, group) = names();
            Effect::Settle { topic, group, first, count }
        };
        match command {
            Command::Topic(name) => topic = TopicName::as_str(&name).to_owned(),
            Command::Group(name) => group = GroupName::as_str(&name).to_owned(),
            Command::Time(_)
            | Command::Change(Change::Failed { .. })
            | Command::Seal
            | Command::Trim { .. } => {}
            Command::Append { .. } => effects.push(Effect::Append { topic: topic.clone() }),
            Command::CreateGroup => {
                let (topic, group) = names();
                effects.push(Effect::CreateGroup { topic, group });
            }
            Command::Settled { first, count } => {
                effects.push(settle(first.get(), u64::from(count)));
            }
            Command::Change(Change::Settled { offset } | Change::DeadLettered { offset, .. }) => {
                effects.push(settle(offset.get(), 1));
            }
        }
    }
    effects
}
