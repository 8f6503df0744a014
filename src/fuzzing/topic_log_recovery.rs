//! A topic's files, written in order and then harmed, or given as they are.
//!
//! The first byte says how: 0 to 127 is a script (append records, then write anything anywhere);
//! from 128 on the rest is `chat.log`, with its checksums mended if the byte is odd.
//!
//! * Opening at a mark changes nothing before it is asked to cut; cut twice, the bytes are the same.
//! * Adopting twice gives the same log from the same bytes.
//! * Readers come to an end, give the messages in order, and find the same one again by its offset.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Script;
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, Open};
use crate::ids::{Offset, TopicName};
use crate::log::{
    LogError, LogMark, LogSettings, NewRecord, Reader, SegmentFile, TailBudget, TopicLog, scan,
};
use crate::time::Timestamp;

const DIR: &str = "/data";
const SETTINGS: LogSettings = LogSettings { segment_bytes: 700 };

/// Files do not grow over this, whatever the script says, in bytes.
const FILE_BYTES_MAX: usize = 16 << 10;

/// A reader that gives more than this from such files gives each damaged message its turn: an
/// offset may claim anything.
const READS_MAX: usize = 2000;

pub(super) fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let how = script.u8();
    let disk = SimDisk::new();
    disk.create_dir(&Path::new(DIR).join(".wiber/index")).expect("the disk takes all");
    let mark = if how < 128 {
        let mark = write_log(&disk, &mut script);
        for _ in 0..16 {
            if script.is_over() {
                break;
            }
            harm(&disk, &mut script);
        }
        mark
    } else {
        let mut bytes = script.0.to_vec();
        if how & 1 == 1 {
            bytes = with_checksums(&bytes);
        }
        put(&disk, &Path::new(DIR).join("chat.log"), &bytes);
        LogMark::default()
    };
    offline(&disk);
    open_at(&fork(&disk), &mark);
    adopt(&fork(&disk));
}

fn topic() -> TopicName {
    TopicName::parse(b"chat").expect("a good name")
}

fn arc(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn budget() -> Arc<TailBudget> {
    Arc::new(TailBudget::new(0))
}

/// Another disk with the same files.
fn fork(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new();
    for (path, bytes) in disk.files() {
        copy.create_dir(path.parent().expect("a file is in a folder")).expect("the disk takes all");
        put(&copy, &path, &bytes);
    }
    copy.create_dir(&Path::new(DIR).join(".wiber/index")).expect("the disk takes all");
    copy
}

fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, Open::Create).expect("the disk takes all");
    file.truncate(0).expect("the disk takes all");
    file.write_at(&bytes[..bytes.len().min(FILE_BYTES_MAX)], 0).expect("the disk takes all");
}

/// The files of the topic.
fn logs(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let is_log = |path: &Path| path.extension().is_some_and(|ending| ending == "log");
    disk.files().into_iter().filter(|(path, _)| is_log(path)).collect()
}

/// The first part of a script: a log as the broker writes it, and its mark at some moment.
fn write_log(disk: &SimDisk, script: &mut Script<'_>) -> LogMark {
    let mut log = TopicLog::create(arc(disk), Path::new(DIR), topic(), SETTINGS, budget());
    let mut mark = log.mark();
    for _ in 0..40 {
        let op = script.u8();
        match op {
            0 => break,
            1 => log.flush().expect("the disk takes all"),
            2 => {
                log.flush().expect("the disk takes all");
                mark = log.mark();
            }
            _ => {
                let mut message = script.take(usize::from(op >> 4)).to_vec();
                message.resize(message.len() + usize::from(op & 15) * 9, b'm');
                let ts = Timestamp::from_micros(1_000_000 * u64::from(op));
                let id = (op & 64 > 0).then_some("own-\"id\"");
                log.append(&NewRecord { ts, id, message: &message, extra: "" });
            }
        }
    }
    log.flush().expect("the disk takes all");
    mark
}

/// Something happens to one of the files.
fn harm(disk: &SimDisk, script: &mut Script<'_>) {
    let op = script.u8();
    let files = disk.files();
    let Some((path, bytes)) = files.iter().nth(script.place(files.len())) else { return };
    let mut bytes = bytes.clone();
    let at = script.place(bytes.len());
    match op % 8 {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << (script.u8() & 7),
        1 => {
            let count = script.u8();
            let new = script.take(usize::from(count));
            bytes.splice(at..at, new.iter().copied());
        }
        2 => drop(bytes.drain(at..(at + script.place(bytes.len())).min(bytes.len()))),
        3 => bytes.truncate(at),
        4 => {
            let count = usize::from(script.u8()).min(bytes.len() - at);
            let copy = bytes[at..at + count].to_vec();
            bytes.extend(copy);
        }
        5 => bytes = with_checksums(&bytes),
        6 => {
            let name = format!("chat@{:020}.log", script.number());
            return put(disk, &Path::new(DIR).join(name), &bytes);
        }
        _ => return disk.remove(path).expect("it was listed"),
    }
    put(disk, path, &bytes);
}

/// Each line that has an offset and a checksum, with the right checksum.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut mended = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let whole = line.strip_suffix(b"\n").unwrap_or(line);
        match std::str::from_utf8(whole).ok().and_then(with_checksum) {
            Some(good) => {
                mended.extend_from_slice(good.as_bytes());
                mended.extend_from_slice(&line[whole.len()..]);
            }
            None => mended.extend_from_slice(line),
        }
    }
    mended
}

fn with_checksum(line: &str) -> Option<String> {
    let (body, _crc) = line.rsplit_once(",\"crc\":\"")?;
    let (_, rest) = body.split_once("\"offset\":")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let offset: u64 = rest[..end].parse().ok()?;
    let mut sum = crc32c::crc32c(b"chat");
    sum = crc32c::crc32c_append(sum, &offset.to_le_bytes());
    sum = crc32c::crc32c_append(sum, body.as_bytes());
    Some(format!("{body},\"crc\":\"{sum:08x}\"}}"))
}

/// What `wiber history` does without a daemon.
fn offline(disk: &SimDisk) {
    let before = disk.files();
    match Reader::offline(arc(disk), Path::new(DIR), topic()) {
        Ok(mut reader) => read_all(&mut reader),
        Err(error) => assert!(error.is_damage(), "the disk is well: {error}"),
    }
    // An index may have been made anew: it is derived.
    assert_eq!(without_index(before), without_index(disk.files()), "a reader changes nothing");
}

fn without_index(files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Vec<(PathBuf, Vec<u8>)> {
    let is_index = |path: &Path| path.extension().is_some_and(|ending| ending == "idx");
    files.into_iter().filter(|(path, _)| !is_index(path)).collect()
}

/// The topic's files.
fn files(disk: &SimDisk) -> Vec<SegmentFile> {
    let scan = scan(disk, Path::new(DIR)).expect("the disk is well");
    scan.topics
        .into_iter()
        .find(|(name, _)| *name == topic())
        .map_or(Vec::new(), |(_, files)| files)
}

fn open_at(disk: &SimDisk, mark: &LogMark) {
    let open = || {
        let files = files(disk);
        TopicLog::open(arc(disk), Path::new(DIR), topic(), SETTINGS, budget(), mark, &files)
    };
    let before = disk.files();
    let opened = open();
    assert_eq!(disk.files(), before, "opening changes nothing");
    let mut log = match opened {
        Ok(log) => log,
        Err(error) => return assert!(error.is_damage(), "the disk is well: {error}"),
    };
    log.cut(&files(disk)).expect("the disk takes all");
    let cut = logs(disk);
    let mut log = open().expect("what was cut to its mark opens at it");
    log.cut(&files(disk)).expect("the disk takes all");
    assert_eq!(logs(disk), cut, "cut again, nothing changes");
    read_all(&mut log.reader());
    goes_on(&mut log);
}

fn adopt(disk: &SimDisk) {
    let adopt =
        || TopicLog::adopt(arc(disk), Path::new(DIR), topic(), SETTINGS, budget(), &files(disk));
    let (log, adopted) = match adopt() {
        Ok(adopted) => adopted,
        Err(error) => return assert!(error.is_damage(), "the disk is well: {error}"),
    };
    let (mark, files) = (log.mark(), logs(disk));
    drop(log);
    let (mut log, again) = adopt().expect("what was adopted is adopted again");
    assert_eq!((again.records, again.torn), (adopted.records, None), "adopted again, it is whole");
    assert_eq!((log.mark(), logs(disk)), (mark, files), "adopted again, it is the same");
    let mut reader = log.reader();
    let mut count = 0;
    while let Some(line) = reader.next().expect("every line was read and found good") {
        count += 1;
        assert_eq!(line.offset.get(), mark.first.get() + count - 1);
    }
    assert_eq!(count, adopted.records);
    goes_on(&mut log);
}

/// What is appended next can be read.
fn goes_on(log: &mut TopicLog) {
    if log.end().get() >= u64::MAX - 1 {
        return;
    }
    let ts = Timestamp::from_micros(5);
    let offset = log.append(&NewRecord { ts, id: None, message: b"more", extra: "" });
    log.flush().expect("the disk takes all");
    let mut reader = log.reader();
    reader.seek(offset).expect("the disk is well");
    let line = reader.next().expect("it was just written").expect("it is there");
    assert_eq!((line.offset, &*line.message), (offset, &b"more"[..]));
}

/// Reads from the first message on, and then some again by offset and time.
fn read_all(reader: &mut Reader) {
    let (first, end) = (reader.shared().first(), reader.shared().end());
    let mut seen = Vec::new();
    // A line too many is damage in the place of the next message, and costs none.
    let (mut last, mut damaged) = (Offset::ZERO, Offset::ZERO);
    for _ in 0..READS_MAX {
        match reader.next() {
            Ok(Some(line)) => {
                let is_next = line.offset > last && line.offset >= damaged;
                assert!(is_next && line.offset <= end, "in order, up to the end");
                last = line.offset;
                seen.push((line.offset, line.ts(), line.message.to_vec()));
            }
            Ok(None) => break,
            Err(LogError::Corrupt { offset, .. }) => {
                let is_next = offset > last && offset >= damaged;
                assert!(is_next && offset <= end, "damage has its place in the order");
                damaged = offset;
            }
            Err(error) => panic!("the disk is well: {error}"),
        }
    }
    for (offset, ts, message) in seen.iter().step_by(1 + seen.len() / 8) {
        reader.seek(*offset).expect("the disk is well");
        if let Ok(Some(line)) = reader.next() {
            assert_eq!(line.offset, *offset, "found by its offset");
            // Two lines may claim the same offset, and then either is right.
            if damaged == Offset::ZERO {
                assert_eq!((line.ts(), &*line.message), (*ts, &**message));
            }
        }
        if end.get().saturating_sub(first.get()) < READS_MAX as u64 {
            reader.seek_time(*ts).expect("the disk is well");
        }
    }
    reader.seek(end.next()).expect("the disk is well");
    assert!(end == Offset::new(u64::MAX) || matches!(reader.next(), Ok(None)));
}
