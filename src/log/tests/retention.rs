//! What is kept of a log, and what goes.

use std::time::Duration;

use super::*;
use crate::log::{Ages, Retention, RetentionPlan};

const SECOND: u64 = 1_000_000;

/// A log with messages of one second each, three to a segment: 1 to 3, 4 to 6, 7 to 9, and 10 and 11, which
/// were published in the seconds of their numbers.
fn log(disk: &SimDisk) -> TopicLog {
    let mut log = three_a_segment(disk);
    for second in 1..=11 {
        append_at(&mut log, second);
    }
    assert_eq!(firsts(&log), [1, 4, 7, 10]);
    log
}

fn three_a_segment(disk: &SimDisk) -> TopicLog {
    let settings = LogSettings { segment_bytes: 300 };
    TopicLog::create(arc(disk), Path::new(DIR), topic(), settings, budget())
}

fn append_at(log: &mut TopicLog, second: u64) {
    let (ts, message) = (Timestamp::from_micros(second * SECOND), "a message of a hundred bytes");
    log.append(&NewRecord { ts, id: None, message: message.as_bytes(), extra: "" });
    log.flush().unwrap();
}

fn firsts(log: &TopicLog) -> Vec<u64> {
    log.shared().segments().iter().map(|segment| segment.first.get()).collect()
}

const ALL: Offset = Offset::new(u64::MAX);

fn plan(log: &TopicLog, retention: Retention, second: u64, needed: Offset) -> RetentionPlan {
    let (mut ages, now) = (Ages::default(), Timestamp::from_micros(second * SECOND));
    let disk = log.disk.as_ref();
    let plan = retention.plan(&log.shared(), disk, &mut ages, now, needed).unwrap();
    let again = retention.plan(&log.shared(), disk, &mut ages, now, needed).unwrap();
    assert_eq!(plan, again, "what was found out before says the same");
    plan
}

fn age(seconds: u64) -> Retention {
    Retention { age: Some(Duration::from_secs(seconds)), bytes: None }
}

fn goes(first: u64) -> RetentionPlan {
    RetentionPlan { first: Offset::new(first), is_held: false, seals: false }
}

#[test]
fn a_segment_goes_when_its_last_message_is_too_old_and_the_active_one_ends_when_its_first_is() {
    let disk = disk();
    let log = log(&disk);
    for (second, planned) in [
        (13, goes(1)),
        (14, goes(4)),
        (16, goes(4)),
        (17, goes(7)),
        (20, goes(10)),
        (21, RetentionPlan { seals: true, ..goes(10) }),
    ] {
        assert_eq!(plan(&log, age(10), second, ALL), planned, "at {second}");
    }
    assert_eq!(plan(&log, Retention::default(), 1_000_000, ALL), goes(1));
}

#[test]
fn segments_go_until_no_more_than_so_much_is_left_but_never_the_active_one() {
    let disk = disk();
    let log = log(&disk);
    let lens: Vec<u64> = log.shared().segments().iter().map(|segment| segment.len).collect();
    let all: u64 = lens.iter().sum();
    let bytes = |bytes| Retention { age: None, bytes: Some(bytes) };
    for (most, first) in
        [(all, 1), (all - 1, 4), (all - lens[0], 4), (all - lens[0] - 1, 7), (lens[3], 10), (0, 10)]
    {
        assert_eq!(plan(&log, bytes(most), 1000, ALL), goes(first), "{most} of {all}");
    }
    let both = Retention { age: age(13).age, bytes: Some(all - 1) };
    assert_eq!(plan(&log, both, 20, ALL), goes(7), "whichever says so");
}

#[test]
fn what_is_needed_stays_and_is_said_to_be_held_only_if_it_should_go() {
    let disk = disk();
    let log = log(&disk);
    let held = |first| RetentionPlan { is_held: true, ..goes(first) };
    for (needed, planned) in [(1, held(1)), (3, held(1)), (4, held(4)), (6, held(4)), (7, goes(7))]
    {
        assert_eq!(plan(&log, age(10), 17, Offset::new(needed)), planned, "{needed} is needed");
    }
}

#[test]
fn a_damaged_last_line_is_as_old_as_the_next_good_one() {
    let disk = disk();
    let log = log(&disk);
    let path = Path::new("/data/chat@00000000000000000001.log");
    let len = disk.open(path, Open::Read).unwrap().len().unwrap();
    disk.flip_bit(path, len - 20, 3).unwrap();
    assert_eq!(plan(&log, age(10), 14, ALL), goes(1));
    assert_eq!(plan(&log, age(10), 15, ALL), goes(4), "message 4 is older than ten seconds");
}

#[test]
fn a_log_that_was_trimmed_begins_later_and_its_readers_are_told() {
    let disk = disk();
    let mut log = log(&disk);
    let mut behind = log.reader();
    assert_eq!(behind.next().unwrap().unwrap().offset, Offset::new(1));
    log.trim(Offset::new(7)).unwrap();
    assert_eq!((log.first(), log.end()), (Offset::new(7), Offset::new(11)));
    assert_eq!(firsts(&log), [7, 10]);
    // The file that it has open is read to its end.
    for offset in [2, 3] {
        assert_eq!(behind.next().unwrap().unwrap().offset, Offset::new(offset));
    }
    let error = behind.next().unwrap_err();
    assert_eq!(error.to_string(), "messages 4 to 6 of topic chat are no longer kept");
    assert!(!error.is_damage());
    assert_eq!(behind.next().unwrap().unwrap().offset, Offset::new(7));
    let mut late = log.reader();
    late.seek(Offset::new(2)).unwrap();
    assert!(matches!(late.next(), Err(LogError::Gone { offset, first, .. })
        if (offset, first) == (Offset::new(2), Offset::new(7))));
    assert_eq!(late.next().unwrap().unwrap().offset, Offset::new(7));
    late.seek_time(Timestamp::default()).unwrap();
    assert_eq!(late.next().unwrap().unwrap().offset, Offset::new(7), "the first that is kept");
}

#[test]
fn the_files_of_what_was_trimmed_are_named_once_and_nothing_is_removed() {
    let disk = disk();
    let mut log = log(&disk);
    log.trim(Offset::new(6)).unwrap();
    assert_eq!(firsts(&log), [4, 7, 10], "the segment of message 6 stays whole");
    log.trim(Offset::new(7)).unwrap();
    let files = log.take_trimmed();
    let names: Vec<_> = files.iter().map(|files| files.log.to_str().unwrap()).collect();
    assert_eq!(
        names,
        ["/data/chat@00000000000000000001.log", "/data/chat@00000000000000000004.log"]
    );
    assert!(files[0].index.ends_with(".wiber/index/chat@00000000000000000001.idx"));
    assert!(log.take_trimmed().is_empty());
    assert!(files.iter().all(|files| disk.open(&files.log, Open::Read).is_ok()));
    // As long as they are there they are whole.
    assert_eq!(log.unsynced().files(), 4);
}

#[test]
fn a_log_is_opened_again_where_it_begins_and_knows_the_files_that_are_left() {
    let disk = disk();
    let mut log = log(&disk);
    log.trim(Offset::new(7)).unwrap();
    let mark = log.mark();
    assert_eq!((mark.first, mark.segment), (Offset::new(7), Offset::new(10)));
    let mut again = open(&disk, &mark).unwrap();
    assert_eq!((again.first(), again.end()), (Offset::new(7), Offset::new(11)));
    assert_eq!(again.take_trimmed(), log.take_trimmed());
    assert_eq!(again.reader().next().unwrap().unwrap().offset, Offset::new(7));
    // One that is missing is damage all the same.
    disk.remove(Path::new("/data/chat@00000000000000000007.log")).unwrap();
    let error = open(&disk, &mark).unwrap_err();
    assert!(error.to_string().contains("the topic begins with 7"), "{error}");
}

#[test]
fn a_segment_that_was_ended_is_sealed_by_the_next_flush_and_may_go_whole() {
    let disk = disk();
    let mut log = log(&disk);
    log.seal();
    log.seal();
    assert_eq!(firsts(&log), [1, 4, 7, 10], "not before it is flushed");
    log.flush().unwrap();
    assert_eq!(firsts(&log), [1, 4, 7, 10, 12]);
    log.seal();
    log.flush().unwrap();
    assert_eq!(firsts(&log), [1, 4, 7, 10, 12], "there is nothing in it");
    log.trim(log.end().next()).unwrap();
    assert_eq!((firsts(&log), log.first().get(), log.end().get()), (vec![12], 12, 11));
    assert!(log.reader().next().unwrap().is_none());
    let mark = log.mark();
    let mut log = open(&disk, &mark).unwrap();
    assert_eq!(log.take_trimmed().len(), 4);
    append_at(&mut log, 12);
    let mut reader = log.reader();
    assert_eq!(reader.next().unwrap().unwrap().offset, Offset::new(12), "offsets go on");
    assert!(disk.open(Path::new("/data/chat.log"), Open::Read).is_ok());
}

#[test]
fn applied_again_with_lines_that_wait_a_log_is_cut_in_the_same_places() {
    let (disk, other) = (disk(), disk());
    let mut log = log(&disk);
    log.seal();
    log.flush().unwrap();
    append_at(&mut log, 12);
    log.trim(Offset::new(12)).unwrap();
    let mut again = three_a_segment(&other);
    for second in 1..=12 {
        let (ts, message) =
            (Timestamp::from_micros(second * SECOND), "a message of a hundred bytes");
        again.append(&NewRecord { ts, id: None, message: message.as_bytes(), extra: "" });
        if second == 11 {
            again.seal();
        }
    }
    again.trim(Offset::new(12)).unwrap();
    again.flush().unwrap();
    assert_eq!(again.mark(), log.mark());
    assert_eq!(topic_files(&disk), topic_files(&other));
}

/// A checkpoint's job and a reader may know of segments that have gone since.
#[test]
fn what_still_knows_of_a_segment_that_was_trimmed_does_no_harm() {
    let disk = disk();
    let mut log = three_a_segment(&disk);
    for second in 1..=5 {
        append_at(&mut log, second);
    }
    // The beginning of the active segment is of an earlier life, and nothing is known of its index.
    let mark = log.mark();
    let files = files(&disk);
    let settings = LogSettings { segment_bytes: 300 };
    let mut log =
        TopicLog::open(arc(&disk), Path::new(DIR), topic(), settings, budget(), &mark, &files)
            .unwrap();
    for second in 6..=11 {
        append_at(&mut log, second);
    }
    let (shared, mut job) = (log.shared(), log.unsynced());
    let oldest = shared.segment_of(Offset::FIRST);
    log.trim(Offset::new(10)).unwrap();
    let indexes = |disk: &SimDisk| -> Vec<_> {
        let files = disk.files().into_iter();
        files.filter(|(path, _)| path.extension().is_some_and(|its| its == "idx")).collect()
    };
    disk.remove(Path::new("/data/.wiber/index/chat@00000000000000000001.idx")).unwrap();
    let before = indexes(&disk);
    job.run(&disk).unwrap();
    shared.rebuild(&disk, oldest).unwrap();
    assert_eq!(indexes(&disk), before, "none is made for what is no longer kept, nor for another");
    let left = disk.copy(Crash::LoseUnsynced);
    let sealed = Path::new("/data/chat@00000000000000000004.log");
    assert_eq!(left.files()[sealed], disk.files()[sealed], "its own file was synced");
    // When the files are gone as well there is nothing to read.
    for files in log.take_trimmed() {
        disk.remove(&files.log).unwrap();
    }
    assert!(shared.open(&disk, Offset::new(4), 0, 100).unwrap().next(1000).unwrap().is_none());
}

/// It is removed a piece at a time, from its end.
#[test]
fn a_file_that_is_cut_while_it_is_read_is_gone_and_not_damaged() {
    let disk = disk();
    let mut log = log(&disk);
    let mut reader = log.reader();
    assert_eq!(reader.next().unwrap().unwrap().offset, Offset::new(1));
    let mut slow = log.reader();
    slow.pause(10);
    assert_eq!(slow.next().unwrap().unwrap().offset, Offset::new(1));
    log.trim(Offset::new(7)).unwrap();
    let file = &log.take_trimmed()[0].log;
    let open = disk.open(file, Open::Write).unwrap();
    // In the middle of the second line.
    open.truncate(open.len().unwrap() / 2).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().offset, Offset::new(2), "it was read before");
    let error = slow.next().unwrap_err();
    assert_eq!(error.to_string(), "messages 2 to 6 of topic chat are no longer kept");
    assert_eq!(slow.next().unwrap().unwrap().offset, Offset::new(7));
}
