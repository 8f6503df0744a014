//! The one writer of a topic's log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, File, Open, SyncAhead, Written};
use crate::ids::{Offset, TopicName};
use crate::limits::INDEX_STRIDE_BYTES;
use crate::planted::{self, Bug};
use crate::time::Timestamp;

use super::index::{Entry, Index};
use super::record::{NewRecord, write_line};
use super::segment::Paths;
use super::shared::{Known, LogShared, Unsaved, save_index};
use super::{LogError, Reader, Tail, TailBudget};

/// More files than these are synced with the whole file system: it takes one flush of the disk
/// instead of one for each, but has to wait for what others wrote too.
pub(super) const FILES_SYNCED_APART_MAX: usize = 64;

/// Unless they have as much to sync as this on average, in bytes. All of it at once would hold up the
/// write-ahead log for tens of milliseconds, and a flush for each is then the smaller part.
pub(super) const BYTES_SYNCED_APART_MIN: u64 = 32 << 10;

/// With so many bytes of lines, or a segment, it is time to write them: the memory they were made in is
/// used again for the next ones, and the processor's cache still has it.
const LINES_BYTES_AT_ONCE: u64 = 512 << 10;

/// A buffer up to this size stays with its log, in bytes: the next message needs it again. A larger one
/// is for whoever has much to write next ([`TopicLog::spare`]).
const BUFFER_BYTES_KEPT: usize = 512;

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
    /// Lines that are not in the file yet, by segment.
    pieces: VecDeque<Piece>,
    /// The length of the last segment, with what is not in its file yet.
    len: u64,
    /// The active segment is full, and could not be sealed yet.
    is_full: bool,
    /// Kept for its room only.
    buffer: Vec<u8>,
    /// Lines that are not in the file yet, in bytes.
    unwritten: usize,
    /// Where the last index entry points.
    noted_at: Option<u64>,
    active: Option<Arc<dyn File>>,
    /// In this life the active file was seen to end where it should.
    pub(super) is_cut: bool,
    /// The file that it goes on in may be on another disk: it was a link, as a sealed segment may be that a
    /// start makes the active one again.
    pub(super) is_elsewhere: bool,
    /// With what is in the buffer: the last message.
    end: Offset,
    pub(super) mark: LogMark,
    unsynced: Unsynced,
    /// To the active file.
    written: Written,
    /// Segments that are no longer kept, and whose files may be there still: what they begin with, and how
    /// long they are.
    pub(super) trimmed: Vec<(Offset, u64)>,
}

/// The files of a segment that is no longer kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrimmedFiles {
    /// Its topic.
    pub topic: TopicName,
    /// Its lines.
    pub log: PathBuf,
    /// Its index, if it has one.
    pub index: PathBuf,
    /// How long the lines are.
    pub bytes: u64,
}

/// Lines of one segment.
#[derive(Debug, Default)]
struct Piece {
    lines: Vec<u8>,
    /// Index entries of those lines.
    notes: Vec<Entry>,
    /// The last message.
    end: Offset,
    /// The segment ends with them.
    is_last: bool,
}

/// What a checkpoint has to sync.
#[derive(Debug, Default)]
struct Unsynced {
    bytes: u64,
    sealed: Vec<Offset>,
    is_active: bool,
    is_dir: bool,
    /// Of sealed segments.
    indexes: Vec<Unsaved>,
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
            pieces: VecDeque::new(),
            len: mark.len,
            is_full: false,
            buffer: Vec::new(),
            unwritten: 0,
            noted_at: None,
            active: None,
            is_cut: mark.len == 0,
            is_elsewhere: false,
            end: mark.end,
            mark,
            unsynced: Unsynced::default(),
            written: Written::default(),
            trimmed: Vec::new(),
        }
    }

    /// Adds a message to what the next flush writes. Where a segment ends is decided here, by the
    /// messages alone: whoever applies them again comes to the same files.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Offset {
        let offset = self.end.next();
        let at = self.len;
        self.mark.latest = self.mark.latest.max(record.ts);
        if self.pieces.back().is_none_or(|piece| piece.is_last) {
            let lines = std::mem::take(&mut self.buffer);
            self.pieces.push_back(Piece { lines, ..Piece::default() });
        }
        let piece = self.pieces.back_mut().expect("it was just seen to");
        if self.noted_at.is_none_or(|noted| at >= noted + INDEX_STRIDE_BYTES || at == 0) {
            self.noted_at = Some(at);
            piece.notes.push(Entry { offset, at, ts: self.mark.latest });
        }
        let before = piece.lines.len();
        write_line(&mut piece.lines, self.tag, offset, record);
        piece.end = offset;
        let added = piece.lines.len() - before;
        self.len += added as u64;
        self.unwritten += added;
        if self.len >= self.settings.segment_bytes {
            piece.is_last = true;
            (self.len, self.noted_at) = (0, None);
        }
        self.end = offset;
        offset
    }

    /// Ends the active segment with the next flush, if there is anything in it: what is appended next begins
    /// another. Like an append, this is decided for whoever applies it again.
    pub fn seal(&mut self) {
        if self.len == 0 {
            return;
        }
        if self.pieces.is_empty() {
            self.pieces.push_back(Piece { end: self.end, ..Piece::default() });
        }
        self.pieces.back_mut().expect("it was just seen to").is_last = true;
        (self.len, self.noted_at) = (0, None);
    }

    /// No longer keeps the segments whose messages are all before `first`, but for the active one. Their
    /// files are still there: [`TopicLog::take_trimmed`] says which may be removed, when nothing has to be
    /// gone back to that knows of them.
    ///
    /// # Errors
    /// As for [`TopicLog::flush`]: segments that are to go have to be ended first. Live they are, since only
    /// what has its file is planned to go.
    pub fn trim(&mut self, first: Offset) -> Result<(), LogError> {
        if first > self.mark.segment {
            self.flush()?;
        }
        self.trimmed.extend(self.shared.trim(first));
        self.mark.first = self.shared.first();
        if planted::has(Bug::RemovedTooSoon) {
            self.take_trimmed().iter().for_each(|files| drop(self.disk.remove(&files.log)));
        }
        Ok(())
    }

    /// The files of segments that are no longer kept, oldest first: once a checkpoint has the present mark,
    /// and none is left from before that, they are of no use.
    pub fn take_trimmed(&mut self) -> Vec<TrimmedFiles> {
        let paths = &self.shared.paths;
        let files = |(first, bytes)| TrimmedFiles {
            topic: paths.topic.clone(),
            log: paths.sealed(first),
            index: paths.index(first),
            bytes,
        };
        std::mem::take(&mut self.trimmed).into_iter().map(files).collect()
    }

    /// Writes what was appended, and lets readers see it. Seals segments that are full.
    ///
    /// # Errors
    /// [`LogError::Io`]; what was not written is then still to be written.
    pub fn flush(&mut self) -> Result<(), LogError> {
        loop {
            if self.is_full {
                self.roll()?;
                self.is_full = false;
            }
            let Some(piece) = self.pieces.pop_front() else { return Ok(()) };
            // A segment may end without more lines.
            if !piece.lines.is_empty()
                && let Err(error) = self.write(&piece.lines)
            {
                self.pieces.push_front(piece);
                return Err(error);
            }
            let Piece { mut lines, mut notes, end, is_last } = piece;
            self.unwritten -= lines.len();
            self.mark.len += lines.len() as u64;
            self.mark.end = end;
            self.shared.grew(self.mark.len, end, &mut notes);
            self.is_full = is_last;
            lines.clear();
            self.buffer = lines;
        }
    }

    /// Whether what was appended had better be flushed before there is more of it.
    pub fn has_much(&self) -> bool {
        self.unwritten as u64 >= LINES_BYTES_AT_ONCE.min(self.settings.segment_bytes)
    }

    /// Lines that were appended and are not in the file yet, in bytes.
    pub fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// Gives away its buffer if that is a large one: many logs would keep much.
    pub fn spare(&mut self) -> Option<Vec<u8>> {
        (self.buffer.capacity() > BUFFER_BYTES_KEPT).then(|| std::mem::take(&mut self.buffer))
    }

    /// Leaves the lines that are not in the file yet no more room than they need. Gives away a buffer that
    /// had much more.
    pub fn fit(&mut self) -> Option<Vec<u8>> {
        let lines = &mut self.pieces.back_mut()?.lines;
        if lines.capacity() <= BUFFER_BYTES_KEPT.max(4 * lines.len()) {
            return None;
        }
        let mut spare = std::mem::take(lines);
        lines.extend_from_slice(&spare);
        spare.clear();
        Some(spare)
    }

    /// Takes an empty buffer for its next lines.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), LogError> {
        if self.active.is_none() {
            self.open_active()?;
        }
        let file = self.active.as_ref().expect("it was just opened");
        // Its name is made when it is wanted: writing comes with every message that comes alone.
        let shared = &self.shared;
        let io = |source| LogError::io(&shared.paths.active(), source);
        file.write_at(lines, self.mark.len).map_err(io)?;
        self.unsynced.is_active = true;
        self.unsynced.bytes += lines.len() as u64;
        self.written.add(lines.len() as u64);
        Ok(())
    }

    /// Opens the active file, and cuts it where it should end the first time in a life, even if it seems
    /// to end there: what an earlier life has cut off is there again after a power cut if the sync of that
    /// failed, and no later one of the file makes up for it.
    fn open_active(&mut self) -> Result<(), LogError> {
        let path = self.shared.paths.active();
        let io = |source| LogError::io(&path, source);
        let file = self.disk.open(&path, Open::Create).map_err(io)?;
        if !self.is_cut {
            file.truncate(self.mark.len).map_err(io)?;
            self.is_cut = true;
        }
        self.unsynced.is_dir |= self.mark.len == 0;
        self.active = Some(file);
        Ok(())
    }

    /// Seals the active segment.
    fn roll(&mut self) -> Result<(), LogError> {
        if !self.is_cut {
            self.open_active()?;
        }
        let paths = &self.shared.paths;
        let (active, sealed) = (paths.active(), paths.sealed(self.mark.segment));
        let io = |source| LogError::io(&sealed, source);
        self.disk.rename(&active, &sealed).map_err(io)?;
        // Before the name is used again, it is certain that the old file has its new one.
        if !planted::has(Bug::NoDirectorySync) {
            let dir = &paths.dir;
            self.disk.sync_dir(dir).map_err(|source| LogError::sync(dir, source))?;
        }
        let first = self.mark.segment;
        let next = self.mark.end.next();
        let Known { index, is_whole, .. } = self.shared.rolled(next);
        if is_whole {
            save_index(self.disk.as_ref(), &self.shared.paths, first, &index);
        } else {
            // What is missing is found in the file, which may take longer than others can wait.
            self.unsynced.indexes.push(Unsaved::Before { segment: first, later: index });
        }
        (self.active, self.is_cut) = (None, true);
        self.written.clear();
        self.unsynced.sealed.push(first);
        self.unsynced.is_active = false;
        (self.mark.segment, self.mark.len) = (next, 0);
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
        assert!(self.pieces.is_empty() && !self.is_full, "a mark is taken after a flush");
        self.mark
    }

    /// What has to be synced for the present mark to be durable.
    pub fn unsynced(&mut self) -> SyncJob {
        let Unsynced { bytes, sealed: mut segments, is_active, is_dir, mut indexes } =
            std::mem::take(&mut self.unsynced);
        segments.extend(is_active.then_some(self.mark.segment));
        indexes.extend(is_active.then(|| self.shared.take_unsaved()).flatten());
        let (shared, is_apart) = (Arc::clone(&self.shared), self.is_elsewhere);
        SyncJob { shared, bytes, segments, is_dir, is_apart, indexes }
    }

    /// The active file, to be synced on another thread, if enough was written to it and there is no
    /// such job already. It takes nothing off what a checkpoint has to sync.
    pub fn sync_ahead(&mut self) -> Option<SyncAhead> {
        self.written.job(self.active.as_ref()?, || self.shared.paths.active())
    }

    /// Closes the file; it is opened again when it is needed. What has to be synced is not forgotten
    /// by that: a sync through another handle is one of the whole file, and Linux tells the next who
    /// opens it of a write that failed behind its back, unless somebody else asked first.
    pub fn close(&mut self) {
        self.active = None;
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

/// A log's files to be synced, on another thread.
#[derive(Debug)]
pub struct SyncJob {
    shared: Arc<LogShared>,
    /// Written since the last one.
    bytes: u64,
    segments: Vec<Offset>,
    is_dir: bool,
    /// A file may be on another disk than the others.
    is_apart: bool,
    indexes: Vec<Unsaved>,
}

impl SyncJob {
    /// How many files there are.
    pub fn files(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is nothing to be done: nothing was written.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && !self.is_dir
    }

    /// Syncs the files, and saves the index. What is done is no longer part of the job.
    ///
    /// # Errors
    /// What the disk says. With [`LogError::is_shortage`] a file could not be opened: all that was not
    /// synced still has to be, by running the job again. After any other nothing is known about the
    /// files' pages.
    pub fn run(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        while let Some(first) = self.segments.last() {
            let lines = self.shared.open(disk, *first, 0, 0)?;
            lines.file.sync().map_err(|source| LogError::sync(&lines.path, source))?;
            self.segments.pop();
        }
        let dir = &self.shared.paths.dir;
        if self.is_dir {
            disk.sync_dir(dir).map_err(|source| LogError::sync(dir, source))?;
            self.is_dir = false;
        }
        self.save(disk);
        Ok(())
    }

    /// What is left to do when everything on the file system was synced.
    fn save(&mut self, disk: &dyn Disk) {
        self.indexes.drain(..).for_each(|unsaved| self.shared.save(disk, unsaved));
    }
}

/// Syncs the files of many logs in `dir`: one by one or, if they are many and have little each, all that
/// is on the file system at once. Those that are done are taken off `jobs`.
///
/// # Errors
/// As for [`SyncJob::run`]. After a shortage all for which there was none are done.
pub fn sync_many(jobs: &mut Vec<SyncJob>, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let (apart, mut others): (Vec<_>, Vec<_>) =
        std::mem::take(jobs).into_iter().partition(|job| job.is_apart);
    let files: usize = others.iter().map(SyncJob::files).sum();
    let bytes: u64 = others.iter().map(|job| job.bytes).sum();
    if files > FILES_SYNCED_APART_MAX && bytes < files as u64 * BYTES_SYNCED_APART_MIN {
        match disk.sync_all(dir) {
            Ok(()) => others.drain(..).for_each(|mut job| job.save(disk)),
            Err(unsupported) if unsupported.kind() == std::io::ErrorKind::Unsupported => {}
            Err(source) => return Err(LogError::sync(dir, source)),
        }
    }
    let mut short = Ok(());
    for mut job in apart.into_iter().chain(others) {
        match job.run(disk) {
            Err(error) if error.is_shortage() => {
                jobs.push(job);
                short = Err(error);
            }
            done => done?,
        }
    }
    short
}
