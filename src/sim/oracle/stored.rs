//! What is stored was sent, to that topic, is there no more often than it was sent, and is not there
//! if it was refused.

use std::collections::BTreeMap;

use super::super::ledger::Sent;
use super::super::records::Records;
use super::View;

/// How often each text is stored.
#[derive(Default)]
pub(super) struct Stored {
    times: BTreeMap<String, usize>,
}

impl Stored {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        for (topic, at) in &view.records.fresh {
            let record = &view.records.topics[topic][*at];
            if record.raw.is_some() {
                continue;
            }
            let message = &record.message;
            if view.ledger.sent.get(message).is_none_or(|sent| sent.topic != topic) {
                return Err(format!(
                    "{topic} {} holds {message}, which was not sent there",
                    at + 1
                ));
            }
            *self.times.entry(message.clone()).or_default() += 1;
            self.is_allowed(view, message)?;
        }
        if view.is_fresh {
            self.times.keys().try_for_each(|message| self.is_allowed(view, message))?;
        }
        Ok(())
    }

    fn is_allowed(&self, view: &View<'_>, message: &str) -> Result<(), String> {
        let stored = self.times[message];
        let Sent { topic, times, refused } = &view.ledger.sent[message];
        let is_allowed = stored + refused <= *times;
        is_allowed.then_some(()).ok_or_else(|| {
            format!("{topic} holds {message} {stored} times; it was sent {times} times, and refused {refused}")
        })
    }

    /// Only these messages are there still.
    pub(super) fn forget(&mut self, records: &Records) {
        self.times.clear();
        for record in records.topics.values().flatten().filter(|record| record.raw.is_none()) {
            *self.times.entry(record.message.clone()).or_default() += 1;
        }
    }
}
