//! What clients did and were promised.

use std::collections::{BTreeMap, BTreeSet};

/// A message as a group's business: topic, group, offset.
pub(super) type Unit = (String, String, u64);

/// Where a message is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) id: String,
    pub(super) offset: u64,
}

/// The ledger. Every message that is sent is another text, a second try included, so that a text
/// that is stored twice is a mistake of the broker.
#[derive(Default)]
pub(super) struct Ledger {
    /// Sent, answered or not: message → topic.
    pub(super) sent: BTreeMap<String, String>,
    /// Answered `OK published`.
    pub(super) published: BTreeMap<String, Place>,
    /// Answered with a refusal.
    pub(super) refused: BTreeSet<String>,
    /// Acknowledgements that were sent, answered or not.
    pub(super) acks_sent: BTreeSet<Unit>,
    /// Answered `OK ack_received`.
    pub(super) acked: BTreeSet<Unit>,
    /// Of `published`, those since the oracles last looked.
    pub(super) fresh_published: Vec<String>,
    /// Of `acked`, those since the oracles last looked.
    pub(super) fresh_acked: Vec<Unit>,
}

impl Ledger {
    pub(super) fn publish(&mut self, message: &str, place: Place) -> Result<(), String> {
        if let Some(before) = self.published.insert(message.to_owned(), place) {
            return Err(format!("{message} was answered OK twice, first at {before:?}"));
        }
        self.fresh_published.push(message.to_owned());
        Ok(())
    }

    pub(super) fn ack(&mut self, unit: Unit) {
        self.acked.insert(unit.clone());
        self.fresh_acked.push(unit);
    }
}
