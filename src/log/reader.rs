//! The one reader of stored messages, for all who read.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::ids::{Offset, TopicName};
use crate::limits::INDEX_STRIDE_BYTES;
use crate::time::Timestamp;

use super::index::Index;
use super::record::{Found, Line, parse_line, parse_lost};
use super::segment::Lines;
use super::shared::{LogShared, Segment};
use super::{LogError, recover};

/// How much is read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// A place in a topic.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    shared: Arc<LogShared>,
    /// The topic's.
    tag: u32,
    /// The message that comes next.
    next: Offset,
    place: Option<Place>,
    /// Without a place: where the next message stands, if that is known.
    paused: Option<Paused>,
    /// How much is read at once.
    block_bytes: usize,
    /// It makes no index.
    is_brief: bool,
}

#[derive(Clone, Copy, Debug)]
struct Paused {
    segment: Offset,
    at: u64,
}

#[derive(Debug)]
struct Place {
    segment: Offset,
    /// How much of the segment is known to be visible.
    len: u64,
    /// The last message that it may hold: the next segment begins behind it, whatever follows in the file.
    last: Offset,
    lines: Lines,
}

impl Reader {
    /// A reader at the first message that is kept.
    pub fn new(disk: Arc<dyn Disk>, shared: Arc<LogShared>) -> Self {
        let (tag, next) = (shared.topic().tag(), shared.first());
        let (place, paused) = (None, None);
        Self { disk, shared, tag, next, place, paused, block_bytes: BLOCK_BYTES, is_brief: false }
    }

    /// For a thread that others wait for: it finds its place with a few reads even if there is no index,
    /// and makes none.
    pub fn brief(self) -> Self {
        Self { is_brief: true, ..self }
    }

    /// A reader of a directory that no daemon serves. A torn last line is not there for it. It goes on
    /// if a broker begins to serve it, with what was there: lines that the start of that one makes
    /// again are not there, or damaged, until it has.
    ///
    /// # Errors
    /// [`LogError`] if the files can't be read.
    pub fn offline(disk: Arc<dyn Disk>, dir: &Path, topic: TopicName) -> Result<Self, LogError> {
        let shared = recover::survey(disk.as_ref(), dir, topic)?;
        Ok(Self::new(disk, Arc::new(shared)))
    }

    /// Where the topic begins by now, for a reader of a directory that a broker has begun to serve:
    /// nowhere if it has no file, and zero if that can't be told.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn begins_now(&self) -> Result<Option<Offset>, LogError> {
        recover::begins(self.disk.as_ref(), &self.shared.paths)
    }

    /// The log that it reads.
    pub fn shared(&self) -> &Arc<LogShared> {
        &self.shared
    }

    /// Keeps no file open until the next [`Reader::next`].
    pub fn rest(&mut self) {
        (self.place, self.paused) = (None, None);
    }

    /// Keeps nothing but its place, and goes on from there with blocks of this size: that costs
    /// opening the file and reading a block again.
    pub fn pause(&mut self, block_bytes: usize) {
        self.block_bytes = block_bytes;
        if let Some(Place { segment, lines, .. }) = self.place.take() {
            self.paused = Some(Paused { segment, at: lines.at });
        }
    }

    /// Whether it has a file open, and a block of it in memory.
    pub fn is_open(&self) -> bool {
        self.place.is_some()
    }

    /// Goes to a message. The cost does not depend on how many there are before it.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn seek(&mut self, offset: Offset) -> Result<(), LogError> {
        self.next = offset;
        self.rest();
        if offset > self.shared.end() || offset < self.shared.first() {
            return Ok(());
        }
        let segment = self.shared.segment_of(offset);
        let (mut here, at) = match self.is_brief {
            true => self.between(segment, offset)?,
            false => self.indexed(segment, offset)?,
        };
        let mut lines = self.lines(segment, at)?;
        // Lines are counted, not read: one that is damaged is still a line.
        while here < offset && lines.next(segment.len)?.is_some() {
            here = here.next();
        }
        let counted = lines.at;
        if !self.is_at(&mut lines, segment.len, offset)? {
            // A line end was lost or came to it. Else the line itself is damaged, and counted right
            // unless that is beyond what comes after it.
            let found = match self.look_for(segment, at, offset)? {
                Some((found, at)) if found == offset => at,
                Some((_, behind)) => behind.min(counted),
                None => counted,
            };
            lines = self.lines(segment, found)?;
        }
        self.place = Some(self.place(segment, lines));
        Ok(())
    }

    fn place(&self, segment: Segment, lines: Lines) -> Place {
        let last = self.shared.last_of(segment.first);
        Place { segment: segment.first, len: segment.len, last, lines }
    }

    /// The lines of a segment from a position on.
    fn lines(&self, segment: Segment, at: u64) -> Result<Lines, LogError> {
        self.shared.open(self.disk.as_ref(), segment.first, at, self.block_bytes)
    }

    /// A message at or before `offset`, and where it stands: from the index, which is made if there is
    /// none.
    fn indexed(&self, segment: Segment, offset: Offset) -> Result<(Offset, u64), LogError> {
        let disk = self.disk.as_ref();
        let entry = |index: &Index| index.before(offset).map(|entry| (entry.offset, entry.at));
        let index = self.shared.index(disk, segment, |index| entry(index).is_some())?;
        let start = (segment.first, 0);
        let found = entry(&index).unwrap_or(start);
        if self.is_there(segment, found)? {
            return Ok(found);
        }
        Ok(entry(&self.shared.rebuild(disk, segment)?).unwrap_or(start))
    }

    /// The same by what is at hand of an index, and by looking at lines in the middle of what is left, each
    /// of which says which message it is.
    fn between(&self, segment: Segment, offset: Offset) -> Result<(Offset, u64), LogError> {
        let (before, behind) = self.shared.around(self.disk.as_ref(), segment, offset);
        let mut low = before.map_or((segment.first, 0), |entry| (entry.offset, entry.at));
        let mut high = behind.map_or(segment.len, |entry| entry.at.min(segment.len));
        if !self.is_there(segment, low)? {
            (low, high) = ((segment.first, 0), segment.len);
        }
        while high > low.1 + 2 * INDEX_STRIDE_BYTES {
            let middle = low.1.midpoint(high);
            match self.good_line(segment, middle, high)? {
                Some(found) if found.0 <= offset => low = found,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Whether what an index says is so. It is derived: it counts only if the line there agrees. The first
    /// line of a segment is where it is, whatever became of it.
    fn is_there(&self, segment: Segment, (offset, at): (Offset, u64)) -> Result<bool, LogError> {
        let mut lines = self.lines(segment, at)?;
        let Some(line) = lines.next(segment.len)? else { return Ok(false) };
        let record = parse_line(self.shared.topic(), line.bytes);
        Ok(record.map_or(at == 0, |record| record.offset == offset))
    }

    /// The first good line that begins at a position or soon behind it. What is left there of another is
    /// none.
    fn good_line(
        &self,
        segment: Segment,
        at: u64,
        end: u64,
    ) -> Result<Option<(Offset, u64)>, LogError> {
        let block = usize::try_from(INDEX_STRIDE_BYTES).expect("it is small");
        let mut lines = self.shared.open(self.disk.as_ref(), segment.first, at, block)?;
        while lines.at < end.min(at + INDEX_STRIDE_BYTES)
            && let Some(line) = lines.next(segment.len)?
        {
            if let Ok(record) = parse_line(self.shared.topic(), line.bytes) {
                return Ok(Some((record.offset, line.at)));
            }
        }
        Ok(None)
    }

    /// Whether the next line is this message; the lines then stand before it still.
    fn is_at(&self, lines: &mut Lines, len: u64, offset: Offset) -> Result<bool, LogError> {
        let Some(line) = lines.next(len)? else { return Ok(false) };
        let at = line.at;
        let parsed = parse_line(self.shared.topic(), line.bytes);
        let is_it = parsed.is_ok_and(|record| record.offset == offset);
        if is_it {
            lines.step_back(at);
        }
        Ok(is_it)
    }

    /// Reads a segment from `from` on for a message, or the first one that is in its place behind it;
    /// gives which and where. Nothing is read beyond that: who waits for it waits no longer than damage
    /// is long.
    fn look_for(
        &self,
        segment: Segment,
        from: u64,
        offset: Offset,
    ) -> Result<Option<(Offset, u64)>, LogError> {
        let mut lines = self.lines(segment, from)?;
        while let Some(line) = lines.next(segment.len)? {
            if let Some(found) =
                offset_of(self.shared.topic(), line.bytes).filter(|found| *found >= offset)
            {
                return Ok(Some((found, line.at)));
            }
        }
        Ok(None)
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
            let knows = |index: &Index| index.before_time(ts).is_some();
            let index = self.shared.index(self.disk.as_ref(), segment, knows)?;
            match index.before_time(ts) {
                Some(entry) => start = entry.offset,
                None => break,
            }
        }
        self.seek(start)?;
        loop {
            let at = self.next;
            match self.next() {
                Ok(Some(line)) if line.ts() >= ts => return self.seek(at),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) if error.is_damage() => {}
                Err(LogError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next message, or `None` at the end: there may be more later.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for a message that is damaged or missing; the next call goes on with
    /// the one after it. [`LogError::Gone`] if it is no longer kept; the next call gives the first
    /// that is.
    #[expect(clippy::should_implement_trait, reason = "a line borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Line<'_>>, LogError> {
        if self.next > self.shared.end() {
            return Ok(None);
        }
        let found = if self.find_place()? { self.check()? } else { self.pass_short_file()? };
        let Some(found) = found else { return Ok(None) };
        let place = self.place.as_ref().expect("its line was just found good");
        Ok(found.line(place.lines.last()).ok())
    }

    /// Reads the next line and looks whether it is the expected message; passes by what is damaged.
    /// `None` at the end.
    #[inline]
    fn check(&mut self) -> Result<Option<Found>, LogError> {
        let expected = self.next;
        let place = self.place.as_mut().expect("it was just found");
        let Some(raw) = place.lines.next(place.len)? else { return self.pass_short_file() };
        let at = raw.at;
        let why = match Found::in_line(self.tag, raw.bytes) {
            Ok(found) if found.offset == expected => {
                self.next = expected.next();
                return Ok(Some(found));
            }
            Ok(found) => format!("offset {} stands here", found.offset),
            Err(error) => error.to_string(),
        };
        // The file may just be on its way out.
        if expected < self.shared.first() {
            return self.ensure_kept().map(|()| None);
        }
        let is_lost = parse_lost(raw.bytes) == Some(expected);
        let (path, topic) = (place.lines.path.clone(), self.shared.topic().clone());
        if is_lost {
            self.next = expected.next();
        } else {
            self.pass_damage(at)?;
        }
        Err(LogError::Corrupt { topic, offset: expected, path, at, why })
    }

    /// The segment's file has less than was visible: what is missing of it is damaged, and the next
    /// segment goes on.
    fn pass_short_file(&mut self) -> Result<Option<Found>, LogError> {
        let Some(place) = self.place.take() else { return Ok(None) };
        let offset = self.next;
        if self.shared.segment_of(offset).first != place.segment {
            return if self.find_place()? { self.check() } else { Ok(None) };
        }
        self.next = offset.next();
        let (topic, path) = (self.shared.topic().clone(), place.lines.path);
        let why = "the file ends too early".to_owned();
        Err(LogError::Corrupt { topic, offset, path, at: place.lines.at, why })
    }

    /// Goes from a line that is not the expected one to the next that is in its place, however many
    /// line ends were lost or came to it. The messages between count as damaged, one by one.
    fn pass_damage(&mut self, at: u64) -> Result<(), LogError> {
        let expected = self.next;
        let topic = self.shared.topic();
        let place = self.place.as_mut().expect("it gave the line");
        place.lines.step_back(at);
        while let Some(raw) = place.lines.next(place.len)? {
            let at = raw.at;
            let offset = offset_of(topic, raw.bytes).unwrap_or_default();
            if offset >= expected {
                place.lines.step_back(at);
                // A line too many costs no message, and one too few costs those that it held.
                self.next = if offset == expected { expected } else { expected.next() };
                return Ok(());
            }
        }
        self.next = expected.next();
        Ok(())
    }

    /// Goes to the first message that is kept, and says so, if the next one comes before it.
    fn ensure_kept(&mut self) -> Result<(), LogError> {
        let (offset, first) = (self.next, self.shared.first());
        if offset >= first {
            return Ok(());
        }
        self.rest();
        self.next = first;
        Err(LogError::Gone { topic: self.shared.topic().clone(), offset, first })
    }

    /// Sees to it that the next line is in the present place; false if there is none.
    fn find_place(&mut self) -> Result<bool, LogError> {
        let has_more = |place: &Place| place.lines.at < place.len && self.next <= place.last;
        if self.place.as_ref().is_some_and(has_more) {
            return Ok(true);
        }
        self.ensure_kept()?;
        let segment = self.shared.segment_of(self.next);
        if let Some(Paused { segment: first, at }) = self.paused.take()
            && first == segment.first
        {
            let lines = self.shared.open(self.disk.as_ref(), first, at, self.block_bytes)?;
            self.place = Some(self.place(segment, lines));
            return Ok(at < segment.len);
        }
        match &mut self.place {
            Some(place) if place.segment == segment.first => {
                place.len = segment.len;
                place.last = self.shared.last_of(segment.first);
            }
            // One segment is read to its end, and the next one begins.
            _ if segment.first == self.next => {
                let disk = self.disk.as_ref();
                let lines = self.shared.open(disk, segment.first, 0, self.block_bytes)?;
                self.place = Some(self.place(segment, lines));
            }
            _ => {
                self.seek(self.next)?;
                if self.place.is_none() {
                    // It has been given up since.
                    return self.find_place();
                }
            }
        }
        Ok(self.place.as_ref().is_some_and(|place| place.lines.at < place.len))
    }
}

/// Which message a line is, or says to be lost; `None` if it is damaged.
fn offset_of(topic: &TopicName, line: &[u8]) -> Option<Offset> {
    let parsed = parse_line(topic, line);
    parsed.map(|record| record.offset).ok().or_else(|| parse_lost(line))
}
