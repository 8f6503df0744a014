//! What is stored, read message by message as it becomes visible. Oracles judge it.

use std::collections::BTreeMap;

use crate::ids::Offset;
use crate::log::{self, Reader};
use crate::time::Timestamp;

use super::node::Node;

/// One stored message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) ts: Timestamp,
    pub(super) message: String,
    /// The length of its line, with its end.
    pub(super) bytes: u64,
    /// The whole line, of a dead letter.
    pub(super) raw: Option<String>,
}

impl Record {
    /// What a line is made of that was read from a topic.
    pub(super) fn of(line: &log::Line<'_>, is_letter: bool) -> Record {
        Record {
            id: line.id.to_string(),
            ts: line.ts(),
            message: String::from_utf8_lossy(&line.message).into_owned(),
            bytes: line.raw.len() as u64 + 1,
            raw: is_letter.then(|| String::from_utf8_lossy(line.raw).into_owned()),
        }
    }
}

/// What was found where the next message of a topic should stand.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) topic: String,
    /// How many messages of the topic come before it.
    pub(super) index: usize,
    pub(super) line: Line,
}

/// See [`Found`].
#[derive(Debug)]
pub(super) enum Line {
    /// A message that nobody saw before, with the offset that it says it has.
    New(Offset),
    /// One that was seen in an earlier life of the daemon, as it is now.
    Again(Offset, Record),
    /// None that can be read, and why.
    Unreadable(String),
}

/// All topics, as they were seen.
#[derive(Default)]
pub(super) struct Records {
    /// By topic, in the order of their offsets.
    pub(super) topics: BTreeMap<String, Vec<Record>>,
    /// What was found since the oracles last looked.
    pub(super) found: Vec<Found>,
    /// Of those, the ones that nobody saw before: topic and index.
    pub(super) fresh: Vec<(String, usize)>,
    readers: BTreeMap<String, Reader>,
    /// While the directory is read again after a start: how much of each topic was found.
    compared: BTreeMap<String, usize>,
}

impl Records {
    /// A new life begins: everything that could be seen before must be there again.
    pub(super) fn begin_life(&mut self) {
        self.readers.clear();
        self.compared.clear();
    }

    /// Forgets what the oracles have looked at.
    pub(super) fn looked(&mut self) {
        self.found.clear();
        self.fresh.clear();
    }

    /// Forgets the messages behind the first `count` of a topic: they are lost, as they may be.
    pub(super) fn forget_behind(&mut self, topic: &str, count: usize) {
        if let Some(known) = self.topics.get_mut(topic) {
            known.truncate(count);
        }
        self.fresh.retain(|(name, index)| name != topic || *index < count);
    }

    /// Reads what is new.
    pub(super) fn follow(&mut self, node: &Node) {
        for topic in node.shards.iter().flat_map(|shard| shard.topics()) {
            let name = topic.name().as_str().to_owned();
            let end = topic.log().shared().end();
            let done = self.compared.entry(name.clone()).or_default();
            let first = topic.log().first();
            if *done == 0 && first > Offset::FIRST {
                // What is no longer kept was seen: it went after everybody who waited for it had it.
                *done = usize::try_from(first.get() - 1).expect("few messages");
            }
            if end.get() <= *done as u64 {
                continue;
            }
            let reader = self.readers.entry(name.clone()).or_insert_with(|| topic.log().reader());
            let known = self.topics.entry(name.clone()).or_default();
            while (*done as u64) < end.get() {
                let index = *done;
                let found = |line| Found { topic: name.clone(), index, line };
                let line = match reader.next() {
                    Ok(Some(line)) => line,
                    Ok(None) => {
                        let why = format!("it ends before {end}");
                        self.found.push(found(Line::Unreadable(why)));
                        break;
                    }
                    Err(error) => {
                        self.found.push(found(Line::Unreadable(error.to_string())));
                        break;
                    }
                };
                let is_letter = topic.name().is_dead_letter();
                let record = Record::of(&line, is_letter);
                let offset = line.offset;
                if index < known.len() {
                    self.found.push(found(Line::Again(offset, record)));
                } else {
                    known.push(record);
                    self.fresh.push((name.clone(), index));
                    self.found.push(found(Line::New(offset)));
                }
                *done += 1;
            }
        }
    }

    /// Right after a start: nothing that was seen is missing.
    pub(super) fn all_back(&self) -> Result<(), String> {
        for (topic, known) in &self.topics {
            let back = self.compared.get(topic).copied().unwrap_or_default();
            if back < known.len() {
                let lost = known.len() - back;
                return Err(format!("the last {lost} messages of {topic} were seen and are gone"));
            }
        }
        Ok(())
    }
}
