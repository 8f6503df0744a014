//! A dead letter is there once for each message and group, tells all of it, and only of what
//! failed as often as the policy says and was not acknowledged.

use std::collections::BTreeMap;

use super::super::ledger::Unit;
use super::super::node::MAX_RETRIES;
use super::super::records::Records;
use super::View;

/// What was dead-lettered, and how many dead letters stand before it.
#[derive(Default)]
pub(super) struct DeadLetters {
    units: BTreeMap<Unit, (String, usize)>,
}

impl DeadLetters {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        for (topic, at) in &view.records.fresh {
            let record = &view.records.topics[topic][*at];
            let Some(raw) = &record.raw else { continue };
            let letter: serde_json::Value = serde_json::from_str(raw).map_err(|e| e.to_string())?;
            let text = |key: &str| letter[key].as_str().unwrap_or_default().to_owned();
            let offset = letter["original_offset"].as_u64().unwrap_or_default();
            let (from, group) = (text("original_topic"), text("group"));
            let unit = (from.clone(), group.clone(), offset);
            let what = format!("the dead letter of {from} {offset} in {group}");
            if view.ledger.acked.contains_key(&unit) {
                return Err(format!("{what} is of an acknowledged message"));
            }
            if self.units.insert(unit, (topic.clone(), *at)).is_some() {
                return Err(format!("{what} is there twice"));
            }
            let index = usize::try_from(offset).map_err(|e| e.to_string())?;
            let original = view.records.topics.get(&from).and_then(|all| all.get(index - 1));
            let is_same = original.is_some_and(|original| original.message == record.message);
            if !is_same {
                return Err(format!("{what} does not hold the message"));
            }
            let attempts = letter["attempts"].as_array().cloned().unwrap_or_default();
            let counts = |attempt: &&serde_json::Value| {
                matches!(attempt["outcome"].as_str(), Some("timeout" | "nack"))
            };
            let failures = attempts.iter().filter(counts).count();
            // One more each time when the disk did not give the message.
            let is_counted = letter["retry_count"].as_u64() == (failures as u64).checked_sub(1);
            if failures <= MAX_RETRIES as usize || !is_counted {
                return Err(format!("{what} tells of {failures} failures"));
            }
            let numbers = attempts.iter().map(|attempt| attempt["n"].as_u64());
            if !numbers.eq((1..=attempts.len() as u64).map(Some)) {
                return Err(format!("{what} does not tell of every attempt"));
            }
        }
        Ok(())
    }

    /// Whether there is a dead letter of the message.
    pub(super) fn has(&self, unit: &Unit) -> bool {
        self.units.contains_key(unit)
    }

    /// Only these messages are there still.
    pub(super) fn forget(&mut self, records: &Records) {
        let is_there =
            |topic: &String, at: usize| records.topics.get(topic).is_some_and(|all| at < all.len());
        self.units.retain(|_, (topic, at)| is_there(topic, *at));
    }
}
