//! What was answered `OK published` is in the log, with that id at that offset, for good; but for
//! what a power cut may take with `fsync = interval` or `never`.

use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    if view.is_fresh {
        view.records.all_back()?;
        return view.ledger.published.keys().try_for_each(|message| is_there(view, message));
    }
    let fresh = view.ledger.fresh_published.iter();
    // It may have been lost again, as it may be, before anybody looked.
    let mut fresh = fresh.filter(|message| view.ledger.published.contains_key(*message));
    fresh.try_for_each(|message| is_there(view, message))
}

fn is_there(view: &View<'_>, message: &str) -> Result<(), String> {
    let (place, _) = &view.ledger.published[message];
    let index = usize::try_from(place.offset - 1).map_err(|e| e.to_string())?;
    let found = view.records.topics.get(&place.topic).and_then(|records| records.get(index));
    match found {
        Some(record) if record.message == message && record.id == place.id => Ok(()),
        // A full disk may hold back the line; the write-ahead log has the message.
        None if !view.is_fresh && view.node.settings.gate.refusal().is_some() => Ok(()),
        Some(record) => {
            let (id, there) = (&record.id, &record.message);
            Err(format!("{message} was answered OK as {place:?}, and there is {id} {there}"))
        }
        None => Err(format!("{message} was answered OK as {place:?}, and is not there")),
    }
}
