//! Messages for one group, as the lines its members get: from the tail cache when the group keeps
//! up, from the files when it is behind.

use std::sync::{Arc, Weak};

use crate::ids::{DerivedId, Offset, TopicName};
use crate::log::{Chunk, Line, LogError, Reader, TopicLog};

use super::decide::raw_number;
use super::lines;

/// Most groups of a shard that keep a file open, and a block of it in memory, from one turn to the
/// next. The others open theirs anew whenever they deliver.
const KEPT_MAX: usize = 64;

/// What those others read at once, in bytes.
const PAUSED_BLOCK_BYTES: usize = 32 << 10;

/// The group's place in the tail cache and in the files.
#[derive(Debug)]
pub(super) struct Feed {
    /// The one that it delivered from last, for as long as the tail cache has it: that alone bounds what
    /// is kept of all topics.
    chunk: Weak<Chunk>,
    reader: Reader,
    /// What the reader will give next.
    next: Offset,
    /// It is one of those that may keep their file open.
    is_kept: bool,
}

/// What groups remember of an id that was given. Milliseconds stay below it.
pub(super) const GIVEN: u64 = u64::MAX;

/// How the id of a message that was handed out leads back to its offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FedId {
    /// By itself; these are its milliseconds.
    Derived(u64),
    /// Only by a table: the id is a prototype's or the publisher's own.
    Given(Box<[u8]>),
}

impl FedId {
    fn read(id: &[u8], tag: u32, offset: Offset) -> Self {
        match DerivedId::parse(id) {
            Some(derived) if derived.tag == tag && derived.offset == offset => {
                Self::Derived(derived.millis)
            }
            _ => Self::Given(id.into()),
        }
    }

    /// What the group remembers of it.
    pub(super) fn mark(&self) -> u64 {
        match self {
            Self::Derived(millis) => *millis,
            Self::Given(_) => GIVEN,
        }
    }
}

/// What a dead letter tells of its original.
#[derive(Debug)]
pub(super) struct Original {
    pub(super) id: String,
    pub(super) ts: Box<serde_json::value::RawValue>,
    pub(super) message: Vec<u8>,
}

impl Default for Original {
    fn default() -> Self {
        Self { id: String::new(), ts: raw_number("0"), message: Vec::new() }
    }
}

impl Feed {
    pub(super) fn new(reader: Reader) -> Self {
        Self { chunk: Weak::new(), reader, next: Offset::ZERO, is_kept: false }
    }

    /// Appends the message's line to `out` and returns its id.
    pub(super) fn write(
        &mut self,
        topic: &TopicName,
        tag: u32,
        log: &TopicLog,
        offset: Offset,
        out: &mut Vec<u8>,
    ) -> Result<FedId, LogError> {
        if let Some(chunk) = self.cached(log, offset) {
            let line = chunk.line(offset);
            out.extend_from_slice(line);
            let id_at = b"MSG ".len() + topic.as_str().len() + 1;
            let id = line[id_at..].split(|b| *b == b' ').next().unwrap_or_default();
            let id = FedId::read(id, tag, offset);
            // Whoever keeps up needs no file.
            self.rest();
            return Ok(id);
        }
        let line = self.stored(offset)?;
        lines::write_msg(out, topic, &line);
        Ok(FedId::read(line.id.as_bytes(), tag, offset))
    }

    /// What a dead letter tells of the message at `offset`.
    pub(super) fn original(&mut self, offset: Offset) -> Result<Original, LogError> {
        let line = self.stored(offset)?;
        Ok(Original {
            id: line.id.to_string(),
            ts: raw_number(line.ts_text),
            message: line.message.to_vec(),
        })
    }

    /// What a group would remember of a message that it has not given out: `None` if it can't be read now,
    /// which is told when it is to be given out.
    pub(super) fn mark(&mut self, tag: u32, log: &TopicLog, offset: Offset) -> Option<u64> {
        if offset > log.shared().end() {
            return None;
        }
        let line = self.stored(offset).ok();
        let mark = line.map(|line| FedId::read(line.id.as_bytes(), tag, offset).mark());
        self.rest();
        mark
    }

    /// Keeps no file open until it is needed again.
    pub(super) fn rest(&mut self) {
        self.reader.rest();
    }

    /// At the end of a turn: closes its file, unless few others of the shard keep theirs open.
    pub(super) fn end_turn(&mut self, kept: &mut usize) {
        match (self.reader.is_open(), self.is_kept) {
            (true, false) if *kept < KEPT_MAX => {
                *kept += 1;
                self.is_kept = true;
            }
            (true, false) => self.reader.pause(PAUSED_BLOCK_BYTES),
            (false, true) => {
                *kept -= 1;
                self.is_kept = false;
            }
            (true, true) | (false, false) => {}
        }
    }

    fn cached(&mut self, log: &TopicLog, offset: Offset) -> Option<Arc<Chunk>> {
        let known = self.chunk.upgrade().filter(|chunk| chunk.holds(offset));
        if known.is_some() {
            return known;
        }
        let found = log.tail().chunk_at(offset);
        self.chunk = found.as_ref().map_or_else(Weak::new, Arc::downgrade);
        found
    }

    fn stored(&mut self, offset: Offset) -> Result<Line<'_>, LogError> {
        // Unless it succeeds, nobody knows where the reader stands.
        if std::mem::take(&mut self.next) != offset {
            self.reader.seek(offset)?;
        }
        match self.reader.next()? {
            Some(line) => {
                self.next = offset.next();
                Ok(line)
            }
            None => unreachable!("a group is told the log's end, and asks only up to it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::Disk;
    use crate::disk::sim::SimDisk;
    use crate::log::{LogSettings, NewRecord, TailBudget};
    use crate::time::Timestamp;

    #[test]
    fn few_groups_keep_a_file_open_and_all_go_on_where_they_were() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        disk.create_dir(Path::new("/data")).unwrap();
        let topic = TopicName::parse(b"chat").unwrap();
        let settings = LogSettings { segment_bytes: 100 };
        let (dir, tail) = (Path::new("/data"), Arc::new(TailBudget::new(0)));
        let mut log = TopicLog::create(disk, dir, topic.clone(), settings, tail);
        for message in [b"one", b"two"] {
            log.append(&NewRecord { ts: Timestamp::default(), id: None, message, extra: "" });
        }
        log.flush().unwrap();
        let mut feeds: Vec<_> = (0..KEPT_MAX + 3).map(|_| Feed::new(log.reader())).collect();
        let mut kept = 0;
        for (offset, message) in [(1, "one"), (2, "two")] {
            for feed in &mut feeds {
                let mut out = Vec::new();
                feed.write(&topic, topic.tag(), &log, Offset::new(offset), &mut out).unwrap();
                assert!(String::from_utf8(out).unwrap().ends_with(&format!(" {message}\n")));
                feed.end_turn(&mut kept);
            }
            assert_eq!(kept, KEPT_MAX);
            let open = |feed: &&Feed| feed.reader.is_open();
            assert_eq!(feeds.iter().filter(open).count(), KEPT_MAX);
        }
        for feed in &mut feeds {
            feed.rest();
            feed.end_turn(&mut kept);
        }
        assert_eq!(kept, 0);
    }

    /// Each group once kept the last chunk that it had delivered from, for as long as it had nothing else
    /// to deliver: a megabyte for each of many topics.
    #[test]
    fn what_the_tail_has_dropped_no_group_keeps() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let topic = TopicName::parse(b"chat").unwrap();
        let settings = LogSettings { segment_bytes: 100 };
        let tail = Arc::new(TailBudget::new(1000));
        let log = TopicLog::create(disk, Path::new("/data"), topic.clone(), settings, tail);
        let push = |offset: u64, message: &str| {
            let line = format!("MSG chat order-{offset} {offset} 0 {message}\n");
            let ends = vec![u32::try_from(line.len()).unwrap()];
            log.tail().push(Chunk::new(Offset::new(offset), line.into(), ends));
        };
        push(1, "one");
        let mut feed = Feed::new(log.reader());
        let mut out = Vec::new();
        feed.write(&topic, topic.tag(), &log, Offset::new(1), &mut out).unwrap();
        assert_eq!(out, b"MSG chat order-1 1 0 one\n");
        let first = Arc::downgrade(&log.tail().chunk_at(Offset::new(1)).unwrap());
        assert!(first.upgrade().is_some(), "there is room for it");
        push(2, &"two".repeat(300));
        assert!(first.upgrade().is_none());
    }
}
