//! Histories of which something is missing.

use std::path::Path;
use std::sync::Arc;

use crate::broker::letter::Then;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::ids::{Offset, TopicName};
use crate::log::{LogError, LogSettings, NewRecord, TailBudget, TopicLog};
use crate::time::Timestamp;

use super::core_tests::Story;
use super::read::{Form, ReadDone, ReadJob};

#[test]
fn a_topic_with_much_damage_is_read_in_pieces() {
    let disk = SimDisk::new();
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let topic = TopicName::parse(b"a").unwrap();
    let settings = LogSettings { segment_bytes: 300_000 };
    let tail = Arc::new(TailBudget::new(0));
    let mut log = TopicLog::create(Arc::clone(&arc), Path::new("/"), topic.clone(), settings, tail);
    for _ in 0..5000 {
        log.append(&NewRecord { ts: Timestamp::default(), id: None, message: b"m", extra: "" });
        log.flush().unwrap();
    }
    disk.remove(Path::new("/a@00000000000000000001.log")).unwrap();
    let (first, last) = (Offset::FIRST, log.end());
    let mut job = ReadJob::new(&arc, log.shared(), topic, Form::Msg, first, last);
    let (mut damaged, mut lines) = (0, 0);
    while !job.is_done() {
        let done = job.run();
        assert!(done.error.is_none() && done.missing.len() <= 1000);
        damaged += done.missing.len();
        lines += String::from_utf8(done.lines).unwrap().lines().count();
    }
    assert!(damaged > 2000, "{damaged}");
    assert_eq!(damaged + lines, 5000);
}

#[test]
fn a_history_of_which_messages_go_meanwhile_gives_the_others_and_says_so() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let topic = TopicName::parse(b"a").unwrap();
    let (settings, tail) = (LogSettings { segment_bytes: 1 }, Arc::new(TailBudget::new(0)));
    let mut log = TopicLog::create(Arc::clone(&disk), Path::new("/"), topic, settings, tail);
    for message in [b"one", b"two", b"thr"] {
        log.append(&NewRecord { ts: Timestamp::default(), id: None, message, extra: "" });
        log.flush().unwrap();
    }
    let mut story = Story::on(1, disk);
    story.receive("HISTORY a 9\nPING\n");
    let (shared, end) = (log.shared(), log.end());
    story.reply(0, "", Some(Then::Read { log: Some(shared), end }));
    let (reading, mut job) = story.core.pull().pop().unwrap();
    log.trim(Offset::new(3)).unwrap();
    let done = job.run();
    story.core.read(reading, job, done);
    story.leave();
    let told: Vec<_> = story.told.lines().filter_map(|line| line.strip_prefix("  < ")).collect();
    assert!(told[1].starts_with("HISTORY a msg_") && told[1].ends_with(" thr"), "{told:?}");
    let gone = "ERR OFFSET_GONE messages 1 to 2 of topic a are no longer kept topic=a first=3";
    assert_eq!(told[2..], [gone, "OK pong"]);
}

/// While the disk is full, acknowledged messages may wait to be written to their topic's file. A history once
/// left them out, and said that this was all.
#[test]
fn a_history_of_which_messages_are_not_written_yet_gives_the_others_and_says_so() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let topic = TopicName::parse(b"a").unwrap();
    let (settings, tail) = (LogSettings { segment_bytes: 300 }, Arc::new(TailBudget::new(0)));
    let mut log = TopicLog::create(Arc::clone(&disk), Path::new("/"), topic, settings, tail);
    let publish = |message, log: &mut TopicLog| {
        log.append(&NewRecord { ts: Timestamp::default(), id: None, message, extra: "" })
    };
    publish(b"one", &mut log);
    log.flush().unwrap();
    publish(b"two", &mut log);
    let end = publish(b"three", &mut log);
    let why = "ERR DISK_FULL messages 2 to 3 are stored, but not in the topic's file yet: the disk is full \
               retry_after=1s";
    for (count, expected) in [(9, &["one"][..]), (3, &["one"]), (2, &[]), (1, &[]), (0, &[])] {
        let mut story = Story::on(1, Arc::clone(&disk));
        story.receive(&format!("HISTORY a {count}\n"));
        story.reply(0, "", Some(Then::Read { log: Some(log.shared()), end }));
        if let Some((reading, mut job)) = story.core.pull().pop() {
            let done = job.run();
            story.core.read(reading, job, done);
        }
        story.leave();
        let told = story.told.lines().filter_map(|line| line.strip_prefix("  < ")).skip(1);
        let mut told: Vec<_> = told.collect();
        let last = if count == 0 { "OK history end" } else { why };
        assert_eq!(told.pop(), Some(last), "{count}");
        let told: Vec<_> = told.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(told, expected, "{count}");
    }
}

/// A client goes by that: to whoever is told of damage alone, all else has come.
#[test]
fn a_history_that_is_cut_short_says_so_and_not_what_it_lacks_besides() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let topic = TopicName::parse(b"a").unwrap();
    let (settings, tail) = (LogSettings { segment_bytes: 300 }, Arc::new(TailBudget::new(0)));
    let dir = Path::new("/");
    let mut log = TopicLog::create(Arc::clone(&disk), dir, topic.clone(), settings, tail);
    for _ in 0..3 {
        log.append(&NewRecord { ts: Timestamp::default(), id: None, message: b"m", extra: "" });
        log.flush().unwrap();
    }
    let mut story = Story::on(1, disk);
    story.receive("HISTORY a 9\nPING\n");
    let (shared, end) = (log.shared(), log.end());
    story.reply(0, "", Some(Then::Read { log: Some(shared), end }));
    let path = Path::new("/a.log").to_owned();
    let why = "a test says so".to_owned();
    let damaged =
        LogError::Corrupt { topic, offset: Offset::FIRST, path: path.clone(), at: 0, why };
    let next = Offset::new(2);
    let (reading, job) = story.core.pull().pop().unwrap();
    let done = ReadDone { lines: Vec::new(), next, missing: vec![damaged], error: None };
    story.core.read(reading, job, done);
    let (reading, job) = story.core.pull().pop().unwrap();
    let error = Some(LogError::Io { path, source: std::io::ErrorKind::StorageFull.into() });
    story.core.read(reading, job, ReadDone { lines: Vec::new(), next, missing: Vec::new(), error });
    story.leave();
    let told: Vec<_> = story.told.lines().filter_map(|line| line.strip_prefix("  < ")).collect();
    assert!(told[1].starts_with("ERR BUSY failed to use /a.log"), "{told:?}");
    assert_eq!(told[2..], ["OK pong"]);
}
