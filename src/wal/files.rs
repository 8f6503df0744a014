//! The files of the log as recovery finds them, and which of them are needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, Parsed};
use super::scan::{self, Tail};
use super::segment::{self, BadHeader, HEADER_BYTES, Header};
use super::{Identity, Lsn, WalError, failed};
use crate::disk::{Disk, File, Open};

/// The segments that there are, in order, and what else lies in the folder.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) segments: Vec<SegmentFile>,
    pub(super) leftovers: Vec<PathBuf>,
    pub(super) unknown: Vec<PathBuf>,
    pub(super) identity: Identity,
}

#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) seq: u64,
    pub(super) len: u64,
    /// The number of its first record, if that is whole.
    pub(super) first: Option<Lsn>,
}

impl Files {
    pub(super) fn list(disk: Arc<dyn Disk>, dir: &Path) -> Result<Files, WalError> {
        let entries = disk.list(dir).map_err(failed("list", dir))?;
        let dir = dir.to_owned();
        let mut files = Files {
            disk,
            dir,
            segments: Vec::new(),
            leftovers: Vec::new(),
            unknown: Vec::new(),
            identity: Identity { node: 0, secret: 0 },
        };
        for entry in entries {
            let path = files.dir.join(&entry.name);
            match segment::seq_of(&entry.name) {
                Some(seq) if !entry.is_dir => {
                    files.segments.push(SegmentFile { seq, len: entry.len, first: None });
                }
                _ if segment::is_leftover(&entry.name) && !entry.is_dir => {
                    files.leftovers.push(path);
                }
                _ => files.unknown.push(path),
            }
        }
        files.segments.sort_by_key(|segment| segment.seq);
        files.identity = files.find_identity()?;
        for number in 0..files.segments.len() {
            let first = files.reader(number)?.record(HEADER_BYTES)?.map(|record| record.lsn);
            files.segments[number].first = first;
        }
        Ok(files)
    }

    pub(super) fn path(&self, number: usize) -> PathBuf {
        segment::path(&self.dir, self.segments[number].seq)
    }

    pub(super) fn open(&self, number: usize, how: Open) -> Result<Arc<dyn File>, WalError> {
        let path = self.path(number);
        self.disk.open(&path, how).map_err(failed("open", &path))
    }

    pub(super) fn reader(&self, number: usize) -> Result<Reader, WalError> {
        Ok(Reader {
            file: self.open(number, Open::Read)?,
            path: self.path(number),
            mark: self.mark(number),
            len: self.segments[number].len,
            buf: Vec::new(),
            at: 0,
            held: 0,
        })
    }

    /// Whose log it is, by the first header that can be read.
    fn find_identity(&self) -> Result<Identity, WalError> {
        if self.segments.is_empty() {
            return Err(WalError::Missing { dir: self.dir.clone() });
        }
        for number in 0..self.segments.len() {
            match self.reader(number)?.header()? {
                Ok(header) => return Ok(header.identity),
                Err(BadHeader::Version(found)) => return Err(self.unsupported(number, found)),
                Err(BadHeader::Unreadable) => {}
            }
        }
        Err(self.damaged(0, 0, "no segment has a header that can be read".to_owned()))
    }

    /// What the records of a segment bear.
    pub(super) fn mark(&self, number: usize) -> u64 {
        segment::mark(self.identity, self.segments[number].seq)
    }

    /// The segment in which the record after `from` stands, or will; all before it are covered.
    pub(super) fn start(&self, from: Lsn) -> Result<usize, WalError> {
        let needed = from.next();
        let holds = |s: &SegmentFile| s.first.is_some_and(|first| first <= needed);
        let start = if let Some(start) = self.segments.iter().rposition(holds) {
            start
        } else {
            self.start_of_unused(from)?
        };
        for pair in self.segments[start..].windows(2) {
            let next = pair[0].seq + 1;
            if pair[1].seq != next {
                let reason = format!("it is missing, and a later segment, {}, is not", pair[1].seq);
                return Err(WalError::Damaged {
                    file: segment::path(&self.dir, next),
                    at: 0,
                    reason,
                });
            }
        }
        Ok(start)
    }

    /// The first segment, if the log was never used; anything else is damage.
    fn start_of_unused(&self, from: Lsn) -> Result<usize, WalError> {
        let needed = from.next();
        match self.segments.iter().position(|segment| segment.first.is_some()) {
            Some(0) => {
                let reason = format!("it begins after record {needed}, which is needed");
                Err(self.damaged(0, HEADER_BYTES, reason))
            }
            Some(later) => {
                let reason =
                    "its first record is damaged or missing, and a later segment is in use";
                Err(self.damaged(later - 1, HEADER_BYTES, reason.to_owned()))
            }
            None if from > Lsn::ZERO => {
                let reason =
                    format!("no segment begins with a record, and a checkpoint covers {from}");
                Err(self.damaged(0, HEADER_BYTES, reason))
            }
            None if self.segments[0].seq > 1 => {
                let reason = "it is missing, no checkpoint covers it, and later segments are there";
                let file = segment::path(&self.dir, self.segments[0].seq - 1);
                Err(WalError::Damaged { file, at: 0, reason: reason.to_owned() })
            }
            None => Ok(0),
        }
    }

    pub(super) fn unsupported(&self, number: usize, found: u32) -> WalError {
        WalError::Unsupported { file: self.path(number), what: "WAL format", found }
    }

    pub(super) fn damaged(&self, number: usize, at: u64, reason: String) -> WalError {
        WalError::Damaged { file: self.path(number), at, reason }
    }
}

/// Reads one segment, a block at a time: fresh memory costs more than the disk's cache.
pub(super) struct Reader {
    file: Arc<dyn File>,
    path: PathBuf,
    mark: u64,
    pub(super) len: u64,
    buf: Vec<u8>,
    /// Where in the file `buf` begins, and how much of it is read.
    at: u64,
    held: usize,
}

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 256 << 10;

impl Reader {
    /// The bytes from `at` on: as many as wanted or more, fewer only at the end of the file.
    pub(super) fn bytes(&mut self, at: u64, wanted: usize) -> Result<&[u8], WalError> {
        let skip = at.checked_sub(self.at).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = skip
            && skip.checked_add(wanted).is_some_and(|end| end <= self.held)
        {
            return Ok(&self.buf[skip..self.held]);
        }
        if self.buf.len() < wanted.max(READ_BYTES) {
            self.buf.resize(wanted.max(READ_BYTES), 0);
        }
        self.held = 0;
        self.held = self.file.read_at(&mut self.buf, at).map_err(failed("read", &self.path))?;
        self.at = at;
        Ok(&self.buf[..self.held])
    }

    /// All bytes from `at` on.
    pub(super) fn rest(&mut self, at: u64) -> Result<&[u8], WalError> {
        let wanted = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        self.bytes(at, wanted)
    }

    pub(super) fn header(&mut self) -> Result<Result<Header, BadHeader>, WalError> {
        Ok(Header::parse(self.bytes(0, segment::HEADER_FIELDS_BYTES)?))
    }

    /// The record at `at`; `None` if there is none that is whole, unharmed and of this segment.
    pub(super) fn record(&mut self, at: u64) -> Result<Option<Parsed<'_>>, WalError> {
        let (mark, room) = (self.mark, self.len.saturating_sub(at));
        let claim = record::claim(self.bytes(at, record::HEADER_BYTES)?);
        let plausible = claim.filter(|claim| claim.mark == mark && claim.size as u64 <= room);
        let Some(claim) = plausible else { return Ok(None) };
        Ok(record::parse(self.bytes(at, claim.size)?, mark))
    }

    /// What lies behind the last good record; see [`scan::tail`].
    pub(super) fn tail(&mut self, from: u64, bad: Lsn, recycled: bool) -> Result<Tail, WalError> {
        let mark = self.mark;
        let mut clean = !scan::claims(self.bytes(from, record::HEADER_BYTES)?, mark, bad);
        let mut at = from;
        while clean && at < self.len {
            let block = self.bytes(at, record::ALIGN)?;
            let whole = block.len() - block.len() % record::ALIGN;
            if whole == 0 {
                break;
            }
            clean = scan::is_clean(&block[..whole], mark, recycled);
            at += whole as u64;
        }
        if clean {
            return Ok(Tail::empty(from));
        }
        Ok(scan::tail(self.rest(from)?, mark, from, bad, recycled))
    }
}
