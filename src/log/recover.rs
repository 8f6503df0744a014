//! From files to a log: at a checkpoint's mark, from a prototype's directory, or without a daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{DirEntry, Disk, File, Open};
use crate::ids::{Offset, TopicName};
use crate::time::Timestamp;

use super::index::{Entry, Index};
use super::segment::{Lines, Paths, parse_name};
use super::shared::LogShared;
use super::writer::{LogMark, LogSettings, TopicLog};
use super::{LineError, LogError, TailBudget, parse_line, parse_lost, record_in};

/// Block size for reading whole files.
const SCAN_BYTES: usize = 1 << 20;

/// A topic's file in a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentFile {
    /// Its name.
    pub name: String,
    /// The first offset by its name; `None` for the active segment.
    pub first: Option<Offset>,
    /// Its length in bytes.
    pub len: u64,
    /// Whether it is a link to a file, perhaps one on another disk.
    pub is_link: bool,
}

/// What a data directory holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scan {
    /// The files of each topic, sealed segments in order and then the active one.
    pub topics: BTreeMap<TopicName, Vec<SegmentFile>>,
    /// Folders that have the name of a topic's file.
    pub folders: Vec<String>,
    /// Other files.
    pub strangers: Vec<String>,
}

/// Looks which files of which topics there are.
///
/// # Errors
/// [`LogError::Io`].
pub fn scan(disk: &dyn Disk, dir: &Path) -> Result<Scan, LogError> {
    let mut scan = Scan::default();
    for entry in disk.list(dir).map_err(|source| LogError::io(dir, source))? {
        match parse_name(&entry.name) {
            Some(_) if entry.is_dir => scan.folders.push(entry.name),
            None if entry.is_dir => {}
            Some((topic, first)) => {
                let DirEntry { name, len, is_link, .. } = entry;
                let file = SegmentFile { name, first, len, is_link };
                scan.topics.entry(topic).or_default().push(file);
            }
            None => scan.strangers.push(entry.name),
        }
    }
    for files in scan.topics.values_mut() {
        files.sort_by_key(|file| (file.first.is_none(), file.first));
    }
    Ok(scan)
}

/// What adopting a file of the prototype brought.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Adopted {
    /// How many messages.
    pub records: u64,
    /// Where the bytes of a torn last line are now.
    pub torn: Option<PathBuf>,
}

impl TopicLog {
    /// Opens a log at a checkpoint's mark, given the topic's files. Verifies what can be verified
    /// without reading it all, and changes nothing. Files of messages that are no longer kept are left to
    /// be removed ([`TopicLog::take_trimmed`]).
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the files do not have what the mark says.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        topic: TopicName,
        settings: LogSettings,
        tail: Arc<TailBudget>,
        mark: &LogMark,
        files: &[SegmentFile],
    ) -> Result<Self, LogError> {
        let paths = Paths { dir: dir.to_owned(), topic };
        let sealed = files.iter().filter_map(|file| Some((file.first?, file.len)));
        let sealed = sealed.filter(|(first, _)| *first < mark.segment);
        // What is no longer kept may still be there.
        let (trimmed, mut segments): (Vec<_>, Vec<_>) =
            sealed.partition(|(first, _)| *first < mark.first);
        let begin = segments.first().map_or(mark.segment, |(first, _)| *first);
        if begin != mark.first {
            let path = paths.sealed(mark.first);
            let why = format!("it is missing, and the topic begins with {}", mark.first);
            return Err(LogError::damaged(&path, 0, why));
        }
        if mark.len > 0 {
            let path = marked_file(files, &paths, mark);
            check_end(disk.as_ref(), &paths.topic, &path, mark)?;
        }
        segments.push((mark.segment, mark.len));
        let index = (mark.len == 0).then(Index::default);
        let shared = LogShared::new(paths, tail, segments, mark.end, index);
        let mut log = Self::with(disk, shared, settings, *mark);
        log.trimmed = trimmed;
        // It may have been moved away when it was sealed after the mark.
        let is_written = |file: &&SegmentFile| file.first.is_none_or(|first| first >= mark.segment);
        log.is_elsewhere = files.iter().filter(is_written).any(|file| file.is_link);
        Ok(log)
    }

    /// Removes what lies behind the mark that the log was opened with, given the same files. Cut short
    /// by a crash, it can be done again. The caller syncs the folder before anything else is written:
    /// once for all the logs in it.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn cut(&mut self, files: &[SegmentFile]) -> Result<(), LogError> {
        let paths = &self.shared.paths;
        let disk = self.disk.as_ref();
        let mark = self.mark;
        let is_behind = |file: &SegmentFile| match file.first {
            Some(first) => first >= mark.segment,
            None => mark.len == 0 || file.len > mark.len,
        };
        if !files.iter().any(is_behind) {
            return Ok(());
        }
        let is_later = |file: &&SegmentFile| file.first.is_some_and(|f| f > self.mark.segment);
        for file in files.iter().filter(is_later) {
            let path = paths.dir.join(&file.name);
            disk.remove(&path).map_err(|source| LogError::io(&path, source))?;
        }
        let (active, sealed) = (paths.active(), paths.sealed(self.mark.segment));
        let io = |source| LogError::io(&active, source);
        let was_sealed = files.iter().any(|file| file.first == Some(self.mark.segment));
        if was_sealed {
            disk.rename(&sealed, &active).map_err(io)?;
        }
        let is_there = was_sealed || files.iter().any(|file| file.first.is_none());
        if is_there && self.mark.len == 0 {
            disk.remove(&active).map_err(io)?;
        } else if is_there {
            let file = disk.open(&active, Open::Write).map_err(io)?;
            file.truncate(self.mark.len).map_err(io)?;
            self.is_cut = true;
        }
        Ok(())
    }

    /// Takes over a topic's files that have no metadata: the prototype wrote them. All lines are
    /// read. A torn last line that is a whole record gets its end; another one is put aside.
    ///
    /// # Errors
    /// [`LogError::Damaged`] for a line in the middle that is no record, or out of order.
    pub fn adopt(
        disk: Arc<dyn Disk>,
        dir: &Path,
        topic: TopicName,
        settings: LogSettings,
        tail: Arc<TailBudget>,
        files: &[SegmentFile],
    ) -> Result<(Self, Adopted), LogError> {
        let paths = Paths { dir: dir.to_owned(), topic };
        let mut adoption = Adoption::default();
        let mut segments = Vec::new();
        for file in files {
            let path = paths.dir.join(&file.name);
            let first = adoption.next;
            let len = adoption.read(disk.as_ref(), &paths, &path, file)?;
            if len > 0 {
                segments.push((first.or(adoption.first).unwrap_or(Offset::FIRST), len));
            }
        }
        let first = adoption.first.unwrap_or(Offset::FIRST);
        let next = adoption.next.unwrap_or(first);
        // The active segment may be missing or empty: then a new one begins.
        let is_open =
            files.last().is_some_and(|file| file.first.is_none()) && adoption.last_len > 0;
        if !is_open {
            segments.push((next, 0));
            adoption.index = Index::default();
        }
        let (segment, len) = *segments.last().expect("there is an active one now");
        let end = next.prev();
        let mark = LogMark { first, end, segment, len, latest: adoption.latest };
        let shared = LogShared::new(paths, tail, segments, end, Some(adoption.index));
        let mut log = Self::with(disk, shared, settings, mark);
        log.is_elsewhere = files.iter().any(|file| file.first.is_none() && file.is_link);
        Ok((log, adoption.adopted))
    }
}

/// The file that holds the segment of the mark: it may have been sealed after the mark.
fn marked_file(files: &[SegmentFile], paths: &Paths, mark: &LogMark) -> PathBuf {
    if files.iter().any(|file| file.first == Some(mark.segment)) {
        paths.sealed(mark.segment)
    } else {
        paths.active()
    }
}

/// The segment is as long as the mark says, and the last line before the mark is the right one.
fn check_end(
    disk: &dyn Disk,
    topic: &TopicName,
    path: &Path,
    mark: &LogMark,
) -> Result<(), LogError> {
    let io = |source| LogError::io(path, source);
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let why = format!("it is missing, and held messages up to {}", mark.end);
            return Err(LogError::damaged(path, 0, why));
        }
        Err(source) => return Err(io(source)),
    };
    let len = file.len().map_err(io)?;
    if len < mark.len {
        let why = format!("it ends here, and the checkpoint knows {} bytes", mark.len);
        return Err(LogError::damaged(path, len, why));
    }
    let (at, line) = last_line(file.as_ref(), mark.len).map_err(io)?;
    let record = line.strip_suffix(b"\n").map(|line| offset_of(topic, line));
    match record {
        Some(Ok(offset)) if offset == mark.end => Ok(()),
        Some(Ok(offset)) => {
            let why = format!("it has offset {offset} where {} belongs", mark.end);
            Err(LogError::damaged(path, at, why))
        }
        Some(Err(error)) => Err(LogError::damaged(path, at, error.to_string())),
        None => Err(LogError::damaged(path, at, "the checkpoint ends within a line")),
    }
}

/// The message of a line, be it there or known to be lost.
fn offset_of(topic: &TopicName, line: &[u8]) -> Result<Offset, LineError> {
    match parse_lost(line) {
        Some(offset) => Ok(offset),
        None => parse_line(topic, line).map(|record| record.offset),
    }
}

/// The line that ends at `end` (with its LF, if it has one), and where it begins.
pub(crate) fn last_line(file: &dyn File, end: u64) -> std::io::Result<(u64, Vec<u8>)> {
    let mut want = 4096;
    loop {
        let from = end.saturating_sub(want);
        let mut bytes = vec![0; usize::try_from(end - from).map_err(std::io::Error::other)?];
        let got = file.read_at(&mut bytes, from)?;
        bytes.truncate(got);
        let before = bytes.len().saturating_sub(1);
        if let Some(found) = memchr::memrchr(b'\n', &bytes[..before]) {
            let start = found + 1;
            return Ok((from + start as u64, bytes.split_off(start)));
        }
        if from == 0 {
            return Ok((0, bytes));
        }
        want *= 8;
    }
}

/// A topic's log as its files show it, for reading only. A line that is damaged is still a line:
/// reading it says what is wrong with it, and goes on.
pub(super) fn survey(disk: &dyn Disk, dir: &Path, topic: TopicName) -> Result<LogShared, LogError> {
    let files = scan(disk, dir)?.topics.remove(&topic).unwrap_or_default();
    let paths = Paths { dir: dir.to_owned(), topic };
    let mut segments = Vec::new();
    let mut end = Offset::ZERO;
    let mut active = None;
    for (number, file) in files.iter().enumerate() {
        let path = paths.dir.join(&file.name);
        let io = |source| LogError::io(&path, source);
        let open = disk.open(&path, Open::Read).map_err(io)?;
        let mut len = file.len;
        let (at, line) = last_line(open.as_ref(), len).map_err(io)?;
        // Only the newest file can end in a line that was being written. One that is whole but for its end
        // was not: that is damaged.
        let is_whole = line
            .split_last()
            .is_some_and(|(end, text)| *end == b'\n' || offset_of(&paths.topic, text).is_ok());
        if number + 1 == files.len() && !is_whole {
            len = at;
        }
        if len == 0 {
            continue;
        }
        let first = match file.first {
            Some(first) => first,
            None => first_offset(&open, &paths.topic, &path, len)?.unwrap_or(end.next()),
        };
        end = last_offset(&open, &paths.topic, &path, first, len)?;
        segments.push((first, len));
        active = Some(open).filter(|_| file.first.is_none());
    }
    let has_active = files.last().is_some_and(|file| file.first.is_none());
    if segments.is_empty() || !has_active {
        segments.push((end.next(), 0));
    }
    let shared = LogShared::new(paths, Arc::new(TailBudget::new(0)), segments, end, None);
    Ok(shared.with_active(active))
}

/// Where a topic begins as its files show it; nowhere if it has none. What can't be told is zero.
pub(super) fn begins(disk: &dyn Disk, paths: &Paths) -> Result<Option<Offset>, LogError> {
    let path = paths.active();
    loop {
        // It may be sealed at any moment. Opened before the names are looked at, it is no later one.
        let active = match disk.open(&path, Open::Read) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(LogError::io(&path, source)),
        };
        let files = scan(disk, &paths.dir)?.topics.remove(&paths.topic).unwrap_or_default();
        match (files.first(), active) {
            (None, _) => return Ok(None),
            (Some(SegmentFile { first: Some(first), .. }), _) => return Ok(Some(*first)),
            (Some(_), Some(active)) => {
                let len = active.len().map_err(|source| LogError::io(&path, source))?;
                let first = first_offset(&active, &paths.topic, &path, len)?;
                return Ok(Some(first.unwrap_or_default()));
            }
            (Some(_), None) => {}
        }
    }
}

/// The offset of the first line: by what it says or, if it is damaged, by what the first good one says.
fn first_offset(
    file: &Arc<dyn File>,
    topic: &TopicName,
    path: &Path,
    len: u64,
) -> Result<Option<Offset>, LogError> {
    let mut lines = Lines::new(Arc::clone(file), path, 0, SCAN_BYTES);
    let mut before = 0;
    while let Some(raw) = lines.next(len)? {
        if let Some((offset, joined)) = record_in(topic, raw.bytes) {
            return Ok(Some(Offset::new(offset.get().saturating_sub(before + joined).max(1))));
        }
        before += 1;
    }
    Ok(None)
}

/// The offset of the last line: by what it says or, if it is damaged, by counting.
fn last_offset(
    file: &Arc<dyn File>,
    topic: &TopicName,
    path: &Path,
    first: Offset,
    len: u64,
) -> Result<Offset, LogError> {
    let (_, line) = last_line(file.as_ref(), len).map_err(|source| LogError::io(path, source))?;
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    if let Ok(last) = offset_of(topic, text) {
        return Ok(last);
    }
    let mut lines = Lines::new(Arc::clone(file), path, 0, SCAN_BYTES);
    let mut at = first.prev();
    while let Some(raw) = lines.next(len)? {
        let can_count = at.next() < Offset::new(u64::MAX);
        at = match record_in(topic, raw.bytes) {
            Some((offset, _)) => offset,
            None if can_count => at.next(),
            None => return Err(LogError::damaged(path, raw.at, "no line can be behind the last")),
        };
    }
    Ok(at)
}

/// Reads files line by line and notes what it finds.
#[derive(Default)]
struct Adoption {
    first: Option<Offset>,
    next: Option<Offset>,
    latest: Timestamp,
    index: Index,
    last_len: u64,
    adopted: Adopted,
}

impl Adoption {
    /// Reads one file; returns how many of its bytes count.
    fn read(
        &mut self,
        disk: &dyn Disk,
        paths: &Paths,
        path: &Path,
        file: &SegmentFile,
    ) -> Result<u64, LogError> {
        let io = |source| LogError::io(path, source);
        let open = disk.open(path, Open::Write).map_err(io)?;
        let mut lines = Lines::new(Arc::clone(&open), path, 0, SCAN_BYTES);
        self.index = Index::default();
        let mut number = 0;
        // What is behind a link may have come since it was listed, and what is not read is cut.
        let whole = open.len().map_err(io)?;
        let mut len = whole;
        while let Some(line) = lines.next(whole)? {
            number += 1;
            // The name of a sealed segment says what it begins with: readers go by it.
            let by_name = file.first.filter(|_| number == 1);
            let expected = |found| [self.next, by_name].into_iter().flatten().find(|e| *e != found);
            let lost = parse_lost(line.bytes).filter(|_| line.is_whole);
            let why = match parse_line(&paths.topic, line.bytes)
                .map(|record| (record.offset, record.ts()))
            {
                Err(LineError::Lost) if lost.is_some_and(|lost| expected(lost).is_none()) => {
                    self.take(line.at, lost.expect("it is one"), self.latest);
                    continue;
                }
                Ok((offset, ts)) => match expected(offset) {
                    None => {
                        self.take(line.at, offset, ts);
                        if !line.is_whole {
                            open.write_at(b"\n", whole).map_err(io)?;
                            len += 1;
                        }
                        continue;
                    }
                    Some(other) => format!("line {number}: offset {offset} where {other} belongs"),
                },
                Err(error) => format!("line {number}: {error}"),
            };
            if line.is_whole {
                return Err(LogError::damaged(path, line.at, why));
            }
            len = line.at;
            let torn = line.bytes.to_vec();
            self.adopted.torn = Some(put_aside(disk, paths, &torn)?);
            open.truncate(len).map_err(io)?;
            break;
        }
        open.sync().map_err(io)?;
        self.last_len = len;
        Ok(len)
    }

    fn take(&mut self, at: u64, offset: Offset, ts: Timestamp) {
        self.first.get_or_insert(offset);
        self.next = Some(offset.next());
        self.latest = self.latest.max(ts);
        self.adopted.records += 1;
        self.index.note(Entry { offset, at, ts: self.latest });
    }
}

/// Keeps bytes that can't stay where they are.
fn put_aside(disk: &dyn Disk, paths: &Paths, bytes: &[u8]) -> Result<PathBuf, LogError> {
    let dir = paths.quarantine();
    let path = dir.join(format!("{}.torn-{:08x}", paths.topic, crc32c::crc32c(bytes)));
    let keep = || {
        disk.create_dir(&dir)?;
        let file = disk.open(&path, Open::Create)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        disk.sync_dir(&dir)
    };
    keep().map_err(|source| LogError::io(&path, source))?;
    Ok(path)
}
