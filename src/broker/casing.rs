//! Names on a file system that does not tell capital letters from small ones.
//!
//! There `Orders.log` and `orders.log` are the same file, and two topics that both write to it would
//! damage each other. Whoever comes first has the name; a topic that differs from it in capital letters
//! only is refused. Where the file system tells them apart nothing is kept here, and nothing refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;

use crate::disk::{Disk, Open};
use crate::ids::{DEAD_LETTER_SUFFIX, TopicName};
use crate::proto::{ErrorCode, WireError};

use super::layout::Layout;
use super::lock;

/// Who has which name, for all shards of a broker.
#[derive(Debug, Default)]
pub struct Casing {
    /// By the family in small letters: a topic's dead letters have a file, too.
    families: Mutex<HashMap<String, String>>,
}

/// Two topics that would share a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clash {
    /// The family of topics that has the name.
    pub taken: String,
    /// Who wants it.
    pub wanted: TopicName,
}

impl Casing {
    /// For a directory that is locked: none where its file system tells capital letters from small ones.
    pub(super) fn of(disk: &dyn Disk, layout: &Layout) -> Option<Self> {
        // Whether a file that is there is also found by the name of its folder in capital letters.
        disk.open(&layout.data.join(".WIBER").join("LOCK"), Open::Read).ok()?;
        // Somebody may have put another folder there.
        let entries = disk.list(&layout.data).unwrap_or_default();
        let alike = entries.iter().filter(|entry| entry.name.eq_ignore_ascii_case(".wiber"));
        if alike.count() > 1 {
            return None;
        }
        tracing::warn!(event = "case_folded", dir = %layout.data.display(),
            "this file system does not tell capital letters from small ones: topics whose names differ \
             in those only are refused");
        Some(Self::default())
    }

    /// Gives a topic its name, for as long as the broker runs.
    ///
    /// # Errors
    /// [`Clash`]: another one has it.
    pub fn claim(&self, topic: &TopicName) -> Result<(), Clash> {
        let small = topic.as_str().to_ascii_lowercase();
        let small = small.strip_suffix(DEAD_LETTER_SUFFIX).unwrap_or(&small);
        match lock(&self.families).entry(small.to_owned()) {
            Entry::Vacant(free) => {
                free.insert(topic.family().to_owned());
                Ok(())
            }
            Entry::Occupied(taken) if taken.get() == topic.family() => Ok(()),
            Entry::Occupied(taken) => {
                Err(Clash { taken: taken.get().clone(), wanted: topic.clone() })
            }
        }
    }
}

impl Clash {
    /// What whoever asked for the topic is told.
    pub fn refusal(&self) -> WireError {
        let Self { taken, wanted } = self;
        let text = format!(
            "{wanted} would share its file with {taken}: the broker's disk does not tell capital letters \
             from small ones"
        );
        WireError::new(ErrorCode::BadName, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn who_comes_first_has_the_name_and_that_of_its_dead_letters() {
        let casing = Casing::default();
        for fine in
            ["Orders", "Orders", "Orders.dlq", "orders2", "a.dlq", "a", "x.dlq.dlq", "x.dlq"]
        {
            assert_eq!(casing.claim(&topic(fine)), Ok(()), "{fine}");
        }
        let clashes = [
            ("orders", "Orders"),
            ("ORDERS.dlq", "Orders"),
            ("Orders.DLQ", "Orders"),
            ("A", "a"),
            ("X.dlq", "x"),
        ];
        for (wanted, taken) in clashes {
            let wanted = topic(wanted);
            let taken = taken.to_owned();
            assert_eq!(casing.claim(&wanted), Err(Clash { taken, wanted: wanted.clone() }));
        }
    }
}
