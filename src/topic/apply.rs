//! From committed commands to state: no clock, no randomness, no order of a hash map.

use bytes::Bytes;

use crate::delivery::{Change, Event, Progress};
use crate::ids::{DerivedId, GroupName, Offset, TopicName};
use crate::log::{Chunk, LogError, NewRecord};
use crate::proto::{Body, MessageLine};
use crate::time::Timestamp;

use super::{Desk, GroupKey, Topic};

/// Ready lines of the messages of the batch that is being applied.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    first: Offset,
    lines: Vec<u8>,
    ends: Vec<u32>,
}

impl Topic {
    /// Appends a message. It is in its file, and seen by readers, after [`Topic::flush`].
    pub fn append(&mut self, ts: Timestamp, id: &str, extra: &str, message: &[u8]) -> Offset {
        let given = (!id.is_empty()).then_some(id);
        let offset = self.log.append(&NewRecord { ts, id: given, message, extra });
        if self.is_read() && !self.name.is_dead_letter() {
            self.fresh.add(&self.name, self.tag, ts, given, offset, message);
        } else {
            // Lines that could not be written yet may be noted there, and one is not: whoever begins to
            // read now reads them from the file.
            self.fresh.clear();
        }
        offset
    }

    /// Creates a group behind the present end of the topic, unless it exists.
    pub fn create_group(&mut self, name: &GroupName) -> GroupKey {
        self.group_key(name).unwrap_or_else(|| {
            let progress = Progress::starting_at(self.log.end().next());
            self.insert_group(name.clone(), progress)
        })
    }

    /// Applies a committed change of a group, and does what the group then asks for.
    ///
    /// # Errors
    /// As for [`Topic::tell`].
    pub fn change(
        &mut self,
        key: GroupKey,
        change: &Change,
        desk: &mut Desk<'_>,
    ) -> Result<(), LogError> {
        match change {
            Change::Settled { offset } | Change::DeadLettered { offset, .. } => {
                desk.given.remove(self.key, key, *offset..=*offset);
            }
            Change::Failed { .. } => {}
        }
        self.tell(key, Event::Committed(change), desk)?;
        Ok(())
    }

    /// Applies that messages of a group were acknowledged, one behind the other.
    ///
    /// # Errors
    /// As for [`Topic::tell`].
    pub fn settle(
        &mut self,
        key: GroupKey,
        first: Offset,
        count: u32,
        desk: &mut Desk<'_>,
    ) -> Result<(), LogError> {
        let last = Offset::new(first.get() + u64::from(count)).prev();
        desk.given.remove(self.key, key, first..=last);
        self.tell(key, Event::Settled { first, count }, desk)?;
        Ok(())
    }

    /// Ends the active segment of its log.
    pub fn seal(&mut self) {
        self.log.seal();
    }

    /// Its log begins with `first`, or with the segment that has it.
    ///
    /// # Errors
    /// As for [`Topic::flush`].
    pub fn trim(&mut self, first: Offset) -> Result<(), LogError> {
        self.log.trim(first)
    }

    /// Writes what was appended to the file and lets readers see it. Returns whether there was any.
    ///
    /// # Errors
    /// What writing says. The appended records are kept for another try.
    pub fn flush(&mut self) -> Result<bool, LogError> {
        let end = self.log.shared().end();
        self.log.flush()?;
        if let Some(chunk) = self.fresh.take() {
            self.log.tail().push(chunk);
        }
        Ok(self.log.end() > end)
    }

    /// Tells the groups that have members where the log ends now.
    ///
    /// # Errors
    /// As for [`Topic::tell`].
    pub fn announce(&mut self, desk: &mut Desk<'_>) -> Result<(), LogError> {
        if self.members == 0 {
            return Ok(());
        }
        // Nobody can read what could not be written yet.
        let end = self.log.shared().end();
        for key in self.group_keys() {
            if self.groups[key.0].group.members() > 0 {
                self.tell(key, Event::LogEnd { end }, desk)?;
            }
        }
        Ok(())
    }
}

impl Fresh {
    fn add(
        &mut self,
        topic: &TopicName,
        tag: u32,
        ts: Timestamp,
        id: Option<&str>,
        offset: Offset,
        message: &[u8],
    ) {
        if self.ends.is_empty() {
            self.first = offset;
        }
        assert_eq!(offset.get(), self.first.get() + self.ends.len() as u64, "one behind the other");
        let body = Body::Message(message);
        let out = &mut self.lines;
        match id {
            Some(id) => MessageLine { topic, id, offset, ts, body }.write_msg(out),
            None => {
                let id = DerivedId::new(tag, offset, ts);
                MessageLine { topic, id, offset, ts, body }.write_msg(out);
            }
        }
        self.ends.push(u32::try_from(self.lines.len()).expect("a batch is far below 4 GiB"));
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.ends.clear();
    }

    fn take(&mut self) -> Option<Chunk> {
        if self.ends.is_empty() {
            return None;
        }
        let lines = Bytes::from(std::mem::take(&mut self.lines));
        Some(Chunk::new(self.first, lines, std::mem::take(&mut self.ends)))
    }
}
