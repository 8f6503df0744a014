//! The one reader of stored messages, for all who read.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::ids::{Offset, TopicName};
use crate::time::Timestamp;

use super::segment::Lines;
use super::shared::LogShared;
use super::{Line, LogError, parse_line, recover};

/// How much is read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// A place in a topic.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    shared: Arc<LogShared>,
    /// The message that comes next.
    next: Offset,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    segment: Offset,
    /// How much of the segment is known to be visible.
    len: u64,
    lines: Lines,
}

impl Reader {
    /// A reader at the first message that is kept.
    pub fn new(disk: Arc<dyn Disk>, shared: Arc<LogShared>) -> Self {
        let next = shared.first();
        Self { disk, shared, next, place: None }
    }

    /// A reader of a directory that no daemon serves. A torn last line is not there for it.
    ///
    /// # Errors
    /// [`LogError`] if the files can't be read.
    pub fn offline(disk: Arc<dyn Disk>, dir: &Path, topic: TopicName) -> Result<Self, LogError> {
        let shared = recover::survey(disk.as_ref(), dir, topic)?;
        Ok(Self::new(disk, Arc::new(shared)))
    }

    /// The log that it reads.
    pub fn shared(&self) -> &Arc<LogShared> {
        &self.shared
    }

    /// Goes to a message. The cost does not depend on how many there are before it.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn seek(&mut self, offset: Offset) -> Result<(), LogError> {
        let offset = offset.max(self.shared.first());
        self.next = offset;
        self.place = None;
        if offset > self.shared.end() {
            return Ok(());
        }
        let segment = self.shared.segment_of(offset);
        let disk = Arc::clone(&self.disk);
        let mut index = self.shared.index(disk.as_ref(), segment)?;
        for attempt in 0..2 {
            let entry = index.before(offset);
            let (from, at) = entry.map_or((segment.first, 0), |entry| (entry.offset, entry.at));
            let mut lines = self.shared.open(disk.as_ref(), segment.first, at, BLOCK_BYTES)?;
            // The index is derived: what it says counts only if the line there agrees.
            let is_right = match lines.next(segment.len)? {
                Some(line) => parse_line(self.shared.topic(), line.bytes)
                    .map_or(at == 0, |record| record.offset == from),
                None => false,
            };
            if !is_right && attempt == 0 {
                index = self.shared.rebuild(disk.as_ref(), segment)?;
                continue;
            }
            // Lines are counted, not read: one that is damaged is still a line.
            let mut here = from.next();
            if offset == from {
                lines = self.shared.open(disk.as_ref(), segment.first, at, BLOCK_BYTES)?;
                here = from;
            }
            while here < offset && lines.next(segment.len)?.is_some() {
                here = here.next();
            }
            self.place = Some(Place { segment: segment.first, len: segment.len, lines });
            break;
        }
        Ok(())
    }

    /// Goes to the first message that is as late as `ts`, or has one as late before it.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn seek_time(&mut self, ts: Timestamp) -> Result<(), LogError> {
        let mut start = self.shared.first();
        for segment in self.shared.segments() {
            if segment.len == 0 {
                continue;
            }
            let index = self.shared.index(self.disk.as_ref(), segment)?;
            match index.before_time(ts) {
                Some(entry) => start = entry.offset,
                None => break,
            }
        }
        self.seek(start)?;
        loop {
            let at = self.next;
            match self.next() {
                Ok(Some(line)) if line.ts >= ts => return self.seek(at),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next message, or `None` at the end: there may be more later.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for a line that is damaged; the next call goes on behind it.
    #[expect(clippy::should_implement_trait, reason = "a line borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Line<'_>>, LogError> {
        if self.next > self.shared.end() || !self.find_place()? {
            return Ok(None);
        }
        let expected = self.next;
        let topic = self.shared.topic();
        let place = self.place.as_mut().expect("it was just found");
        let path = place.lines.path.clone();
        self.next = expected.next();
        let Some(raw) = place.lines.next(place.len)? else { return Ok(None) };
        let at = raw.at;
        let corrupt = |why: String| LogError::Corrupt { topic: topic.clone(), path, at, why };
        match parse_line(topic, raw.bytes) {
            Ok(line) if line.offset == expected => Ok(Some(line)),
            Ok(line) => {
                Err(corrupt(format!("it has offset {} where {expected} belongs", line.offset)))
            }
            Err(error) => Err(corrupt(error.to_string())),
        }
    }

    /// Sees to it that the next line is in the present place; false if there is none.
    fn find_place(&mut self) -> Result<bool, LogError> {
        if self.place.as_ref().is_some_and(|place| place.lines.at < place.len) {
            return Ok(true);
        }
        let segment = self.shared.segment_of(self.next);
        match &mut self.place {
            Some(place) if place.segment == segment.first => place.len = segment.len,
            // One segment is read to its end, and the next one begins.
            _ if segment.first == self.next => {
                let disk = self.disk.as_ref();
                let lines = self.shared.open(disk, segment.first, 0, BLOCK_BYTES)?;
                self.place = Some(Place { segment: segment.first, len: segment.len, lines });
            }
            _ => self.seek(self.next)?,
        }
        Ok(self.place.as_ref().is_some_and(|place| place.lines.at < place.len))
    }
}
