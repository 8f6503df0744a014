//! What readers on other threads see of a topic's log.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{self, Disk, File, Open};
use crate::ids::{Offset, TopicName};
use crate::limits::INDEX_SAVED_MIN;
use crate::time::Timestamp;

use super::index::{Entry, Index};
use super::segment::{Lines, Paths};
use super::{LogError, Tail, TailBudget, parse_line};

/// Block size for building an index.
const SCAN_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct LogShared {
    pub(super) paths: Paths,
    tail: Tail,
    first: AtomicU64,
    end: AtomicU64,
    map: Mutex<Map>,
    /// The active segment, for a reader of a directory in which a broker may begin to work: it stays
    /// what it is when that one seals it or makes it anew.
    active: Option<Arc<dyn File>>,
}

/// The segments, and the index of the active one.
#[derive(Debug)]
struct Map {
    segments: Vec<Segment>,
    active: Known,
}

/// What is known of the index of the active segment.
#[derive(Clone, Default, Debug)]
pub(super) struct Known {
    pub(super) index: Index,
    /// If not, entries may be missing before the first: the segment was begun in an earlier life. They
    /// are in its file, or found by reading the segment, when somebody needs them.
    pub(super) is_whole: bool,
    /// So many entries are in its file. With none, the file may be of an earlier life.
    saved: usize,
}

impl Known {
    fn whole(index: Index) -> Self {
        Self { index, is_whole: true, saved: 0 }
    }
}

/// What the file of an index does not have yet.
#[derive(Debug)]
pub(super) enum Unsaved {
    /// These entries of a segment, which stand there in the file, in bytes.
    Entries { segment: Offset, at: u64, entries: Vec<u8> },
    /// What there is of the active segment since a life before this one.
    Active,
    /// All before these entries of a sealed segment, and they.
    Before { segment: Offset, later: Index },
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) first: Offset,
    /// Visible bytes.
    pub(super) len: u64,
    pub(super) is_active: bool,
}

impl LogShared {
    /// A log with these segments, the last of which is the active one. Without its index, that will have
    /// what is written from now on.
    pub(super) fn new(
        paths: Paths,
        budget: Arc<TailBudget>,
        segments: Vec<(Offset, u64)>,
        end: Offset,
        active_index: Option<Index>,
    ) -> Self {
        let last = segments.len().saturating_sub(1);
        let segment = |(at, (first, len)): (usize, (Offset, u64))| Segment {
            first,
            len,
            is_active: at == last,
        };
        let segments: Vec<_> = segments.into_iter().enumerate().map(segment).collect();
        let first = segments.first().map_or(Offset::FIRST, |segment| segment.first);
        Self {
            paths,
            tail: Tail::new(budget),
            first: AtomicU64::new(first.get()),
            end: AtomicU64::new(end.get()),
            map: Mutex::new(Map {
                segments,
                active: active_index.map_or_else(Known::default, Known::whole),
            }),
            active: None,
        }
    }

    /// The same, with this as its active segment whatever has the name later.
    pub(super) fn with_active(self, active: Option<Arc<dyn File>>) -> Self {
        Self { active, ..self }
    }

    /// The topic.
    pub fn topic(&self) -> &TopicName {
        &self.paths.topic
    }

    /// The oldest message that is kept, or would be.
    pub fn first(&self) -> Offset {
        Offset::new(self.first.load(Ordering::Acquire))
    }

    /// The newest message that can be read.
    pub fn end(&self) -> Offset {
        Offset::new(self.end.load(Ordering::Acquire))
    }

    /// Ready lines of recent messages.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More was written to the active segment.
    pub(super) fn grew(&self, len: u64, end: Offset, notes: &mut Vec<Entry>) {
        let mut map = self.map();
        map.segments.last_mut().expect("there is always an active one").len = len;
        notes.drain(..).for_each(|entry| map.active.index.note(entry));
        drop(map);
        self.end.store(end.get(), Ordering::Release);
    }

    /// The active segment was sealed and has its new name; a new one begins at `next`. Gives what is known
    /// of its index.
    pub(super) fn rolled(&self, next: Offset) -> Known {
        let mut map = self.map();
        map.segments.last_mut().expect("there is always an active one").is_active = false;
        map.segments.push(Segment { first: next, len: 0, is_active: true });
        std::mem::replace(&mut map.active, Known::whole(Index::default()))
    }

    /// Forgets the sealed segments whose messages are all before `first`; gives what they began with, and how
    /// long they are.
    pub(super) fn trim(&self, first: Offset) -> Vec<(Offset, u64)> {
        let mut map = self.map();
        let kept = map.segments.partition_point(|segment| segment.first <= first).max(1) - 1;
        let trimmed = map.segments.drain(..kept);
        let trimmed = trimmed.map(|segment| (segment.first, segment.len)).collect();
        self.first.store(map.segments[0].first.get(), Ordering::Release);
        trimmed
    }

    /// What is known of a segment's index, if it is the active one.
    fn known(&self, segment: Offset) -> Option<Known> {
        let map = self.map();
        let active = map.segments.last().filter(|active| active.first == segment);
        active.map(|_| map.active.clone())
    }

    /// What the file of the active segment's index does not have yet, if that would be of use: thousands
    /// of topics that get a message now and then have thousands of such files.
    pub(super) fn take_unsaved(&self) -> Option<Unsaved> {
        let mut map = self.map();
        let segment = map.segments.last().expect("there is always an active one").first;
        let Known { index, is_whole, saved } = &mut map.active;
        if index.count() < *saved + INDEX_SAVED_MIN {
            return None;
        }
        if !*is_whole {
            return Some(Unsaved::Active);
        }
        let (at, entries) = index.behind(*saved);
        *saved = index.count();
        Some(Unsaved::Entries { segment, at, entries })
    }

    /// Saves that. It is derived: if that fails, nothing is lost.
    pub(super) fn save(&self, disk: &dyn Disk, unsaved: Unsaved) {
        match unsaved {
            Unsaved::Entries { segment, at, entries } => {
                let path = self.paths.index(segment);
                if let Err(error) = self.write_entries(disk, &path, at, &entries) {
                    not_saved(&path, &error);
                    self.map().active.saved = 0;
                }
            }
            Unsaved::Active => {
                let segment = *self.map().segments.last().expect("there is always one");
                match self.index(disk, segment, |_| false) {
                    Ok(_) => match self.take_unsaved() {
                        Some(Unsaved::Active) | None => {}
                        Some(entries) => self.save(disk, entries),
                    },
                    Err(error) => not_saved(&self.paths.index(segment.first), &error),
                }
            }
            Unsaved::Before { segment, later } => {
                let Some(segment) = self.segment(segment) else { return };
                if let Err(error) = self.complete(disk, segment, &later) {
                    not_saved(&self.paths.index(segment.first), &error);
                }
            }
        }
    }

    /// Writes entries into a file; with the first ones it begins anew.
    fn write_entries(
        &self,
        disk: &dyn Disk,
        path: &Path,
        at: u64,
        entries: &[u8],
    ) -> std::io::Result<()> {
        if at == 0 {
            disk.create_dir(&self.paths.index_dir())?;
        }
        let file = disk.open(path, Open::Create)?;
        if at == 0 {
            file.truncate(0)?;
        }
        file.write_at(entries, at)
    }

    /// The segment that holds `offset`, or would.
    pub(super) fn segment_of(&self, offset: Offset) -> Segment {
        let map = self.map();
        let at = map.segments.partition_point(|segment| segment.first <= offset);
        map.segments[at.max(1) - 1]
    }

    /// The last message that the segment beginning with `first` may hold: the next one begins behind it.
    pub(super) fn last_of(&self, first: Offset) -> Offset {
        let map = self.map();
        let next = map.segments.partition_point(|segment| segment.first <= first);
        map.segments.get(next).map_or(Offset::new(u64::MAX), |next| next.first.prev())
    }

    /// The segment that begins with `first`, as it is now, if it is kept.
    fn segment(&self, first: Offset) -> Option<Segment> {
        Some(self.segment_of(first)).filter(|segment| segment.first == first)
    }

    fn is_active(&self, first: Offset) -> bool {
        self.segment(first).is_some_and(|segment| segment.is_active)
    }

    /// All segments, oldest first.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.map().segments.clone()
    }

    /// Where segments begin, oldest first.
    #[cfg(any(test, feature = "sim"))]
    pub fn begins(&self) -> Vec<Offset> {
        self.map().segments.iter().map(|segment| segment.first).collect()
    }

    /// Opens a segment for reading, whether it is being sealed at this moment or not, or no longer kept. A
    /// file that somebody removed reads as an empty one: its messages are damaged, those behind it are not.
    pub(super) fn open(
        &self,
        disk: &dyn Disk,
        first: Offset,
        at: u64,
        block_bytes: usize,
    ) -> Result<Lines, LogError> {
        loop {
            let is_active = self.is_active(first);
            let path = if is_active { self.paths.active() } else { self.paths.sealed(first) };
            if let Some(active) = self.active.as_ref().filter(|_| is_active) {
                return Ok(Lines::new(Arc::clone(active), &path, at, block_bytes));
            }
            match disk.open(&path, Open::Read) {
                // If it is still the active one, it was when it was opened: the new file gets the
                // name only after the map says that the old one lost it.
                Ok(file) if self.is_active(first) == is_active => {
                    return Ok(Lines::new(file, &path, at, block_bytes));
                }
                Ok(_) => {}
                Err(source) if is_active && !self.is_active(first) => drop(source),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound && is_active => {
                    // The rename came first; the map follows in a moment. A file that is really
                    // gone does not come back as a sealed one.
                    let sealed = self.paths.sealed(first);
                    return match disk.open(&sealed, Open::Read) {
                        Ok(file) => Ok(Lines::new(file, &sealed, at, block_bytes)),
                        Err(_) => Ok(Lines::missing(&path)),
                    };
                }
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Lines::missing(&path));
                }
                Err(source) => return Err(LogError::io(&path, source)),
            }
        }
    }

    /// The index of a segment: from memory, from its file, or by reading the segment once. Of the active
    /// one it may be what is known, if that is enough.
    pub(super) fn index(
        &self,
        disk: &dyn Disk,
        segment: Segment,
        is_enough: impl Fn(&Index) -> bool,
    ) -> Result<Index, LogError> {
        let known = self.known(segment.first);
        if let Some(Known { index, is_whole, .. }) = &known
            && (*is_whole || is_enough(index))
        {
            return Ok(index.clone());
        }
        self.complete(disk, segment, &known.unwrap_or_default().index)
    }

    /// Forgets what the index of a segment says, and makes it again from the segment.
    pub(super) fn rebuild(&self, disk: &dyn Disk, segment: Segment) -> Result<Index, LogError> {
        let mut map = self.map();
        if map.segments.last().is_some_and(|active| active.first == segment.first) {
            map.active = Known::default();
        }
        drop(map);
        let index = self.read(disk, segment, Index::default(), segment.len)?;
        Ok(self.keep(disk, segment, index))
    }

    /// The index of a segment of which the later entries are known: what stands before them is read from
    /// its file, or found by reading the segment.
    fn complete(
        &self,
        disk: &dyn Disk,
        segment: Segment,
        later: &Index,
    ) -> Result<Index, LogError> {
        let end = later.first().map_or(segment.len, |entry| entry.at.min(segment.len));
        let index = self.stored(disk, segment, end);
        let index = self.read(disk, segment, index, end)?.followed_by(later);
        Ok(self.keep(disk, segment, index))
    }

    /// What the file of an index says of a segment up to `end`, if it makes sense. That of an active segment
    /// may end before it.
    fn stored(&self, disk: &dyn Disk, segment: Segment, end: u64) -> Index {
        let bytes = disk::read_all(disk, &self.paths.index(segment.first)).unwrap_or_default();
        let mut stored = Index::from_bytes(&bytes);
        stored.truncate(end);
        if stored.is_plausible(segment.first, end) { stored } else { Index::default() }
    }

    /// The last entry at or before `offset` and the first behind it, as far as they are known without
    /// reading the segment.
    pub(super) fn around(
        &self,
        disk: &dyn Disk,
        segment: Segment,
        offset: Offset,
    ) -> (Option<Entry>, Option<Entry>) {
        let Known { mut index, is_whole, .. } = self.known(segment.first).unwrap_or_default();
        if !is_whole && index.before(offset).is_none() {
            let end = index.first().map_or(segment.len, |entry| entry.at.min(segment.len));
            index = self.stored(disk, segment, end).followed_by(&index);
        }
        (index.before(offset), index.behind_offset(offset))
    }

    /// Reads the segment from the last entry of `index` to `end`, the beginning of a line or the end. What
    /// a line says of itself counts, not how many stand before it: line ends may be lost, or too many.
    fn read(
        &self,
        disk: &dyn Disk,
        segment: Segment,
        mut index: Index,
        end: u64,
    ) -> Result<Index, LogError> {
        let first = Entry { offset: segment.first, at: 0, ts: Timestamp::default() };
        let mut last = index.last().unwrap_or(first);
        let mut lines = self.open(disk, segment.first, last.at, SCAN_BYTES)?;
        while let Some(line) = lines.next(end)? {
            match parse_line(self.topic(), line.bytes) {
                Ok(record)
                    if record.offset >= last.offset
                        && (line.at > 0 || record.offset == first.offset) =>
                {
                    let ts = last.ts.max(record.ts());
                    last = Entry { offset: record.offset, at: line.at, ts };
                    index.note(last);
                }
                // Whatever became of its first line, a segment begins there.
                _ if line.at == 0 => index.note(first),
                _ => {}
            }
        }
        Ok(index)
    }

    /// Keeps an index that was whole when the segment was `segment`: in memory, or in its file if the
    /// segment is sealed.
    fn keep(&self, disk: &dyn Disk, segment: Segment, index: Index) -> Index {
        let mut map = self.map();
        if map.segments.last().is_some_and(|active| active.first == segment.first) {
            // Lines that came meanwhile were noted.
            let index = index.followed_by(&map.active.index);
            map.active = Known::whole(index.clone());
            return index;
        }
        drop(map);
        if !segment.is_active && segment.first >= self.first() {
            save_index(disk, &self.paths, segment.first, &index);
        }
        index
    }
}

/// Writes an index beside its place and renames it. It is derived: if that fails, nothing is lost.
pub(super) fn save_index(disk: &dyn Disk, paths: &Paths, first: Offset, index: &Index) {
    let path = paths.index(first);
    if let Err(error) = write_index(disk, paths, &path, index) {
        not_saved(&path, &error);
    }
}

fn not_saved(path: &Path, error: &dyn std::error::Error) {
    tracing::debug!(event = "index_not_saved", path = %path.display(), "{error}");
}

fn write_index(disk: &dyn Disk, paths: &Paths, path: &Path, index: &Index) -> std::io::Result<()> {
    disk.create_dir(&paths.index_dir())?;
    let temporary = path.with_extension("tmp");
    let file = disk.open(&temporary, Open::Create)?;
    file.truncate(0)?;
    file.write_at(&index.to_bytes(), 0)?;
    disk.rename(&temporary, path)
}
