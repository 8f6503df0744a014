//! The one writer of a topic's log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, File, Open};
use crate::ids::{Offset, TopicName};
use crate::limits::INDEX_STRIDE_BYTES;
use crate::time::Timestamp;

use super::index::{Entry, Index};
use super::record::{NewRecord, write_line};
use super::segment::Paths;
use super::shared::{LogShared, save_index};
use super::{LogError, Reader, Tail, TailBudget};

/// How logs are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// A segment that has reached this size is sealed, in bytes.
    pub segment_bytes: u64,
}

/// Where a log ended at a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogMark {
    /// The oldest message that is kept.
    pub first: Offset,
    /// The last message.
    pub end: Offset,
    /// The first message of the active segment.
    pub segment: Offset,
    /// The length of the active segment, in bytes.
    pub len: u64,
    /// The latest timestamp of all messages.
    pub latest: Timestamp,
}

impl Default for LogMark {
    fn default() -> Self {
        let (first, end) = (Offset::FIRST, Offset::ZERO);
        Self { first, end, segment: first, len: 0, latest: Timestamp::default() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct TopicLog {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) shared: Arc<LogShared>,
    pub(super) tag: u32,
    pub(super) settings: LogSettings,
    /// Lines that are not in the file yet.
    buffer: Vec<u8>,
    /// Index entries of those lines.
    notes: Vec<Entry>,
    /// Where the last index entry points.
    noted_at: Option<u64>,
    active: Option<Arc<dyn File>>,
    /// With what is in the buffer: the last message.
    end: Offset,
    pub(super) mark: LogMark,
    unsynced: Unsynced,
}

/// What a checkpoint has to sync.
#[derive(Debug, Default)]
struct Unsynced {
    sealed: Vec<(PathBuf, Arc<dyn File>)>,
    is_active: bool,
    is_dir: bool,
}

impl TopicLog {
    /// An empty log. Nothing is on disk before the first flush.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        topic: TopicName,
        settings: LogSettings,
        tail: Arc<TailBudget>,
    ) -> Self {
        let paths = Paths { dir: dir.to_owned(), topic };
        let segments = vec![(Offset::FIRST, 0)];
        let index = Some(Index::default());
        let shared = LogShared::new(paths, tail, segments, Offset::ZERO, index);
        Self::with(disk, shared, settings, LogMark::default())
    }

    pub(super) fn with(
        disk: Arc<dyn Disk>,
        shared: LogShared,
        settings: LogSettings,
        mark: LogMark,
    ) -> Self {
        Self {
            disk,
            tag: shared.topic().tag(),
            shared: Arc::new(shared),
            settings,
            buffer: Vec::new(),
            notes: Vec::new(),
            noted_at: None,
            active: None,
            end: mark.end,
            mark,
            unsynced: Unsynced::default(),
        }
    }

    /// Adds a message to what the next flush writes.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Offset {
        let offset = self.end.next();
        let at = self.mark.len + self.buffer.len() as u64;
        self.mark.latest = self.mark.latest.max(record.ts);
        if self.noted_at.is_none_or(|noted| at >= noted + INDEX_STRIDE_BYTES || at == 0) {
            self.noted_at = Some(at);
            self.notes.push(Entry { offset, at, ts: self.mark.latest });
        }
        write_line(&mut self.buffer, self.shared.topic(), self.tag, offset, record);
        self.end = offset;
        offset
    }

    /// Writes what was appended, and lets readers see it. Seals the segment if it is full.
    ///
    /// # Errors
    /// [`LogError::Io`]; what was appended is then still to be written.
    pub fn flush(&mut self) -> Result<(), LogError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let path = self.shared.paths.active();
        let io = |source| LogError::io(&path, source);
        let file = match &self.active {
            Some(file) => file,
            None => {
                self.unsynced.is_dir |= self.mark.len == 0;
                self.active.insert(self.disk.open(&path, Open::Create).map_err(io)?)
            }
        };
        file.write_at(&self.buffer, self.mark.len).map_err(io)?;
        self.unsynced.is_active = true;
        self.mark.len += self.buffer.len() as u64;
        self.mark.end = self.end;
        self.buffer.clear();
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        self.shared.grew(self.mark.len, self.end, &mut self.notes);
        if self.mark.len >= self.settings.segment_bytes {
            self.roll()?;
        }
        Ok(())
    }

    /// Seals the active segment.
    fn roll(&mut self) -> Result<(), LogError> {
        let paths = &self.shared.paths;
        let (active, sealed) = (paths.active(), paths.sealed(self.mark.segment));
        let io = |source| LogError::io(&sealed, source);
        self.disk.rename(&active, &sealed).map_err(io)?;
        // Before the name is used again, it is certain that the old file has its new one.
        self.disk.sync_dir(&paths.dir).map_err(io)?;
        let first = self.mark.segment;
        let next = self.end.next();
        if let Some(index) = self.shared.rolled(next) {
            save_index(self.disk.as_ref(), &self.shared.paths, first, &index);
        }
        let file = self.active.take().expect("what was just written is open");
        self.unsynced.sealed.push((sealed, file));
        self.unsynced.is_active = false;
        (self.mark.segment, self.mark.len, self.noted_at) = (next, 0, None);
        Ok(())
    }

    /// The last message, flushed or not.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The oldest message that is kept.
    pub fn first(&self) -> Offset {
        self.mark.first
    }

    /// Where it ends, for a checkpoint. Everything must be flushed.
    pub fn mark(&self) -> LogMark {
        assert!(self.buffer.is_empty(), "a mark is taken after a flush");
        self.mark
    }

    /// What has to be synced for the present mark to be durable.
    pub fn unsynced(&mut self) -> SyncJob {
        let mut job = SyncJob::default();
        let unsynced = std::mem::take(&mut self.unsynced);
        job.files = unsynced.sealed;
        if unsynced.is_active {
            let file = self.active.as_ref().expect("an unsynced file is open");
            job.files.push((self.shared.paths.active(), Arc::clone(file)));
            if let Some(index) = self.shared.active_index() {
                job.index = Some((Arc::clone(&self.shared), self.mark.segment, index));
            }
        }
        job.dir = unsynced.is_dir.then(|| self.shared.paths.dir.clone());
        job
    }

    /// Closes the file, if nothing has to be synced; it is opened again when needed.
    pub fn close_idle(&mut self) {
        if !self.unsynced.is_active && self.buffer.is_empty() {
            self.active = None;
        }
    }

    /// What readers on other threads see.
    pub fn shared(&self) -> Arc<LogShared> {
        Arc::clone(&self.shared)
    }

    /// Ready lines of recent messages.
    pub fn tail(&self) -> &Tail {
        self.shared.tail()
    }

    /// A reader of this log.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.disk), self.shared())
    }
}

/// Files to be synced, on another thread.
#[derive(Debug, Default)]
pub struct SyncJob {
    files: Vec<(PathBuf, Arc<dyn File>)>,
    dir: Option<PathBuf>,
    index: Option<(Arc<LogShared>, Offset, Index)>,
}

impl SyncJob {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.dir.is_none()
    }

    /// Syncs the files, and saves the index.
    ///
    /// # Errors
    /// What the disk says. Nothing is known about the files' pages then.
    pub fn run(self, disk: &dyn Disk) -> std::io::Result<()> {
        for (_, file) in &self.files {
            file.sync()?;
        }
        if let Some(dir) = &self.dir {
            disk.sync_dir(dir)?;
        }
        if let Some((shared, first, index)) = &self.index {
            save_index(disk, &shared.paths, *first, index);
        }
        Ok(())
    }
}
