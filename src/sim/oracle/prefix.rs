//! After a start the daemon is where the first so many records of the log bring it, whatever a crash
//! left of the disk: no message, no group and no acknowledgement more or less. If only the process
//! had died, those are all that were written.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Offset;

use super::View;

pub(super) fn check(view: &View<'_>) -> Result<(), String> {
    let Some(ended) = view.ended else { return Ok(()) };
    let last = view.node.last_written();
    if view.journal.last() < last {
        return Err(format!("the log ends at record {last}, and {} were written", {
            view.journal.last()
        }));
    }
    if !ended.is_cut && last < ended.last {
        let written = ended.last;
        return Err(format!(
            "the process died, and the log ends at record {last} of {written} that were written"
        ));
    }
    let state = view.journal.state();
    let mut ends = BTreeMap::new();
    let mut groups = BTreeSet::new();
    for topic in view.node.shards.iter().flat_map(|shard| shard.topics()) {
        let name = topic.name().as_str();
        let end = topic.log().end().get();
        if end > 0 {
            ends.insert(name.to_owned(), end);
        }
        for (group, progress) in topic.progress() {
            let key = (name.to_owned(), group.as_str().to_owned());
            let what = format!("group {group} of {name}");
            let Some(written) = state.groups.get(&key) else {
                return Err(format!("{what} is there, and the log does not create it"));
            };
            for offset in written.start + 1..=end {
                let (is, was) =
                    (progress.is_settled(Offset::new(offset)), written.settled.contains(&offset));
                if is != was {
                    return Err(format!(
                        "{what}: message {offset}: settled is {is}, and by the log {was}"
                    ));
                }
            }
            groups.insert(key);
        }
    }
    if ends != state.ends {
        return Err(format!("the topics end at {ends:?}, and by the log at {:?}", state.ends));
    }
    match state.groups.keys().find(|key| !groups.contains(*key)) {
        Some((topic, group)) => {
            Err(format!("the log creates group {group} of {topic}: it is gone"))
        }
        None => Ok(()),
    }
}
