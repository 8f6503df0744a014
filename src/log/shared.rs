//! What readers on other threads see of a topic's log.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{self, Disk, File, Open};
use crate::ids::{Offset, TopicName};
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
    /// `None` until somebody needs it.
    active_index: Option<Index>,
    /// So many of its entries are in its file. With none, the file may be of an earlier life.
    saved: usize,
}

/// Entries of the active segment's index that are not in its file.
#[derive(Debug)]
pub(super) struct Unsaved {
    segment: Offset,
    /// Where they stand in the file, in bytes.
    at: u64,
    entries: Vec<u8>,
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
    /// A log with these segments, the last of which is the active one.
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
            map: Mutex::new(Map { segments, active_index, saved: 0 }),
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
        match &mut map.active_index {
            Some(index) => notes.drain(..).for_each(|entry| index.note(entry)),
            None => notes.clear(),
        }
        drop(map);
        self.end.store(end.get(), Ordering::Release);
    }

    /// The active segment was sealed and has its new name; a new one begins at `next`.
    pub(super) fn rolled(&self, next: Offset) -> Option<Index> {
        let mut map = self.map();
        map.segments.last_mut().expect("there is always an active one").is_active = false;
        map.segments.push(Segment { first: next, len: 0, is_active: true });
        map.saved = 0;
        map.active_index.replace(Index::default())
    }

    /// A copy of the active segment's index, if anybody needed it yet.
    fn active_index(&self) -> Option<Index> {
        self.map().active_index.clone()
    }

    /// What the file of the active segment's index does not have yet, if that would be of use: thousands
    /// of topics that get a message now and then have thousands of such files.
    pub(super) fn take_unsaved(&self) -> Option<Unsaved> {
        let mut map = self.map();
        let index = map.active_index.as_ref()?;
        // That the segment begins with its first line is known.
        if index.count() <= map.saved.max(1) {
            return None;
        }
        let (at, entries) = index.behind(map.saved);
        let segment = map.segments.last().expect("there is always an active one").first;
        map.saved = index.count();
        Some(Unsaved { segment, at, entries })
    }

    /// Saves that. It is derived: if that fails, nothing is lost.
    pub(super) fn save(&self, disk: &dyn Disk, unsaved: &Unsaved) {
        let path = self.paths.index(unsaved.segment);
        if let Err(error) = self.append_index(disk, &path, unsaved) {
            tracing::debug!(event = "index_not_saved", path = %path.display(), "{error}");
            self.map().saved = 0;
        }
    }

    fn append_index(&self, disk: &dyn Disk, path: &Path, unsaved: &Unsaved) -> std::io::Result<()> {
        if unsaved.at == 0 {
            disk.create_dir(&self.paths.index_dir())?;
        }
        let file = disk.open(path, Open::Create)?;
        if unsaved.at == 0 {
            file.truncate(0)?;
        }
        file.write_at(&unsaved.entries, unsaved.at)
    }

    /// The segment that holds `offset`, or would.
    pub(super) fn segment_of(&self, offset: Offset) -> Segment {
        let map = self.map();
        let at = map.segments.partition_point(|segment| segment.first <= offset);
        map.segments[at.max(1) - 1]
    }

    /// The segment that begins with `first`, as it is now.
    pub(super) fn segment(&self, first: Offset) -> Segment {
        self.segment_of(first)
    }

    /// All segments, oldest first.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.map().segments.clone()
    }

    /// Opens a segment for reading, whether it is being sealed at this moment or not. A file that
    /// somebody removed reads as an empty one: its messages are damaged, those behind it are not.
    pub(super) fn open(
        &self,
        disk: &dyn Disk,
        first: Offset,
        at: u64,
        block_bytes: usize,
    ) -> Result<Lines, LogError> {
        loop {
            let segment = self.segment(first);
            let path =
                if segment.is_active { self.paths.active() } else { self.paths.sealed(first) };
            if let Some(active) = self.active.as_ref().filter(|_| segment.is_active) {
                return Ok(Lines::new(Arc::clone(active), &path, at, block_bytes));
            }
            match disk.open(&path, Open::Read) {
                // If it is still the active one, it was when it was opened: the new file gets the
                // name only after the map says that the old one lost it.
                Ok(file) if self.segment(first).is_active == segment.is_active => {
                    return Ok(Lines::new(file, &path, at, block_bytes));
                }
                Ok(_) => {}
                Err(source) if segment.is_active && !self.segment(first).is_active => drop(source),
                Err(source)
                    if source.kind() == std::io::ErrorKind::NotFound && segment.is_active =>
                {
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

    /// The index of a segment: from memory, from its file, or by reading the segment once.
    pub(super) fn index(&self, disk: &dyn Disk, segment: Segment) -> Result<Index, LogError> {
        if segment.is_active
            && let Some(index) = self.active_index()
        {
            return Ok(index);
        }
        let path = self.paths.index(segment.first);
        if let Ok(bytes) = disk::read_all(disk, &path) {
            let mut index = Index::from_bytes(&bytes);
            index.truncate(segment.len);
            if index.is_plausible(segment.first, segment.len) {
                // The file of an active segment may end before it: the rest is read.
                return self.complete(disk, segment, index);
            }
        }
        self.complete(disk, segment, Index::default())
    }

    /// Forgets what the index of a segment says, and makes it again from the segment.
    pub(super) fn rebuild(&self, disk: &dyn Disk, segment: Segment) -> Result<Index, LogError> {
        self.complete(disk, segment, Index::default())
    }

    /// Reads the segment from the last entry of `index` on.
    fn complete(
        &self,
        disk: &dyn Disk,
        segment: Segment,
        mut index: Index,
    ) -> Result<Index, LogError> {
        let last = index.before(Offset::new(u64::MAX));
        let (mut offset, at) = last.map_or((segment.first, 0), |last| (last.offset, last.at));
        let mut ts = last.map_or(Timestamp::default(), |last| last.ts);
        let mut lines = self.open(disk, segment.first, at, SCAN_BYTES)?;
        while let Some(line) = lines.next(segment.len)? {
            if let Ok(record) = parse_line(self.topic(), line.bytes) {
                ts = ts.max(record.ts());
            }
            index.note(Entry { offset, at: line.at, ts });
            offset = offset.next();
        }
        if segment.is_active {
            let mut map = self.map();
            let active = map.segments.last().expect("there is always an active one");
            // Lines that came meanwhile are not in this index: then the next one makes it again.
            if active.first == segment.first && active.len == segment.len {
                map.active_index = Some(index.clone());
                map.saved = 0;
            }
        } else {
            save_index(disk, &self.paths, segment.first, &index);
        }
        Ok(index)
    }
}

/// Writes an index beside its place and renames it. It is derived: if that fails, nothing is lost.
pub(super) fn save_index(disk: &dyn Disk, paths: &Paths, first: Offset, index: &Index) {
    let path = paths.index(first);
    if let Err(error) = write_index(disk, paths, &path, index) {
        tracing::debug!(event = "index_not_saved", path = %path.display(), "{error}");
    }
}

fn write_index(disk: &dyn Disk, paths: &Paths, path: &Path, index: &Index) -> std::io::Result<()> {
    disk.create_dir(&paths.index_dir())?;
    let temporary = path.with_extension("tmp");
    let file = disk.open(&temporary, Open::Create)?;
    file.truncate(0)?;
    file.write_at(&index.to_bytes(), 0)?;
    disk.rename(&temporary, path)
}
