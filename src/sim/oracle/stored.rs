//! What is stored was sent, to that topic, was not refused, and is there once.

use std::collections::BTreeSet;

use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    for (topic, at) in &view.records.fresh {
        let record = &view.records.topics[topic][*at];
        if record.raw.is_some() {
            continue;
        }
        let message = &record.message;
        if view.ledger.sent.get(message) != Some(topic) {
            return Err(format!("{topic} {} holds {message}, which was not sent there", at + 1));
        }
        if view.ledger.refused.contains(message) {
            return Err(format!("{message} was refused, and is stored"));
        }
    }
    if view.is_fresh {
        for (topic, records) in &view.records.topics {
            let mut seen = BTreeSet::new();
            for record in records.iter().filter(|record| record.raw.is_none()) {
                if !seen.insert(&record.message) {
                    return Err(format!("{topic} holds {} twice", record.message));
                }
            }
        }
    }
    Ok(())
}
