//! Lines, logs and what is left of them.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::disk::sim::{Crash, Op, SimDisk};
use crate::disk::{Disk, Open};
use crate::ids::{Offset, TopicName};
use crate::time::Timestamp;

mod buffers;
mod indexes;
mod readers;
mod retention;
mod syncing;

const DIR: &str = "/data";
const SETTINGS: LogSettings = LogSettings { segment_bytes: 2000 };

fn topic() -> TopicName {
    TopicName::parse(b"chat").unwrap()
}

fn budget() -> Arc<TailBudget> {
    Arc::new(TailBudget::new(1 << 20))
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new("/data/.wiber/index")).unwrap();
    for dir in ["/", "/data", "/data/.wiber"] {
        disk.sync_dir(Path::new(dir)).unwrap();
    }
    disk
}

fn arc(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn record(n: u64) -> (Timestamp, Vec<u8>) {
    // Clocks step back now and then; lengths differ.
    let micros = 1_000_000 * n - if n.is_multiple_of(7) { 5_000_000 } else { 0 };
    (
        Timestamp::from_micros(micros),
        format!("message {n} {}", "x".repeat(usize::try_from(n % 90).unwrap())).into(),
    )
}

fn append(log: &mut TopicLog, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let (ts, message) = record(n);
        let offset = log.append(&NewRecord { ts, id: None, message: &message, extra: "" });
        assert_eq!(offset.get(), n);
        if n % 3 == 0 {
            log.flush().unwrap();
        }
    }
    log.flush().unwrap();
}

fn fresh(disk: &SimDisk) -> TopicLog {
    TopicLog::create(arc(disk), Path::new(DIR), topic(), SETTINGS, budget())
}

fn open(disk: &SimDisk, mark: &LogMark) -> Result<TopicLog, LogError> {
    let files = files(disk);
    TopicLog::open(arc(disk), Path::new(DIR), topic(), SETTINGS, budget(), mark, &files)
}

/// The topic's files.
fn files(disk: &SimDisk) -> Vec<SegmentFile> {
    scan(disk, Path::new(DIR)).unwrap().topics.remove(&topic()).unwrap_or_default()
}

fn read_from(reader: &mut Reader, offset: u64) -> Vec<u64> {
    reader.seek(Offset::new(offset)).unwrap();
    let mut seen = Vec::new();
    while let Some(line) = reader.next().unwrap() {
        let (ts, message) = record(line.offset.get());
        assert_eq!((line.ts(), &*line.message), (ts, &*message));
        seen.push(line.offset.get());
    }
    seen
}

fn topic_files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let files = disk.files().into_iter();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "log"))
        .map(|(p, b)| (name(&p), b))
        .collect()
}

#[test]
fn a_line_has_the_prototypes_members_first_and_the_crc_last() {
    let mut out = Vec::new();
    let ts = Timestamp::from_micros(1_758_865_780_036_983);
    let new =
        NewRecord { ts, id: Some("msg_1_x"), message: "Hi \"ü\"\n".as_bytes(), extra: "\"k\":1" };
    write_line(&mut out, topic().tag(), Offset::new(3), &new);
    let line = String::from_utf8(out).unwrap();
    let body = r#"{"id":"msg_1_x","offset":3,"ts":1758865780.036983,"msg":"Hi \"ü\"\n","k":1"#;
    // The crc as docs/storage.md defines it.
    let mut bytes = b"chat".to_vec();
    bytes.extend_from_slice(&3u64.to_le_bytes());
    bytes.extend_from_slice(body.as_bytes());
    assert_eq!(line, format!("{body},\"crc\":\"{:08x}\"}}\n", crc32c::crc32c(&bytes)));
}

#[test]
fn lines_of_the_prototype_are_read() {
    let line = br#"{"id": "msg_1758865780040_e10628bb", "offset": 3, "ts": 1758865780.0369835, "msg": "Hello \ud83d\ude00 \u00fc", "more": [1]}"#;
    let read = parse_line(&topic(), line).unwrap();
    assert_eq!(read.id, "msg_1758865780040_e10628bb");
    assert_eq!(read.offset, Offset::new(3));
    assert_eq!(read.ts_text, "1758865780.0369835");
    assert_eq!(read.message, "Hello 😀 ü".as_bytes());
    assert!(!read.is_checked);
    for bad in [&b"{}"[..], b"", b"[]", br#"{"id":"a","offset":0,"ts":1,"msg":""}"#, b"\xff"] {
        assert!(parse_line(&topic(), bad).is_err());
    }
}

#[test]
fn an_offset_that_none_can_follow_or_go_before_is_no_record() {
    for offset in [0, u64::MAX] {
        let mut own = Vec::new();
        let new = NewRecord { ts: Timestamp::default(), id: None, message: b"m", extra: "" };
        write_line(&mut own, topic().tag(), Offset::new(offset), &new);
        let foreign = format!(r#"{{"id": "a", "offset": {offset}, "ts": 1, "msg": ""}}"#);
        for line in [own.trim_ascii_end(), foreign.as_bytes()] {
            let error = parse_line(&topic(), line).unwrap_err().to_string();
            assert!(error.contains(&format!("its offset is {offset}")), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_come_back(message: Vec<u8>, id in proptest::option::of("[a-z\"\\\\]{1,9}"), offset in 1..u64::MAX) {
        let mut out = Vec::new();
        let ts = Timestamp::from_micros(5);
        let new = NewRecord { ts, id: id.as_deref(), message: &message, extra: "" };
        write_line(&mut out, topic().tag(), Offset::new(offset), &new);
        let line = out.strip_suffix(b"\n").unwrap();
        prop_assert!(!line.contains(&b'\n'));
        let read = parse_line(&topic(), line).unwrap();
        prop_assert_eq!(&*read.message, &message[..]);
        prop_assert_eq!(read.offset.get(), offset);
        prop_assert!(read.is_checked);
        prop_assert!(!read.is_plain || crate::proto::line_safe(&message));
        if let Some(id) = id {
            prop_assert_eq!(read.id, id);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(message in "[ -~]{0,40}", at: proptest::sample::Index, bit in 0..8u8) {
        let mut out = Vec::new();
        let new = NewRecord { ts: Timestamp::from_micros(5), id: None, message: message.as_bytes(), extra: "" };
        write_line(&mut out, topic().tag(), Offset::new(3), &new);
        let mut line = out.strip_suffix(b"\n").unwrap().to_vec();
        let at = at.index(line.len());
        line[at] ^= 1 << bit;
        prop_assert!(parse_line(&topic(), &line).is_err());
    }
}

#[test]
fn a_line_in_the_wrong_place_fails() {
    let mut out = Vec::new();
    let new = NewRecord { ts: Timestamp::from_micros(5), id: None, message: b"x", extra: "" };
    write_line(&mut out, topic().tag(), Offset::new(3), &new);
    let line = String::from_utf8(out).unwrap();
    let line = line.trim_end();
    let elsewhere = line.replace("\"offset\":3", "\"offset\":4");
    assert!(matches!(parse_line(&topic(), elsewhere.as_bytes()), Err(LineError::Checksum { .. })));
    let other = TopicName::parse(b"other").unwrap();
    assert!(matches!(parse_line(&other, line.as_bytes()), Err(LineError::Checksum { .. })));
}

#[test]
fn every_offset_is_found_across_segments_with_and_without_an_index() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=200);
    let names: Vec<_> = topic_files(&disk).into_iter().map(|(name, _)| name).collect();
    assert!(names.len() > 5, "{names:?}");
    for spoil in ["nothing", "garbage", "gone"] {
        for (path, bytes) in disk.files() {
            if path.extension().is_none_or(|e| e != "idx") || spoil == "nothing" {
                continue;
            }
            if spoil == "gone" {
                disk.remove(&path).unwrap();
            } else {
                let file = disk.open(&path, Open::Write).unwrap();
                file.write_at(&vec![7; bytes.len().max(48)], 0).unwrap();
            }
        }
        let mut reader = log.reader();
        for offset in 1..=200 {
            assert_eq!(
                read_from(&mut reader, offset),
                (offset..=200).collect::<Vec<_>>(),
                "{spoil}"
            );
        }
        assert!(read_from(&mut reader, 201).is_empty());
    }
    append(&mut log, 201..=203);
    let mut reader = log.reader();
    assert_eq!(read_from(&mut reader, 199), [199, 200, 201, 202, 203]);
    append(&mut log, 204..=204);
    assert_eq!(reader.next().unwrap().unwrap().offset.get(), 204, "a reader goes on at the end");
}

#[test]
fn a_time_is_found_although_clocks_step_back() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=200);
    for n in 1..=200u64 {
        let ts = Timestamp::from_micros(n * 1_000_000);
        let mut reader = log.reader();
        reader.seek_time(ts).unwrap();
        let expected = (1..=200).find(|m| record(*m).0 >= ts);
        assert_eq!(reader.next().unwrap().map(|line| line.offset.get()), expected, "at {n}");
    }
}

/// Spoils the second segment; returns what was read and what was reported.
fn read_spoilt(spoil: impl Fn(&mut Vec<u8>, usize)) -> (Vec<u64>, Vec<u64>) {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=60);
    let (name, mut bytes) = topic_files(&disk).remove(1);
    // The beginning of the second line of that segment.
    let at = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    spoil(&mut bytes, at);
    let path = Path::new(DIR).join(&name);
    let file = disk.open(&path, Open::Write).unwrap();
    file.truncate(0).unwrap();
    file.write_at(&bytes, 0).unwrap();
    let mut reader = log.reader();
    let (mut seen, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match reader.next() {
            Ok(Some(line)) => seen.push(line.offset.get()),
            Ok(None) => break,
            Err(LogError::Corrupt { offset, path, .. }) => {
                assert_eq!(path.file_name().unwrap().to_str(), Some(&*name));
                damaged.push(offset.get());
            }
            Err(other) => panic!("{other}"),
        }
    }
    (seen, damaged)
}

#[test]
fn a_damaged_line_costs_that_line_only() {
    let (clean, none) = read_spoilt(|_, _| {});
    assert_eq!((clean, none), ((1..=60).collect(), Vec::new()));
    let line_end =
        |bytes: &[u8], at: usize| at + bytes[at..].iter().position(|b| *b == b'\n').unwrap();
    let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at + 30] ^= 4;
    let zeros = |bytes: &mut Vec<u8>, at: usize| bytes[at..at + 20].fill(0);
    let no_end = |bytes: &mut Vec<u8>, at: usize| {
        let end = line_end(bytes, at);
        bytes[end] = b'!';
    };
    let split = |bytes: &mut Vec<u8>, at: usize| bytes[at + 40] = b'\n';
    let cut = |bytes: &mut Vec<u8>, _: usize| {
        bytes.pop();
    };
    let half = |bytes: &mut Vec<u8>, at: usize| bytes.truncate(at);
    let extra = |bytes: &mut Vec<u8>, at: usize| {
        bytes.splice(at..at, *b"who put this here?\n");
        let len = bytes.len() - 19;
        bytes.truncate(len);
    };
    for (name, spoil, lost) in [
        ("flip", &flip as &dyn Fn(&mut Vec<u8>, usize), 1),
        ("zeros", &zeros, 1),
        ("a lost line end", &no_end, 2),
        ("a line end too many", &split, 1),
        ("a line too many", &extra, 1),
        ("no end of the segment", &cut, 1),
        ("most of the segment gone", &half, 30),
    ] {
        let (seen, damaged) = read_spoilt(spoil);
        let mut all = [seen.clone(), damaged.clone()].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (1..=60).collect::<Vec<_>>(), "{name}: {damaged:?}");
        assert!(seen.is_sorted(), "{name}");
        assert!(60 - seen.len() <= lost, "{name}: {damaged:?}");
        assert!(!damaged.is_empty() || name == "no end of the segment", "{name}");
    }
}

/// What a checkpoint would do.
fn checkpoint(log: &mut TopicLog, disk: &SimDisk) -> LogMark {
    let mark = log.mark();
    log.unsynced().run(disk).unwrap();
    mark
}

#[test]
fn after_any_crash_the_mark_is_there_and_the_rest_can_be_written_again() {
    for (before, after) in [(1, 1), (10, 3), (25, 40), (40, 80), (13, 0)] {
        let reference = disk();
        append(&mut fresh(&reference), 1..=before + after);
        let reference = topic_files(&reference);
        for how in std::iter::once(Crash::LoseUnsynced)
            .chain([Crash::KeepAll])
            .chain((0..40).map(|seed| Crash::Random { seed }))
        {
            let first = disk();
            let mut log = fresh(&first);
            append(&mut log, 1..=before);
            let mark = checkpoint(&mut log, &first);
            append(&mut log, before + 1..=before + after);
            let mut second = first.crash(how);
            // Cut short and done again, it comes to the same.
            for changes in 0.. {
                let mut cut = open(&second, &mark).unwrap();
                let files = files(&second);
                second.cut_power_after(changes);
                let synced = |()| second.sync_dir(Path::new(DIR)).is_ok();
                if cut.cut(&files).is_ok_and(synced) {
                    second.heal();
                    break;
                }
                second = second.crash(Crash::Random { seed: changes });
            }
            let mut log = open(&second, &mark).unwrap();
            log.cut(&files(&second)).unwrap();
            let mut reader = log.reader();
            assert_eq!(read_from(&mut reader, 1), (1..=before).collect::<Vec<_>>());
            append(&mut log, before + 1..=before + after);
            assert_eq!(topic_files(&second), reference, "{before} + {after}, {how:?}");
            let (start, end) = (1, before + after);
            assert_eq!(read_from(&mut log.reader(), start), (start..=end).collect::<Vec<_>>());
        }
    }
}

#[test]
fn files_that_do_not_have_what_the_mark_says_are_refused() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=10);
    let mark = checkpoint(&mut log, &disk);
    assert!(mark.len > 0);
    let path = Path::new(DIR).join("chat.log");
    let said = |disk: &SimDisk, what: &str| {
        let error = open(disk, &mark).unwrap_err();
        assert!(error.is_damage(), "{error}");
        let text = error.to_string();
        assert!(text.contains("chat") && text.contains(what), "{text}");
        assert!(text.ends_with("run wiber check"), "{text}");
    };
    disk.flip_bit(&path, mark.len - 30, 0).unwrap();
    said(&disk, "checksum");
    disk.open(&path, Open::Write).unwrap().truncate(mark.len - 1).unwrap();
    said(&disk, "it ends here");
    disk.remove(&path).unwrap();
    said(&disk, "missing");
}

const PROTOTYPE: &str = "{\"id\": \"msg_1758865780040_e10628bb\", \"offset\": 1, \"ts\": 1758865780.0369835, \"msg\": \"Hello\"}\n{\"id\": \"msg_1758865781040_e10628bc\", \"offset\": 2, \"ts\": 1758865781.5, \"msg\": \"again \\u00fc\"}\n";

fn adopt(text: &str) -> (SimDisk, Result<(TopicLog, Adopted), LogError>) {
    let disk = disk();
    let file = disk.open(&Path::new(DIR).join("chat.log"), Open::Create).unwrap();
    file.write_at(text.as_bytes(), 0).unwrap();
    let adopted =
        TopicLog::adopt(arc(&disk), Path::new(DIR), topic(), SETTINGS, budget(), &files(&disk));
    (disk, adopted)
}

#[test]
fn a_prototypes_file_is_adopted_unchanged() {
    let (disk, adopted) = adopt(PROTOTYPE);
    let (mut log, adopted) = adopted.unwrap();
    assert_eq!(adopted, Adopted { records: 2, torn: None });
    assert_eq!(topic_files(&disk)[0].1, PROTOTYPE.as_bytes());
    let new = NewRecord { ts: Timestamp::from_micros(9), id: None, message: b"new", extra: "" };
    assert_eq!(log.append(&new).get(), 3);
    log.flush().unwrap();
    let mark = checkpoint(&mut log, &disk);
    let mut reader = open(&disk, &mark).unwrap().reader();
    let mut bodies = Vec::new();
    while let Some(line) = reader.next().unwrap() {
        bodies.push(String::from_utf8(line.message.to_vec()).unwrap());
    }
    assert_eq!(bodies, ["Hello", "again ü", "new"]);
}

#[test]
fn a_prototypes_torn_last_line_is_ended_or_put_aside() {
    let (disk, adopted) = adopt(PROTOTYPE.trim_end());
    assert_eq!(adopted.unwrap().1, Adopted { records: 2, torn: None });
    assert_eq!(topic_files(&disk)[0].1, PROTOTYPE.as_bytes());

    let (disk, adopted) = adopt(&format!("{PROTOTYPE}{{\"id\": \"msg_17588"));
    let adopted = adopted.unwrap().1;
    assert_eq!(adopted.records, 2);
    assert_eq!(topic_files(&disk)[0].1, PROTOTYPE.as_bytes());
    assert_eq!(disk.files()[&adopted.torn.unwrap()], b"{\"id\": \"msg_17588");
}

#[test]
fn a_prototypes_file_in_doubt_is_refused_and_left_alone() {
    for (text, why) in [
        (format!("{PROTOTYPE}nonsense\n{PROTOTYPE}"), "line 3"),
        (PROTOTYPE.repeat(2), "offset 1 where 3 belongs"),
    ] {
        let (disk, adopted) = adopt(&text);
        let error = adopted.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("chat.log"), "{error}");
        assert_eq!(topic_files(&disk)[0].1, text.as_bytes());
    }
}

#[test]
fn without_a_daemon_everything_whole_is_read() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=100);
    let active = disk.open(&Path::new(DIR).join("chat.log"), Open::Write).unwrap();
    active.write_at(b"{\"id\":\"torn", active.len().unwrap()).unwrap();
    let mut reader = Reader::offline(arc(&disk), Path::new(DIR), topic()).unwrap();
    assert_eq!(read_from(&mut reader, 1), (1..=100).collect::<Vec<_>>());
    assert_eq!(read_from(&mut reader, 95), (95..=100).collect::<Vec<_>>());
    let nothing = TopicName::parse(b"nothing").unwrap();
    let mut reader = Reader::offline(arc(&disk), Path::new(DIR), nothing).unwrap();
    assert_eq!(reader.next().unwrap(), None);
}

#[test]
fn without_a_daemon_a_flipped_bit_anywhere_costs_two_messages_at_most() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=100);
    let files = topic_files(&disk);
    assert!(files.len() > 2, "there are sealed segments");
    for (name, bytes) in &files {
        for at in (0..bytes.len() as u64).filter(|at| at % 7 == 0 || *at + 2 > bytes.len() as u64) {
            let path = Path::new(DIR).join(name);
            disk.flip_bit(&path, at, 1).unwrap();
            let mut reader = Reader::offline(arc(&disk), Path::new(DIR), topic()).unwrap();
            let (mut good, mut damaged) = (0, 0);
            loop {
                match reader.next() {
                    Ok(Some(_)) => good += 1,
                    Ok(None) => break,
                    Err(LogError::Corrupt { .. }) => damaged += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            // The end of the newest file can't be told from a line that was being written.
            let is_torn = name == "chat.log" && at + 1 == bytes.len() as u64;
            assert!(
                good >= 98 && (good + damaged == 100 || is_torn),
                "{name} {at}: {good}, {damaged}"
            );
            disk.flip_bit(&path, at, 1).unwrap();
        }
    }
}

#[test]
fn a_reader_on_another_thread_follows_a_log_that_rolls() {
    let temp = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(crate::disk::os::OsDisk::default());
    let settings = LogSettings { segment_bytes: 500 };
    let mut log = TopicLog::create(disk, temp.path(), topic(), settings, budget());
    let mut reader = log.reader();
    let follower = std::thread::spawn(move || {
        let mut expected = 1;
        while expected <= 3000 {
            match reader.next().unwrap() {
                Some(line) => {
                    assert_eq!(line.offset.get(), expected);
                    expected += 1;
                    if expected % 50 == 0 {
                        // Every seek opens files anew.
                        reader.seek(Offset::new(expected)).unwrap();
                    }
                }
                None => std::thread::yield_now(),
            }
        }
    });
    append(&mut log, 1..=3000);
    follower.join().unwrap();
}

#[test]
fn names_of_files_lead_back_to_their_topics() {
    let disk = disk();
    // No offset can follow the largest number.
    let last = "a@18446744073709551615.log";
    let sealed = "a@00000000000000000007.log";
    for name in ["a.log", sealed, last, "a.dlq.log", "a@7.log", "x.txt", ".log"] {
        disk.open(&Path::new(DIR).join(name), Open::Create).unwrap();
    }
    let scan = scan(&disk, Path::new(DIR)).unwrap();
    let a = &scan.topics[&TopicName::parse(b"a").unwrap()];
    assert_eq!(a.iter().map(|f| f.first.map(Offset::get)).collect::<Vec<_>>(), [Some(7), None]);
    assert_eq!(scan.topics.len(), 2);
    assert_eq!(scan.strangers, [".log", last, "a@7.log", "x.txt"]);
}

#[test]
fn a_sealed_file_whose_name_is_wrong_is_not_adopted() {
    let disk = disk();
    let path = Path::new("/data/chat@00000000000000000039.log");
    disk.open(path, Open::Create).unwrap().write_at(PROTOTYPE.as_bytes(), 0).unwrap();
    let adopted =
        TopicLog::adopt(arc(&disk), Path::new(DIR), topic(), SETTINGS, budget(), &files(&disk));
    let error = adopted.unwrap_err().to_string();
    assert!(error.contains("line 1: offset 1 where 39 belongs"), "{error}");
}

#[test]
fn a_segment_that_somebody_removed_costs_its_messages_only() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=100);
    let sealed: Vec<_> = log.shared().segments().iter().map(|s| s.first.get()).collect();
    assert!(sealed.len() > 3);
    let gone = sealed[1]..sealed[2];
    disk.remove(&Path::new(DIR).join(format!("chat@{:020}.log", gone.start))).unwrap();
    let mut reader = log.reader();
    let (mut seen, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match reader.next() {
            Ok(Some(line)) => seen.push(line.offset.get()),
            Ok(None) => break,
            Err(LogError::Corrupt { offset, .. }) => damaged.push(offset.get()),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(damaged, gone.clone().collect::<Vec<_>>());
    assert_eq!(seen, (1..=100).filter(|n| !gone.contains(n)).collect::<Vec<_>>());
    reader.seek(Offset::new(gone.start)).unwrap();
    assert!(reader.next().is_err_and(|error| error.is_damage()));
}

#[test]
fn a_line_end_that_was_lost_does_not_hide_the_messages_behind_it() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=5);
    let path = Path::new(DIR).join("chat.log");
    let end = disk.files()[&path].iter().position(|byte| *byte == b'\n').unwrap();
    disk.flip_bit(&path, end as u64, 0).unwrap();
    let mut reader = log.reader();
    for offset in 3..=5 {
        assert_eq!(read_from(&mut reader, offset), (offset..=5).collect::<Vec<_>>());
    }
    reader.seek(Offset::new(2)).unwrap();
    assert!(reader.next().is_err());
    assert_eq!(reader.next().unwrap().unwrap().offset, Offset::new(3));
}
