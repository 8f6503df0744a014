//! Sealed segments, read again from time to time: what has rotted is found before somebody needs it.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::disk::{Disk, Open};
use crate::ids::{Offset, TopicName};

use super::record::parse_lost;
use super::recover::scan;
use super::segment::Lines;
use super::{LogError, parse_line};

/// Block size for reading.
const BLOCK_BYTES: usize = 256 << 10;

/// Goes through the sealed segments of a directory, a piece at a time. It sees files only, so that
/// nobody has to wait for it.
#[derive(Debug)]
pub struct Verifier {
    dir: PathBuf,
    to_do: VecDeque<Sealed>,
    current: Option<Current>,
    sums: Pass,
}

/// A segment that waits for its turn.
#[derive(Debug)]
struct Sealed {
    topic: TopicName,
    path: PathBuf,
    first: Offset,
    len: u64,
}

#[derive(Debug)]
struct Current {
    sealed: Sealed,
    lines: Lines,
    next: Offset,
}

/// What a pass through all segments came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pass {
    /// Segments read.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Messages that are damaged.
    pub damaged: u64,
}

/// What a piece came to.
#[derive(Debug)]
pub enum Verified {
    /// There is more to read; these messages are damaged.
    More(Vec<LogError>),
    /// Everything was read.
    Done(Pass),
}

impl Verifier {
    /// Begins a pass through what is sealed now.
    ///
    /// # Errors
    /// [`LogError::Io`] if the directory can't be listed.
    pub fn begin(disk: &dyn Disk, dir: PathBuf) -> Result<Self, LogError> {
        let topics = scan(disk, &dir)?.topics;
        let sealed = topics.into_iter().flat_map(|(topic, files)| {
            let of_topic = |file: super::SegmentFile| {
                let (topic, path) = (topic.clone(), dir.join(&file.name));
                file.first.map(|first| Sealed { topic, path, first, len: file.len })
            };
            files.into_iter().filter_map(of_topic).collect::<Vec<_>>()
        });
        let to_do = sealed.collect();
        Ok(Self { dir, to_do, current: None, sums: Pass::default() })
    }

    /// Reads about so many bytes.
    ///
    /// # Errors
    /// [`LogError::Io`]; the segment is passed over then.
    pub fn step(&mut self, disk: &dyn Disk, bytes: u64) -> Result<Verified, LogError> {
        let mut damaged = Vec::new();
        let mut current = match self.current.take() {
            Some(current) => current,
            None => match self.to_do.pop_front() {
                Some(sealed) if self.is_trimmed(disk, &sealed)? => {
                    return Ok(Verified::More(damaged));
                }
                Some(sealed) => Current::open(disk, sealed)?,
                None => return Ok(Verified::Done(self.sums)),
            },
        };
        let (from, mut is_read) = (current.lines.at, false);
        while !is_read && current.lines.at - from < bytes {
            match current.line() {
                Ok(is_there) => is_read = !is_there,
                Err(error) if error.is_damage() => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        // Whoever removes a segment takes its name, and then cuts it little by little.
        if !damaged.is_empty() && self.is_trimmed(disk, &current.sealed)? {
            return Ok(Verified::More(Vec::new()));
        }
        self.sums.damaged += damaged.len() as u64;
        if is_read {
            self.sums.segments += 1;
            self.sums.bytes += current.sealed.len;
        } else {
            self.current = Some(current);
        }
        Ok(Verified::More(damaged))
    }

    /// Whether a segment went since the pass began, with all that stood before it: its topic no longer keeps
    /// it.
    fn is_trimmed(&self, disk: &dyn Disk, sealed: &Sealed) -> Result<bool, LogError> {
        match disk.open(&sealed.path, Open::Read) {
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
            _ => return Ok(false),
        }
        let files = scan(disk, &self.dir)?.topics.remove(&sealed.topic).unwrap_or_default();
        Ok(files.iter().all(|file| file.first.is_none_or(|first| first > sealed.first)))
    }

    /// The directory.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }
}

impl Current {
    fn open(disk: &dyn Disk, sealed: Sealed) -> Result<Self, LogError> {
        let file = disk.open(&sealed.path, Open::Read);
        let file = file.map_err(|source| LogError::io(&sealed.path, source))?;
        let lines = Lines::new(file, &sealed.path, 0, BLOCK_BYTES);
        Ok(Self { next: sealed.first, sealed, lines })
    }

    /// Looks at the next line; false at the end.
    fn line(&mut self) -> Result<bool, LogError> {
        let Some(raw) = self.lines.next(self.sealed.len)? else { return Ok(false) };
        let (at, expected) = (raw.at, self.next);
        // What an earlier repair found lost is not found again.
        let found = match parse_lost(raw.bytes) {
            Some(offset) => Ok(offset),
            None => parse_line(&self.sealed.topic, raw.bytes).map(|line| line.offset),
        };
        let why = match found {
            Ok(offset) if offset == expected && raw.is_whole => {
                self.next = expected.next();
                return Ok(true);
            }
            Ok(_) if !raw.is_whole => "the line has no end".to_owned(),
            Ok(offset) => {
                self.next = offset.next();
                format!("offset {offset} stands here")
            }
            Err(error) => {
                self.next = expected.next();
                error.to_string()
            }
        };
        let (topic, path) = (self.sealed.topic.clone(), self.sealed.path.clone());
        Err(LogError::Corrupt { topic, offset: expected, path, at, why })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::{LogSettings, NewRecord, TailBudget, TopicLog};
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::time::Timestamp;

    const DIR: &str = "/data";

    fn whole_pass(disk: &SimDisk) -> (Vec<String>, Pass) {
        let mut verifier = Verifier::begin(disk, PathBuf::from(DIR)).unwrap();
        let mut found = Vec::new();
        loop {
            match verifier.step(disk, 300).unwrap() {
                Verified::More(damaged) => found.extend(damaged.iter().map(ToString::to_string)),
                Verified::Done(pass) => return (found, pass),
            }
        }
    }

    fn sealed(disk: &SimDisk) -> TopicLog {
        filled(disk, 1000, 60, "")
    }

    /// Segments of five messages, of which a reader has no more than two in memory.
    fn large(disk: &SimDisk) -> TopicLog {
        filled(disk, 500_000, 17, &"x".repeat(100_000))
    }

    fn filled(disk: &SimDisk, segment_bytes: u64, count: u64, filling: &str) -> TopicLog {
        disk.create_dir(Path::new("/data/.wiber/index")).unwrap();
        let topic = TopicName::parse(b"chat").unwrap();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let settings = LogSettings { segment_bytes };
        let tail = Arc::new(TailBudget::new(0));
        let mut log = TopicLog::create(shared, Path::new(DIR), topic, settings, tail);
        for n in 0..count {
            let (ts, message) = (Timestamp::from_micros(n), format!("message {n}{filling}"));
            log.append(&NewRecord { ts, id: None, message: message.as_bytes(), extra: "" });
            log.flush().unwrap();
        }
        log
    }

    #[test]
    fn what_is_no_longer_kept_is_passed_over_and_what_is_missing_is_told() {
        let disk = SimDisk::new();
        let mut log = sealed(&disk);
        log.trim(log.end().next()).unwrap();
        let files = log.take_trimmed();
        assert!(files.len() > 3);
        let begin = || Verifier::begin(&disk, PathBuf::from(DIR)).unwrap();
        let (mut trimmed, mut missing) = (begin(), begin());
        disk.remove(&files[1].log).unwrap();
        let mut step = || missing.step(&disk, 100_000);
        assert!(matches!(step(), Ok(Verified::More(damaged)) if damaged.is_empty()));
        assert!(step().unwrap_err().to_string().contains("chat@"), "one before it is there");
        disk.remove(&files[0].log).unwrap();
        let mut steps = 0;
        while let Verified::More(damaged) = trimmed.step(&disk, 100_000).unwrap() {
            assert!(damaged.is_empty());
            steps += 1;
        }
        assert_eq!(steps, files.len());
    }

    /// It was told as damaged: a file that is removed is cut little by little, by whoever has taken its name.
    #[test]
    fn what_is_removed_while_it_is_read_is_passed_over_and_what_only_becomes_short_is_told() {
        for is_removed in [true, false] {
            let disk = SimDisk::new();
            let mut log = large(&disk);
            log.trim(log.end().next()).unwrap();
            let files = log.take_trimmed();
            assert_eq!(files.len(), 3);
            let mut verifier = Verifier::begin(&disk, PathBuf::from(DIR)).unwrap();
            let mut step = |bytes| match verifier.step(&disk, bytes).unwrap() {
                Verified::More(damaged) => damaged.len(),
                Verified::Done(pass) => panic!("{pass:?}"),
            };
            for files in files {
                assert_eq!(step(1), 0);
                let trash = Path::new("/data/.wiber/trash");
                let path = if is_removed { trash } else { &files.log };
                disk.rename(&files.log, path).unwrap();
                disk.open(path, Open::Write).unwrap().truncate(130).unwrap();
                assert_eq!(step(1 << 20), usize::from(!is_removed));
            }
            let Ok(Verified::Done(pass)) = verifier.step(&disk, 1) else { panic!("not done") };
            assert_eq!(pass.damaged, if is_removed { 0 } else { 3 });
        }
    }

    #[test]
    fn a_flipped_bit_in_a_sealed_segment_is_found_and_named() {
        let disk = SimDisk::new();
        drop(sealed(&disk));
        let (found, pass) = whole_pass(&disk);
        assert!(found.is_empty() && pass.segments > 3 && pass.bytes > 3000, "{found:?} {pass:?}");
        let path = Path::new("/data/chat@00000000000000000001.log");
        disk.flip_bit(path, 30, 2).unwrap();
        let (found, again) = whole_pass(&disk);
        assert_eq!(again, Pass { damaged: 1, ..pass });
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("message 1 of topic chat is damaged"), "{}", found[0]);
        assert!(found[0].contains("chat@00000000000000000001.log at byte 0"), "{}", found[0]);
    }
}
