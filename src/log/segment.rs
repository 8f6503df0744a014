//! Names of segments, and reading one line by line.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::File;
use crate::ids::{Offset, TopicName};

use super::LogError;

/// Where a topic's files are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The data directory.
    pub dir: PathBuf,
    /// The topic.
    pub topic: TopicName,
}

impl Paths {
    /// The segment that is written.
    pub fn active(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.topic))
    }

    /// A segment that is finished.
    pub fn sealed(&self, first: Offset) -> PathBuf {
        self.dir.join(format!("{}@{:020}.log", self.topic, first.get()))
    }

    /// The index of a segment.
    pub fn index(&self, first: Offset) -> PathBuf {
        self.index_dir().join(format!("{}@{:020}.idx", self.topic, first.get()))
    }

    pub(super) fn index_dir(&self) -> PathBuf {
        self.dir.join(".wiber").join("index")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.dir.join(".wiber").join("quarantine")
    }
}

/// The topic and first offset that a file name stands for; the offset is `None` for an active
/// segment. `None` for a name that is no topic's.
pub(super) fn parse_name(name: &str) -> Option<(TopicName, Option<Offset>)> {
    let stem = name.strip_suffix(".log")?;
    let (topic, first) = match stem.split_once('@') {
        None => (stem, None),
        Some((topic, digits)) => {
            let is_number = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
            let first =
                digits.parse().ok().filter(|first| is_number && (1..u64::MAX).contains(first))?;
            (topic, Some(Offset::new(first)))
        }
    };
    Some((TopicName::parse(topic.as_bytes()).ok()?, first))
}

/// Reads lines of a file from a position on, in blocks.
#[derive(Debug)]
pub struct Lines {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    /// Position of the next line.
    pub at: u64,
    /// What was read; only the first `have` bytes of it count.
    block: Vec<u8>,
    have: usize,
    /// Where in the block the next line begins.
    start: usize,
    /// Where in the block the last line lies, without its end.
    last: Range<usize>,
    block_bytes: usize,
}

/// A line and where it begins.
#[derive(Debug)]
pub struct RawLine<'a> {
    /// Where it begins.
    pub at: u64,
    /// Without its end.
    pub bytes: &'a [u8],
    /// Whether it has one.
    pub is_whole: bool,
}

impl Lines {
    /// The lines of `file` from `at` on.
    pub fn new(file: Arc<dyn File>, path: &Path, at: u64, block_bytes: usize) -> Self {
        Self {
            file,
            path: path.to_owned(),
            at,
            block: Vec::new(),
            have: 0,
            start: 0,
            last: 0..0,
            block_bytes,
        }
    }

    /// The lines of a file that is not there: none.
    pub(super) fn missing(path: &Path) -> Self {
        Self::new(Arc::new(Missing), path, 0, 0)
    }

    /// The next line that begins before `end`; what lies behind `end` is not looked at.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn next(&mut self, end: u64) -> Result<Option<RawLine<'_>>, LogError> {
        if self.at >= end {
            return Ok(None);
        }
        let mut searched = 0;
        let found = loop {
            let rest = &self.block[self.start..self.have];
            if let Some(found) = memchr::memchr(b'\n', &rest[searched..]) {
                break Some(searched + found);
            }
            searched = rest.len();
            if !self.fill(end)? {
                break None;
            }
        };
        let (at, start) = (self.at, self.start);
        let (line_end, next) = match found {
            Some(len) => (start + len, start + len + 1),
            None => (self.have, self.have),
        };
        self.start = next;
        self.at += (next - start) as u64;
        self.last = start..line_end;
        if start == next {
            return Ok(None);
        }
        Ok(Some(RawLine { at, bytes: self.last(), is_whole: found.is_some() }))
    }

    /// The line that was read last, without its end.
    pub(super) fn last(&self) -> &[u8] {
        &self.block[self.last.clone()]
    }

    /// Goes back to `at`, where the line begins that was read last.
    pub fn step_back(&mut self, at: u64) {
        let taken = usize::try_from(self.at - at).expect("a line is in memory");
        self.start -= taken;
        self.at = at;
    }

    /// Reads another block behind what is there; false at the end.
    fn fill(&mut self, end: u64) -> Result<bool, LogError> {
        self.block.copy_within(self.start..self.have, 0);
        self.have -= self.start;
        self.start = 0;
        let have = self.have;
        let from = self.at + have as u64;
        // A long line is read in steps that grow with it.
        let want = (end - from.min(end)).min(self.block_bytes.max(have) as u64);
        let want = usize::try_from(want).expect("bounded by the block");
        if self.block.len() < have + want {
            self.block.resize(have + want, 0);
        }
        let got = self.file.read_at(&mut self.block[have..have + want], from);
        let got = got.map_err(|source| LogError::io(&self.path, source))?;
        self.have += got;
        Ok(got > 0)
    }
}

/// A file that is not there, for reading: an empty one.
#[derive(Debug)]
struct Missing;

impl File for Missing {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _buf: &mut [u8], _at: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _bytes: &[u8], _at: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn truncate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}
