//! Checkpoints: the state of all topics, each with the position of the write-ahead log that it covers.
//! Those of the shards, in the first line, are covered by all of their topics.
//!
//! `.wiber/checkpoint/<number, 16 digits>.json`, one JSON object a line:
//!
//! ```text
//! {"wiber":"checkpoint","format":1,"number":7,"ts":…,"clean":false,"shards":[{"shard":0,"index":…,"lsn":…}],"topics":2}
//! {"topic":"chat","lsn":…,"mark":{…},"groups":{"g":{…}}}
//! {"topic":"chat.dlq",…}
//! {"end":7,"topics":2,"crc":"9f2a11c0"}
//! ```
//!
//! The last line's crc is the CRC-32C of all bytes before that line. A checkpoint is written beside
//! its place, synced, and renamed: one without its last line was never one. Two are kept; the log
//! is freed only before the older one.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::delivery::Progress;
use crate::disk::{self, Disk, Replacement};
use crate::log::{LogError, LogMark, SyncJob, TrimmedFiles};
use crate::planted::{self, Bug};
use crate::time::Timestamp;
use crate::wal::{Covered, Lsn};

/// The version of the format that this code writes and reads.
const FORMAT: u32 = 1;

/// How many checkpoints are kept.
const KEPT: usize = 2;

/// How far a shard's state goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied {
    /// The last batch.
    pub index: u64,
    /// Its record.
    pub lsn: Lsn,
}

/// What one shard gives to a checkpoint: all of its state, or a piece of it.
///
/// The pieces of a shard are not of one moment: it goes on between them. What a topic's state covers
/// stands beside it, and all of it goes at least as far as the shard had come at the first piece: what
/// the log has behind that is applied again, for each topic what it does not cover.
#[derive(Debug)]
pub struct Part {
    /// The shard.
    pub shard: u32,
    /// How far all of its state goes at least.
    pub applied: Applied,
    /// Its topics, each with the record of the log that its state covers.
    pub topics: Vec<(Lsn, TopicState)>,
    /// The files that have to be synced before the checkpoint counts.
    pub syncs: Vec<SyncJob>,
    /// Files of messages that are no longer kept since the last one.
    pub trimmed: Vec<TrimmedFiles>,
    /// Where the next piece begins ([`Shard::part`](super::shard::Shard::part)); `None` if all is there.
    pub next: Option<usize>,
}

/// The state of all shards as it is taken from them, a piece at a time.
#[derive(Debug)]
pub struct Taking {
    shards: usize,
    piece: usize,
    /// In the order of the shards; the last may not be whole yet.
    parts: Vec<Part>,
    is_short: bool,
}

impl Taking {
    /// Nothing was taken yet from so many shards, which give so many topics at a time.
    pub fn new(shards: usize, piece: usize) -> Self {
        Self { shards, piece, parts: Vec::new(), is_short: false }
    }

    /// What comes next: the shard, and which of its topics. `None` when all is there, or a shard had
    /// no room for what it has to write before.
    pub fn wants(&self) -> Option<(usize, Range<usize>)> {
        let (shard, begin) = match self.parts.last().and_then(|part| part.next) {
            Some(next) => (self.parts.len() - 1, next),
            None => (self.parts.len(), 0),
        };
        let is_wanted = !self.is_short && shard < self.shards;
        is_wanted.then(|| (shard, begin..begin.saturating_add(self.piece)))
    }

    /// Takes what was wanted; `None` if the shard held it back.
    pub fn take(&mut self, piece: Option<Part>) {
        match (piece, self.parts.last_mut().filter(|part| part.next.is_some())) {
            (None, _) => self.is_short = true,
            (Some(piece), None) => self.parts.push(piece),
            (Some(Part { topics, syncs, trimmed, next, .. }), Some(part)) => {
                part.topics.extend(topics);
                part.syncs.extend(syncs);
                part.trimmed.extend(trimmed);
                part.next = next;
            }
        }
    }

    /// Files of messages that are no longer kept: from now on nobody else knows of them.
    pub fn take_trimmed(&mut self) -> Vec<TrimmedFiles> {
        self.parts.iter_mut().flat_map(|part| std::mem::take(&mut part.trimmed)).collect()
    }

    /// All parts; or what of them has to be synced, if one was held back.
    ///
    /// # Errors
    /// The files to sync: nobody else knows of them any more.
    pub fn finish(self) -> Result<Vec<Part>, Vec<SyncJob>> {
        if self.is_short {
            return Err(self.parts.into_iter().flat_map(|part| part.syncs).collect());
        }
        Ok(self.parts)
    }
}

/// One topic in a checkpoint.
#[derive(Clone, PartialEq, Debug)]
pub struct TopicState {
    /// Its name.
    pub topic: String,
    /// Where its log ends.
    pub mark: LogMark,
    /// Its groups.
    pub groups: BTreeMap<String, Progress>,
}

/// A checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// 1, 2, 3 …
    pub number: u64,
    /// Whether it was written when the daemon stopped in order.
    pub is_clean: bool,
    /// How far each shard had come.
    pub shards: BTreeMap<u32, Applied>,
    /// The topics, each with the record of the log that its state covers.
    pub topics: Vec<(Lsn, TopicState)>,
}

/// Why a checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk says no.
    #[error("failed to read or write {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A topic's file could not be synced. Unless it only could not be opened for that, nothing is known
    /// about its pages.
    #[error(transparent)]
    Sync(LogError),
    /// The file is not what was written.
    #[error("{} is damaged at byte {at}: {why}; run wiber check", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
        /// What is wrong.
        why: String,
    },
}

impl CheckpointError {
    /// Whether there was no room or no file descriptor for it, and the checkpoints before it still count.
    pub fn is_shortage(&self) -> bool {
        match self {
            CheckpointError::Io { source, .. } => {
                disk::is_shortage(source) && !planted::has(Bug::ShortageFatal)
            }
            CheckpointError::Sync(error) => error.is_shortage(),
            CheckpointError::Damaged { .. } => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    wiber: String,
    format: u32,
    number: u64,
    ts: Timestamp,
    clean: bool,
    shards: Vec<ShardHead>,
    topics: usize,
}

#[derive(Serialize, Deserialize)]
struct ShardHead {
    shard: u32,
    index: u64,
    lsn: Lsn,
}

/// Not flattened from a [`TopicState`]: serde then reads the numbers that are keys as text.
#[derive(Serialize, Deserialize)]
struct TopicLine {
    topic: String,
    lsn: Lsn,
    mark: LogMark,
    groups: BTreeMap<String, Progress>,
}

#[derive(Serialize, Deserialize)]
struct Tail {
    end: u64,
    topics: usize,
    crc: String,
}

impl Checkpoint {
    /// A checkpoint of these parts.
    pub fn of(number: u64, is_clean: bool, parts: Vec<Part>) -> (Checkpoint, Vec<SyncJob>) {
        let mut checkpoint = Checkpoint { number, is_clean, ..Checkpoint::default() };
        let mut syncs = Vec::new();
        for part in parts {
            checkpoint.shards.insert(part.shard, part.applied);
            let mut topics = part.topics;
            if planted::has(Bug::PiecesAsOne) {
                topics.iter_mut().for_each(|(lsn, _)| *lsn = part.applied.lsn);
            }
            checkpoint.topics.extend(topics);
            syncs.extend(part.syncs);
        }
        // One that was forgotten and made again between two pieces is there twice: the later state counts.
        let topics = &mut checkpoint.topics;
        topics.sort_by(|(a, one), (b, other)| one.topic.cmp(&other.topic).then(b.cmp(a)));
        topics.dedup_by(|(_, older), (_, newer)| older.topic == newer.topic);
        (checkpoint, syncs)
    }

    /// The record of the log up to which nothing has to be applied again.
    pub fn lsn(&self) -> Lsn {
        self.shards.values().map(|applied| applied.lsn).min().unwrap_or_default()
    }

    /// What it says of the log.
    pub fn covered(&self) -> Covered {
        let topics = self.topics.iter().map(|(lsn, _)| *lsn);
        let all = self.shards.values().map(|applied| applied.lsn).chain(topics);
        Covered { from: self.lsn(), durable: all.max().unwrap_or_default() }
    }

    /// Writes it and removes all but the newest two.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]; the checkpoints before it are then still there.
    pub fn write(&self, disk: &dyn Disk, dir: &Path, ts: Timestamp) -> Result<(), CheckpointError> {
        self.put(disk, dir, ts)?;
        let mut numbers = numbers(disk, dir)?;
        numbers.reverse();
        let old = numbers.get(KEPT..).unwrap_or_default();
        for old in old {
            let path = dir.join(file_name(*old));
            disk.remove(&path).map_err(|source| io_error(&path, source))?;
        }
        if !old.is_empty() {
            // What is kept says how far the log may be freed: one must not come back after a power cut.
            disk.sync_dir(dir).map_err(|source| io_error(dir, source))?;
        }
        Ok(())
    }

    /// Writes it, and removes none.
    ///
    /// # Errors
    /// As for [`Checkpoint::write`].
    pub(crate) fn put(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        ts: Timestamp,
    ) -> Result<(), CheckpointError> {
        let path = dir.join(file_name(self.number));
        self.replace(disk, &path, ts).map_err(|source| io_error(&path, source))
    }

    fn replace(&self, disk: &dyn Disk, path: &Path, ts: Timestamp) -> io::Result<()> {
        let mut out = Lines { file: Replacement::begin(disk, path)?, line: Vec::new(), crc: 0 };
        let shards = self
            .shards
            .iter()
            .map(|(shard, at)| ShardHead { shard: *shard, index: at.index, lsn: at.lsn })
            .collect();
        let head = Head {
            wiber: "checkpoint".to_owned(),
            format: FORMAT,
            number: self.number,
            ts,
            clean: self.is_clean,
            shards,
            topics: self.topics.len(),
        };
        out.push(&head)?;
        for (lsn, state) in &self.topics {
            let TopicState { topic, mark, groups } = state.clone();
            out.push(&TopicLine { topic, lsn: *lsn, mark, groups })?;
        }
        let crc = format!("{:08x}", out.crc);
        out.push(&Tail { end: self.number, topics: self.topics.len(), crc })?;
        out.file.finish()
    }

    /// Reads the newest; `None` if there is none.
    ///
    /// # Errors
    /// [`CheckpointError`]. A damaged newest one is not passed over in silence: the older one is
    /// for `wiber check --repair`.
    pub fn newest(disk: &dyn Disk, dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
        let Some(number) = numbers(disk, dir)?.pop() else { return Ok(None) };
        Self::read(disk, dir, number).map(Some)
    }

    /// Reads the one with this number.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn read(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Checkpoint, CheckpointError> {
        let path = path(dir, number);
        let bytes = disk::read_all(disk, &path).map_err(|source| io_error(&path, source))?;
        match Self::parse(&bytes) {
            Ok(checkpoint) if checkpoint.number == number => Ok(checkpoint),
            Ok(other) => {
                let why = format!("it says that it is number {}", other.number);
                Err(CheckpointError::Damaged { path, at: 0, why })
            }
            Err((at, why)) => Err(CheckpointError::Damaged { path, at, why }),
        }
    }

    /// The oldest that is kept, whose position bounds what of the log may be freed.
    ///
    /// # Errors
    /// As for [`Checkpoint::newest`].
    pub fn oldest_lsn(disk: &dyn Disk, dir: &Path) -> Result<Lsn, CheckpointError> {
        let Some(number) = numbers(disk, dir)?.into_iter().next() else {
            return Ok(Lsn::default());
        };
        let path = dir.join(file_name(number));
        let bytes = disk::read_all(disk, &path).map_err(|source| io_error(&path, source))?;
        match Self::parse(&bytes) {
            Ok(checkpoint) => Ok(checkpoint.lsn()),
            Err((at, why)) => Err(CheckpointError::Damaged { path, at, why }),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Checkpoint, (usize, String)> {
        let mut at = 0;
        let mut lines = bytes.split_inclusive(|b| *b == b'\n').map(|line| {
            let start = at;
            at += line.len();
            (start, line)
        });
        let mut next = |what: &str| lines.next().ok_or((bytes.len(), format!("{what} is missing")));
        let (start, line) = next("the first line")?;
        let head: Head = parse_line(start, line)?;
        if head.format != FORMAT {
            return Err((start, format!("format {} is not known to this version", head.format)));
        }
        let mut checkpoint =
            Checkpoint { number: head.number, is_clean: head.clean, ..Checkpoint::default() };
        has_next(start, "number", head.number)?;
        for shard in head.shards {
            has_next(start, "index", shard.index)?;
            has_next(start, "lsn", shard.lsn.get())?;
            checkpoint.shards.insert(shard.shard, Applied { index: shard.index, lsn: shard.lsn });
        }
        for _ in 0..head.topics {
            let (start, line) = next("the line of a topic")?;
            let TopicLine { topic, lsn, mark, groups } = parse_line(start, line)?;
            has_next(start, "lsn", lsn.get())?;
            has_next(start, "end", mark.end.get())?;
            has_next(start, "segment", mark.segment.get())?;
            checkpoint.topics.push((lsn, TopicState { topic, mark, groups }));
        }
        let (start, line) = next("the last line")?;
        let tail: Tail = parse_line(start, line)?;
        let lines = bytes[..start].split_inclusive(|b| *b == b'\n').map(summed);
        let crc = lines.fold(0, crc32c::crc32c_append);
        let crc = format!("{crc:08x}");
        if tail.crc != crc {
            return Err((start, format!("the checksum is {crc} where {} is written", tail.crc)));
        }
        if tail.end != head.number || tail.topics != head.topics || at != bytes.len() {
            return Err((start, "the last line does not fit the first".to_owned()));
        }
        Ok(checkpoint)
    }
}

/// All that is counted goes on from where it is: the largest number of all was never written.
fn has_next(at: usize, name: &str, number: u64) -> Result<(), (usize, String)> {
    let has = number < u64::MAX;
    has.then_some(()).ok_or_else(|| (at, format!("{name} is {number}, and no number follows it")))
}

/// A checkpoint's file while it is written.
struct Lines<'a> {
    file: Replacement<'a>,
    line: Vec<u8>,
    /// Of all lines so far.
    crc: u32,
}

impl Lines<'_> {
    fn push(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line).expect("a Vec takes all, and names are text");
        self.line.push(b'\n');
        self.crc = crc32c::crc32c_append(self.crc, summed(&self.line));
        self.file.write(&self.line)
    }
}

/// What the checksum is of: all of a line.
fn summed(line: &[u8]) -> &[u8] {
    if planted::has(Bug::GroupsUnsummed) { planted::without_groups(line) } else { line }
}

fn parse_line<'a, T: Deserialize<'a>>(at: usize, line: &'a [u8]) -> Result<T, (usize, String)> {
    let Some(line) = line.strip_suffix(b"\n") else {
        return Err((at, "the line has no end".to_owned()));
    };
    serde_json::from_slice(line).map_err(|e| (at, e.to_string()))
}

fn file_name(number: u64) -> String {
    format!("{number:016}.json")
}

/// Where the checkpoint with this number is.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(file_name(number))
}

/// The numbers of the checkpoints there are, ascending.
pub(crate) fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, CheckpointError> {
    let entries = disk.list(dir).map_err(|source| io_error(dir, source))?;
    let number = |name: &str| {
        let digits = name.strip_suffix(".json").filter(|digits| digits.len() == 16)?;
        digits.parse().ok()
    };
    let mut all: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    all.sort_unstable();
    Ok(all)
}

fn io_error(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Attempt, Change, Outcome};
    use crate::disk::sim::SimDisk;
    use crate::ids::Offset;

    fn example(number: u64) -> Checkpoint {
        let mut progress = Progress::starting_at(Offset::FIRST);
        for offset in [1, 2, 5, 6, 9] {
            progress.apply(&Change::Settled { offset: Offset::new(offset) });
        }
        let attempt = Attempt {
            n: 1,
            consumer: "c1".to_owned(),
            sent: Timestamp::from_micros(1),
            ended: Timestamp::from_micros(2),
            outcome: Outcome::Dead,
            reason: None,
            uncounted: false,
            error: None,
        };
        progress.apply(&Change::Failed { offset: Offset::new(7), attempt });
        let state = TopicState {
            topic: "chat".to_owned(),
            mark: LogMark { end: Offset::new(9), len: 900, ..LogMark::default() },
            groups: BTreeMap::from([("g".to_owned(), progress)]),
        };
        let at = Applied { index: 7, lsn: Lsn::new(number + 10) };
        let shards = BTreeMap::from([(0, at)]);
        Checkpoint { number, is_clean: true, shards, topics: vec![(Lsn::new(9), state)] }
    }

    #[test]
    fn a_checkpoint_reads_back_and_two_are_kept() {
        let disk = SimDisk::new();
        let dir = Path::new("/checkpoint");
        disk.create_dir(dir).unwrap();
        assert!(Checkpoint::newest(&disk, dir).unwrap().is_none());
        for number in 1..=4 {
            example(number).write(&disk, dir, Timestamp::from_micros(5)).unwrap();
        }
        let newest = Checkpoint::newest(&disk, dir).unwrap().unwrap();
        assert_eq!((newest.number, newest.is_clean), (4, true));
        assert_eq!(newest.topics, example(4).topics);
        assert_eq!(newest.lsn(), Lsn::new(14));
        assert_eq!(Checkpoint::oldest_lsn(&disk, dir).unwrap(), Lsn::new(13));
        assert_eq!(disk.list(dir).unwrap().len(), KEPT);
    }

    #[test]
    fn a_topic_that_was_taken_twice_counts_as_it_was_later() {
        let state = |topic: &str, end| TopicState {
            topic: topic.to_owned(),
            mark: LogMark { end: Offset::new(end), ..LogMark::default() },
            groups: BTreeMap::new(),
        };
        let piece = |lsn, topics: &[(&str, u64)], next| {
            let lsn = Lsn::new(lsn);
            let topics = topics.iter().map(|(topic, end)| (lsn, state(topic, *end))).collect();
            let applied = Applied { index: lsn.get(), lsn };
            let (syncs, trimmed) = (Vec::new(), Vec::new());
            Some(Part { shard: 0, applied, topics, syncs, trimmed, next })
        };
        let mut taking = Taking::new(1, 2);
        assert_eq!(taking.wants(), Some((0, 0..2)));
        taking.take(piece(7, &[("b", 0), ("d", 4)], Some(2)));
        assert_eq!(taking.wants(), Some((0, 2..4)));
        taking.take(piece(9, &[("c", 3), ("b", 2)], None));
        assert_eq!(taking.wants(), None);
        let (checkpoint, _) = Checkpoint::of(1, false, taking.finish().unwrap());
        let at = |lsn, topic, end| (Lsn::new(lsn), state(topic, end));
        assert_eq!(checkpoint.topics, [at(9, "b", 2), at(9, "c", 3), at(7, "d", 4)]);
        let Covered { from, durable } = checkpoint.covered();
        assert_eq!((from.get(), durable.get()), (7, 9));
    }

    #[test]
    fn any_flipped_bit_is_damage_that_names_the_file() {
        let disk = SimDisk::new();
        let dir = Path::new("/checkpoint");
        disk.create_dir(dir).unwrap();
        example(1).write(&disk, dir, Timestamp::from_micros(5)).unwrap();
        let path = dir.join(file_name(1));
        let len = disk.files()[&path].len() as u64;
        for at in 0..len {
            disk.flip_bit(&path, at, 1).unwrap();
            let error = Checkpoint::newest(&disk, dir).unwrap_err();
            assert!(matches!(error, CheckpointError::Damaged { .. }), "byte {at}");
            assert!(error.to_string().contains("0000000000000001.json"), "{error}");
            disk.flip_bit(&path, at, 1).unwrap();
        }
        disk.open(&path, crate::disk::Open::Write).unwrap().truncate(len - 5).unwrap();
        assert!(Checkpoint::newest(&disk, dir).is_err());
    }
}
