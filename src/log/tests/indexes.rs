//! When an index is written.

use super::*;
use crate::disk::read_all;

/// Every checkpoint once wrote the index of every topic that had got a message, beside its place, and
/// renamed it: with 20,000 topics the keeper had work for three seconds, and with 1,000 busy ones it
/// took a third of what the broker did. With every second entry in a file there were still a thousand of
/// those when a thousand topics had 200 kB each, which took as long as publishing all of it.
#[test]
fn an_index_is_saved_when_it_has_something_new_and_only_that_is_written() {
    let disk = disk();
    let settings = LogSettings { segment_bytes: 20 << 20 };
    let mut log = TopicLog::create(arc(&disk), Path::new(DIR), topic(), settings, budget());
    let path = Path::new(DIR).join(".wiber/index/chat@00000000000000000001.idx");
    // From an earlier life; longer than what comes.
    disk.open(&path, Open::Create).unwrap().write_at(&[7; 999], 0).unwrap();
    let mut step = |bytes: usize| {
        let message = vec![b'x'; bytes];
        let ts = Timestamp::from_micros(5);
        log.append(&NewRecord { ts, id: None, message: &message, extra: "" });
        log.flush().unwrap();
        let mark = checkpoint(&mut log, &disk);
        (index::entries(&read_all(&disk, &path).unwrap_or_default()).len(), mark)
    };
    assert_eq!(step(10).0, 41, "that it begins with the first message is known");
    // The first two lines have an entry in common.
    for entries in 1..16 {
        assert_eq!(step(70_000).0, 41, "{entries} entries are not worth it");
    }
    assert_eq!(step(70_000).0, 16);
    let before = disk.count(Op::Write);
    assert_eq!(step(10).0, 16);
    assert_eq!(disk.count(Op::Write), before + 1, "the line, and nothing else");
    disk.flip_bit(&path, 0, 0).unwrap();
    (0..15).for_each(|_| assert_eq!(step(70_000).0, 16));
    let (entries, mark) = step(70_000);
    let saved = index::entries(&read_all(&disk, &path).unwrap());
    assert_eq!((entries, saved[0].offset), (32, Offset::ZERO), "what was there stays as it is");
    assert_eq!((saved[16].offset, saved[16].at > 16 * 70_000), (Offset::new(18), true));
    // A file that somebody has removed begins with a hole then, and is no index.
    disk.remove(&path).unwrap();
    let steps: Vec<_> = (0..16).map(|_| step(70_000)).collect();
    let (entries, last) = steps[15];
    assert_eq!((steps[14].0, entries), (0, 48));
    for mark in [mark, last] {
        let files = files(&disk);
        let (dir, tail) = (Path::new(DIR), budget());
        let log = TopicLog::open(arc(&disk), dir, topic(), settings, tail, &mark, &files).unwrap();
        let end = mark.end.get();
        for offset in 1..=end {
            let mut reader = log.reader();
            reader.seek(Offset::new(offset)).unwrap();
            for expected in offset..=end {
                assert_eq!(reader.next().unwrap().unwrap().offset.get(), expected);
            }
            assert!(reader.next().unwrap().is_none());
        }
    }
}

/// A log of 10 kB messages in segments of a few megabytes, that was opened again in the middle of one.
struct Reopened {
    disk: SimDisk,
    log: TopicLog,
    mark: LogMark,
}

/// So many messages were in it before.
const BEFORE: u64 = 900;

/// As often is read if nothing is read for an index.
const FEW: u64 = 4;

impl Reopened {
    const SETTINGS: LogSettings = LogSettings { segment_bytes: 20 << 20 };

    fn new(is_index_kept: bool) -> Self {
        let (disk, dir) = (disk(), Path::new(DIR));
        let mut log = TopicLog::create(arc(&disk), dir, topic(), Self::SETTINGS, budget());
        add(&mut log, BEFORE);
        let mark = checkpoint(&mut log, &disk);
        if !is_index_kept {
            disk.remove(&path()).unwrap();
        }
        let files = files(&disk);
        let (disk_again, tail) = (arc(&disk), budget());
        let log =
            TopicLog::open(disk_again, dir, topic(), Self::SETTINGS, tail, &mark, &files).unwrap();
        Self { disk, log, mark }
    }

    /// Goes to a message, and says how often that read the disk.
    fn reads(&self, offset: u64) -> u64 {
        let before = self.disk.count(Op::Read);
        let mut reader = self.log.reader();
        reader.seek(Offset::new(offset)).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().offset.get(), offset);
        self.disk.count(Op::Read) - before
    }

    /// The same for a reader that makes no index.
    fn brief_reads(&self, offset: u64) -> u64 {
        let before = self.disk.count(Op::Read);
        let mut reader = self.log.reader().brief();
        reader.seek(Offset::new(offset)).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().offset.get(), offset);
        self.disk.count(Op::Read) - before
    }

    /// The index of the first segment, from its file: without a hole.
    fn entries(&self) -> Vec<index::Entry> {
        let entries = index::entries(&read_all(&self.disk, &path()).unwrap_or_default());
        let is_dense = |pair: &[index::Entry]| pair[1].at - pair[0].at < 100_000;
        assert!(entries.windows(2).all(is_dense), "{entries:?}");
        assert!(entries.first().is_none_or(|first| first.at == 0));
        entries
    }
}

fn path() -> std::path::PathBuf {
    Path::new(DIR).join(".wiber/index/chat@00000000000000000001.idx")
}

fn add(log: &mut TopicLog, count: u64) {
    let message = vec![b'x'; 10_000];
    for number in 0..count {
        let ts = Timestamp::from_micros(number);
        log.append(&NewRecord { ts, id: None, message: &message, extra: "" });
    }
    log.flush().unwrap();
}

/// What was written behind the part of a segment that was there at the start was in no index before
/// somebody wanted it: the first group that was behind made its shard read up to 64 MiB, and so did every
/// reader while more came.
#[test]
fn what_comes_behind_a_start_is_found_without_reading_what_was_before() {
    for is_index_kept in [true, false] {
        let mut this = Reopened::new(is_index_kept);
        add(&mut this.log, BEFORE);
        assert!(this.reads(2 * BEFORE) <= FEW);
        assert!(this.reads(BEFORE + 1) <= FEW);
        let first = this.reads(BEFORE / 2);
        assert_eq!(first <= FEW, is_index_kept, "{first} reads");
        assert!(this.reads(BEFORE / 2) <= FEW, "it is known now");
    }
}

#[test]
fn lines_that_come_while_an_index_is_made_are_in_it() {
    let mut this = Reopened::new(false);
    add(&mut this.log, 100);
    let shared = this.log.shared();
    let segment = shared.segment_of(Offset::FIRST);
    add(&mut this.log, 200);
    shared.index(&this.disk, segment, |_| false).unwrap();
    for offset in [1, BEFORE, BEFORE + 100, BEFORE + 300] {
        assert!(this.reads(offset) <= FEW, "{offset}");
    }
    // What came behind it then has to be counted, which is short.
    shared.rebuild(&this.disk, segment).unwrap();
    add(&mut this.log, 20);
    for offset in [1, BEFORE, BEFORE + 100, BEFORE + 320] {
        assert!(this.reads(offset) <= 2 * FEW, "{offset}");
    }
}

#[test]
fn a_checkpoint_after_a_start_makes_the_index_whole() {
    for is_index_kept in [true, false] {
        let mut this = Reopened::new(is_index_kept);
        add(&mut this.log, BEFORE);
        let before = this.disk.count(Op::Read);
        checkpoint(&mut this.log, &this.disk);
        let reads = this.disk.count(Op::Read) - before;
        assert_eq!(reads <= FEW, is_index_kept, "{reads} reads");
        let last = this.entries().last().copied().unwrap();
        assert!(last.at > this.mark.len * 2 - 100_000, "{last:?}");
    }
}

#[test]
fn a_segment_that_ends_after_a_start_has_its_index_at_the_next_checkpoint() {
    for is_index_kept in [true, false] {
        let mut this = Reopened::new(is_index_kept);
        add(&mut this.log, 2 * BEFORE);
        let end = |this: &Reopened| this.entries().last().map_or(0, |last| last.at);
        assert!(end(&this) <= this.mark.len, "not by the one who had to write");
        checkpoint(&mut this.log, &this.disk);
        assert!(end(&this) > Reopened::SETTINGS.segment_bytes - 200_000);
    }
}

/// A group that was behind once made its shard read a whole segment of 64 MiB when the index was gone.
#[test]
fn who_may_not_wait_finds_a_message_with_few_reads_whatever_became_of_the_index() {
    let mut this = Reopened::new(false);
    add(&mut this.log, BEFORE);
    for offset in (1..=2 * BEFORE).step_by(37).chain([BEFORE, BEFORE + 1, 2 * BEFORE]) {
        let reads = this.brief_reads(offset);
        // 9 MB before the start are halved until 128 KiB are left, with a look of 64 KiB each time.
        assert!(reads <= 20, "{offset}: {reads} reads");
    }
    let all = this.reads(BEFORE / 2);
    assert!(all > 2 * FEW, "{all} reads, of a mebibyte each, make the index");
    assert!(this.brief_reads(BEFORE / 2) <= FEW, "it is used as it was");
}

#[test]
fn a_damaged_line_or_index_misleads_nobody_who_may_not_wait() {
    let this = Reopened::new(true);
    let log = Path::new(DIR).join("chat.log");
    let index = read_all(&this.disk, &path()).unwrap();
    let lines = read_all(&this.disk, &log).unwrap();
    let place = |offset: u64| place(&lines, offset);
    // Every entry of the index but the first points to a line too late.
    let mut wrong = index::entries(&index);
    assert!(wrong.len() > 50);
    wrong.iter_mut().skip(1).for_each(|entry| entry.at = place(entry.offset.get() + 1));
    let numbers = |entry: &index::Entry| [entry.offset.get(), entry.at, entry.ts.as_micros()];
    let wrong: Vec<u8> = wrong.iter().flat_map(numbers).flat_map(u64::to_le_bytes).collect();
    this.disk.open(&path(), Open::Create).unwrap().write_at(&wrong, 0).unwrap();
    // And some lines where one looks first are damaged, one of them by a line end too many.
    let middle = BEFORE / 2;
    for damaged in middle - 3..middle + 10 {
        this.disk.flip_bit(&log, place(damaged) + 60, 1).unwrap();
    }
    let file = this.disk.open(&log, Open::Create).unwrap();
    file.write_at(b"\n", place(middle) + 100).unwrap();
    for offset in (1..=BEFORE).step_by(7).filter(|n| !(middle - 3..middle + 10).contains(n)) {
        this.brief_reads(offset);
    }
}

/// Where the message of an offset begins in the first segment.
fn place(lines: &[u8], offset: u64) -> u64 {
    let ends = memchr::memchr_iter(b'\n', lines).map(|end| end as u64 + 1);
    std::iter::once(0).chain(ends).nth(usize::try_from(offset - 1).unwrap()).unwrap()
}

/// A shard that was to deliver a damaged message once read all that came behind it in its segment.
#[test]
fn who_goes_to_a_message_that_is_damaged_or_lost_reads_nothing_far_behind_it() {
    let this = Reopened::new(true);
    let log = Path::new(DIR).join("chat.log");
    let lines = read_all(&this.disk, &log).unwrap();
    let [damaged, lost] = [300, 500];
    this.disk.flip_bit(&log, place(&lines, damaged) + 60, 1).unwrap();
    let [begin, end] = [lost, lost + 1].map(|offset| place(&lines, offset));
    let mut line = Vec::new();
    super::record::write_lost(&mut line, Offset::new(lost), 0);
    let padding = usize::try_from(end - begin).unwrap() - line.len();
    line.clear();
    super::record::write_lost(&mut line, Offset::new(lost), padding);
    this.disk.open(&log, Open::Write).unwrap().write_at(&line, begin).unwrap();
    for offset in [damaged, lost] {
        for mut reader in [this.log.reader(), this.log.reader().brief()] {
            let before = this.disk.count(Op::Read);
            reader.seek(Offset::new(offset)).unwrap();
            match reader.next() {
                Err(LogError::Corrupt { offset: found, at, .. }) => {
                    assert_eq!((found.get(), at), (offset, place(&lines, offset)));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(reader.next().unwrap().unwrap().offset.get(), offset + 1);
            let reads = this.disk.count(Op::Read) - before;
            assert!(reads <= FEW + 2, "{reads} reads, of a quarter of a mebibyte each");
        }
    }
}

/// Lines are counted from an entry of the index on, so that one that goes to a message whose own line
/// end and those before it are lost comes out too far behind.
#[test]
fn lost_line_ends_cost_the_messages_that_they_join_and_none_behind_them() {
    let this = Reopened::new(true);
    let log = Path::new(DIR).join("chat.log");
    let lines = read_all(&this.disk, &log).unwrap();
    let is_entry = |offset: u64| this.entries().iter().any(|entry| entry.offset.get() == offset);
    let first = (200..).find(|offset| is_entry(*offset)).unwrap();
    let file = this.disk.open(&log, Open::Write).unwrap();
    for joined in first..first + 3 {
        file.write_at(b"!", place(&lines, joined + 1) - 1).unwrap();
    }
    for offset in first..first + 8 {
        let mut reader = this.log.reader();
        reader.seek(Offset::new(offset)).unwrap();
        let (mut seen, mut damaged) = (Vec::new(), Vec::new());
        while seen.last() != Some(&(first + 8)) {
            match reader.next() {
                Ok(line) => seen.push(line.unwrap().offset.get()),
                Err(LogError::Corrupt { offset, .. }) => damaged.push(offset.get()),
                Err(other) => panic!("{other}"),
            }
        }
        let good = offset.max(first + 4);
        assert_eq!(seen, (good..=first + 8).collect::<Vec<_>>(), "from {offset}");
        assert_eq!(damaged, (offset..good).collect::<Vec<_>>(), "from {offset}");
    }
}
