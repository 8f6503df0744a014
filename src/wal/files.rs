//! The files of the log as recovery finds them, and which of them are needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{self, HEADER_BYTES, Header};
use super::{Identity, Lsn, WalError, failed, record};
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
            files.segments[number].first = files.first_record(number)?;
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

    pub(super) fn read(&self, number: usize, buf: &mut [u8], at: u64) -> Result<usize, WalError> {
        let file = self.open(number, Open::Read)?;
        file.read_at(buf, at).map_err(|error| failed("read", &self.path(number))(error))
    }

    /// Whose log it is, by the first header that can be read.
    fn find_identity(&self) -> Result<Identity, WalError> {
        if self.segments.is_empty() {
            return Err(WalError::Missing { dir: self.dir.clone() });
        }
        for number in 0..self.segments.len() {
            let mut buf = vec![0; segment::HEADER_FIELDS_BYTES];
            let got = self.read(number, &mut buf, 0)?;
            if let Ok(header) = Header::parse(&buf[..got]) {
                return Ok(header.identity);
            }
        }
        Err(self.damaged(0, 0, "no segment has a header that can be read".to_owned()))
    }

    /// What the records of a segment bear.
    pub(super) fn mark(&self, number: usize) -> u64 {
        segment::mark(self.identity, self.segments[number].seq)
    }

    fn first_record(&self, number: usize) -> Result<Option<Lsn>, WalError> {
        let SegmentFile { len, .. } = self.segments[number];
        let mark = self.mark(number);
        let mut buf = vec![0; record::HEADER_BYTES];
        let got = self.read(number, &mut buf, HEADER_BYTES)?;
        let Some(claim) = record::claim(&buf[..got]) else { return Ok(None) };
        if claim.mark != mark || claim.size as u64 > len.saturating_sub(HEADER_BYTES) {
            return Ok(None);
        }
        buf.resize(claim.size, 0);
        let got = self.read(number, &mut buf, HEADER_BYTES)?;
        Ok(record::parse(&buf[..got], mark).map(|found| found.lsn))
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

    pub(super) fn damaged(&self, number: usize, at: u64, reason: String) -> WalError {
        WalError::Damaged { file: self.path(number), at, reason }
    }
}
