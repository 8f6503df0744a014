//! When an index is written.

use super::*;
use crate::disk::read_all;

/// Every checkpoint once wrote the index of every topic that had got a message, beside its place, and
/// renamed it: with 20,000 topics the keeper had work for three seconds, and with 1,000 busy ones it
/// took a third of what the broker did.
#[test]
fn an_index_is_saved_when_it_has_something_new_and_only_that_is_written() {
    let disk = disk();
    let settings = LogSettings { segment_bytes: 1 << 20 };
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
    assert_eq!(step(70_000).0, 41);
    assert_eq!(step(10).0, 2);
    let before = disk.count(Op::Write);
    assert_eq!(step(10).0, 2);
    assert_eq!(disk.count(Op::Write), before + 1, "the line, and nothing else");
    disk.flip_bit(&path, 0, 0).unwrap();
    assert_eq!(step(70_000).0, 2);
    let (entries, mark) = step(10);
    let saved = index::entries(&read_all(&disk, &path).unwrap());
    assert_eq!((entries, saved[0].offset), (3, Offset::ZERO), "what was there stays as it is");
    assert_eq!((saved[2].offset, saved[2].at > 140_000), (Offset::new(6), true));
    // A file that somebody has removed begins with a hole then, and is no index.
    disk.remove(&path).unwrap();
    step(70_000);
    let (entries, last) = step(10);
    assert_eq!(entries, 4);
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
