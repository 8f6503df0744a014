//! Offsets are 1, 2, 3 … without a gap, ids are unique, and what was read once is what is read
//! again.

use std::collections::BTreeSet;

use super::super::records::{Line, Record, Records};
use super::View;

/// The ids of each topic.
#[derive(Default)]
pub(super) struct Dense {
    ids: BTreeSet<(String, String)>,
}

impl Dense {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        for found in &view.records.found {
            let (topic, expected) = (&found.topic, found.index as u64 + 1);
            let known = || &view.records.topics[topic][found.index];
            let offset = match &found.line {
                Line::Unreadable(why) => return Err(format!("{topic} {expected}: {why}")),
                Line::New(offset) => {
                    let Record { id, .. } = known();
                    if !self.ids.insert((topic.clone(), id.clone())) {
                        return Err(format!("{topic}: the id {id} is there twice"));
                    }
                    offset
                }
                Line::Again(offset, record) => {
                    if record != known() {
                        let (was, is) = (&known().message, &record.message);
                        return Err(format!("{topic} {expected} was {was} and is now {is}"));
                    }
                    offset
                }
            };
            if offset.get() != expected {
                return Err(format!("{topic}: offset {offset} where {expected} belongs"));
            }
        }
        Ok(())
    }

    /// Only these messages are there still.
    pub(super) fn forget(&mut self, records: &Records) {
        let all = records.topics.iter();
        let ids = |(topic, records): (&String, &Vec<Record>)| -> Vec<(String, String)> {
            records.iter().map(|record| (topic.clone(), record.id.clone())).collect()
        };
        self.ids = all.flat_map(ids).collect();
    }
}
