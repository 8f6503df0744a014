//! What is stored, read message by message as it becomes visible.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Offset;
use crate::log::Reader;

use super::node::Node;

/// One stored message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) message: String,
    /// The whole line, of a dead letter.
    pub(super) raw: Option<String>,
}

/// All topics, as they were seen.
#[derive(Default)]
pub(super) struct Records {
    /// By topic, in the order of their offsets.
    pub(super) topics: BTreeMap<String, Vec<Record>>,
    /// Of those, the ones since the oracles last looked: topic and index.
    pub(super) fresh: Vec<(String, usize)>,
    ids: BTreeSet<(String, String)>,
    readers: BTreeMap<String, Reader>,
    /// While the directory is read again after a start: how much of each topic was compared.
    compared: BTreeMap<String, usize>,
}

impl Records {
    /// A new life begins: everything that could be seen before must be there again.
    pub(super) fn begin_life(&mut self) {
        self.readers.clear();
        self.compared.clear();
    }

    /// Reads what is new.
    pub(super) fn follow(&mut self, node: &Node) -> Result<(), String> {
        for topic in node.shards.iter().flat_map(|shard| shard.topics()) {
            let name = topic.name().as_str().to_owned();
            let end = topic.log().shared().end();
            let done = self.compared.entry(name.clone()).or_default();
            if end.get() <= *done as u64 {
                continue;
            }
            let reader = self.readers.entry(name.clone()).or_insert_with(|| topic.log().reader());
            let known = self.topics.entry(name.clone()).or_default();
            while (*done as u64) < end.get() {
                let line = reader.next().map_err(|error| format!("unreadable: {error}"))?;
                let line = line.ok_or_else(|| format!("{name} ends before {end}"))?;
                let expected = Offset::new(*done as u64 + 1);
                if line.offset != expected {
                    return Err(format!("{name}: offset {} where {expected} belongs", line.offset));
                }
                let record = Record {
                    id: line.id.to_string(),
                    message: String::from_utf8_lossy(&line.message).into_owned(),
                    raw: topic
                        .name()
                        .is_dead_letter()
                        .then(|| String::from_utf8_lossy(line.raw).into_owned()),
                };
                match known.get(*done) {
                    Some(before) if *before == record => {}
                    Some(before) => {
                        let now = &record.message;
                        let was = &before.message;
                        return Err(format!("{name} {expected} was {was} and is now {now}"));
                    }
                    None => {
                        if !self.ids.insert((name.clone(), record.id.clone())) {
                            return Err(format!("{name}: the id {} is there twice", record.id));
                        }
                        known.push(record);
                        self.fresh.push((name.clone(), *done));
                    }
                }
                *done += 1;
            }
        }
        Ok(())
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
