//! What was answered `OK published` is in the log, with that id at that offset, for good; but for
//! what a power cut may take with `fsync = interval` or `never`. Lines that wait to be written may come
//! later.

use std::collections::BTreeSet;

use crate::ids::TopicName;

use super::View;

/// What it remembers.
#[derive(Default)]
pub(super) struct Published {
    /// Messages whose lines waited when they were looked for.
    late: BTreeSet<String>,
}

impl Published {
    pub(super) fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        let published = &view.ledger.published;
        if view.is_fresh {
            self.late.clear();
            view.records.all_back()?;
            return published.keys().try_for_each(|message| is_there(view, message).map(drop));
        }
        let mut wanted = std::mem::take(&mut self.late);
        wanted.extend(view.ledger.fresh_published.iter().cloned());
        // It may have been lost again, as it may be, before anybody looked.
        wanted.retain(|message| published.contains_key(message));
        for message in wanted {
            if !is_there(view, &message)? {
                self.late.insert(message);
            }
        }
        Ok(())
    }
}

/// False if its line waits.
fn is_there(view: &View<'_>, message: &str) -> Result<bool, String> {
    let (place, _) = &view.ledger.published[message];
    let index = usize::try_from(place.offset - 1).map_err(|e| e.to_string())?;
    let found = view.records.topics.get(&place.topic).and_then(|records| records.get(index));
    match found {
        Some(record) if record.message == message && record.id == place.id => Ok(true),
        // A full disk may hold back the line; the write-ahead log has the message.
        None if !view.is_fresh && view.node.settings.gate.refusal().is_some() => Ok(true),
        None if !view.is_fresh && is_late(view, &place.topic) => Ok(false),
        Some(record) => {
            let (id, there) = (&record.id, &record.message);
            Err(format!("{message} was answered OK as {place:?}, and there is {id} {there}"))
        }
        None => Err(format!("{message} was answered OK as {place:?}, and is not there")),
    }
}

fn is_late(view: &View<'_>, topic: &str) -> bool {
    let topic = TopicName::parse(topic.as_bytes());
    topic.is_ok_and(|topic| view.node.shards.iter().any(|shard| shard.is_late(&topic)))
}
