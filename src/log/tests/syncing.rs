//! What a checkpoint has synced.

use super::super::writer::{BYTES_SYNCED_APART_MIN, FILES_SYNCED_APART_MAX};
use super::*;
use crate::disk::sim::{Failure, Fault};

#[test]
fn many_logs_are_synced_at_once_if_they_have_little_and_are_there_after_a_power_cut() {
    let disk = disk();
    let settings = LogSettings { segment_bytes: 1 << 20 };
    let mut logs: Vec<TopicLog> = (0..FILES_SYNCED_APART_MAX + 10)
        .map(|n| {
            let topic = TopicName::parse(format!("t{n}").as_bytes()).unwrap();
            TopicLog::create(arc(&disk), Path::new(DIR), topic, settings, budget())
        })
        .collect();
    for log in &mut logs {
        append(log, 1..=3);
    }
    let mut jobs: Vec<_> = logs.iter_mut().map(TopicLog::unsynced).collect();
    let syncs = disk.count(Op::Sync);
    sync_many(&mut jobs, &disk, Path::new(DIR)).unwrap();
    assert_eq!(disk.count(Op::Sync), syncs + 1);
    let found = disk.copy(Crash::LoseUnsynced);
    assert_eq!(scan(&found, Path::new(DIR)).unwrap().topics.len(), logs.len());
    assert!(found.files().values().all(|bytes| bytes.iter().filter(|b| **b == b'\n').count() == 3));
    let message = vec![b'x'; usize::try_from(BYTES_SYNCED_APART_MIN).unwrap()];
    for log in &mut logs {
        let ts = Timestamp::from_micros(5);
        log.append(&NewRecord { ts, id: None, message: &message, extra: "" });
        log.flush().unwrap();
    }
    let mut jobs: Vec<_> = logs.iter_mut().map(TopicLog::unsynced).collect();
    let (files, syncs) = (jobs.iter().map(SyncJob::files).sum::<usize>(), disk.count(Op::Sync));
    sync_many(&mut jobs, &disk, Path::new(DIR)).unwrap();
    assert_eq!(disk.count(Op::Sync), syncs + files as u64, "those that have much, one by one");
}

/// A sealed segment may be moved to another disk, with a link in its place. A start that makes it the active
/// one again wrote to it there, and with many topics a checkpoint synced the disk of the directory alone.
#[test]
fn a_file_that_may_be_on_another_disk_is_synced_by_itself() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=2);
    let mark = checkpoint(&mut log, &disk);
    append(&mut log, 3..=5);
    log.seal();
    log.flush().unwrap();
    drop(log);
    let many = FILES_SYNCED_APART_MAX + 10;
    for (life, is_link) in [(0, true), (1, true), (2, false)] {
        let mut files = files(&disk);
        files.iter_mut().for_each(|file| file.is_link = is_link);
        let (dir, tail) = (Path::new(DIR), budget());
        let log = TopicLog::open(arc(&disk), dir, topic(), SETTINGS, tail, &mark, &files);
        let mut log = log.unwrap();
        assert_eq!(files[0].first.is_some(), life == 0, "{files:?}");
        log.cut(&files).unwrap();
        append(&mut log, 3..=3);
        let mut others: Vec<_> = (0..many)
            .map(|n| {
                let topic = TopicName::parse(format!("t{life}-{n}").as_bytes()).unwrap();
                TopicLog::create(arc(&disk), dir, topic, SETTINGS, budget())
            })
            .collect();
        others.iter_mut().for_each(|other| append(other, 1..=1));
        let mut jobs: Vec<_> = others.iter_mut().map(TopicLog::unsynced).collect();
        jobs.insert(many / 2, log.unsynced());
        let syncs = disk.count(Op::Sync);
        sync_many(&mut jobs, &disk, dir).unwrap();
        assert!(jobs.is_empty());
        assert_eq!(disk.count(Op::Sync), syncs + 1 + u64::from(is_link), "{life}");
    }
}

/// A start cuts off what is behind the checkpoint. If the sync of that fails, the file seems to end there
/// for whoever looks, and later syncs succeed, but what was cut off is there again after a power cut.
#[test]
fn what_a_start_cuts_off_is_gone_for_good_though_a_sync_failed_meanwhile() {
    let restart = |disk: &SimDisk, mark: &LogMark| {
        let mut log = open(disk, mark).unwrap();
        log.cut(&files(disk)).unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        log
    };
    // How the segment ends in the life that fails, and in the next one.
    let ends: [fn(&mut TopicLog); 3] = [
        |log| append(log, 3..=4),
        |log| {
            log.seal();
            log.flush().unwrap();
        },
        |_| {},
    ];
    for (failing, next) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let first = disk();
        let mut log = fresh(&first);
        append(&mut log, 1..=2);
        let mark = checkpoint(&mut log, &first);
        append(&mut log, 3..=5);
        let second = first.crash(Crash::KeepAll);
        let mut log = restart(&second, &mark);
        ends[failing](&mut log);
        drop(log);
        second.fail_next(Op::Sync, 1, Failure::Io);
        second.sync_all(Path::new(DIR)).unwrap_err();
        // Only the process ends.
        let mut log = restart(&second, &mark);
        ends[next](&mut log);
        log.seal();
        log.flush().unwrap();
        let mark = checkpoint(&mut log, &second);
        let third = second.crash(Crash::LoseUnsynced);
        let mut log = restart(&third, &mark);
        let next = mark.end.get() + 1;
        append(&mut log, next..=next + 1);
        let case = format!("{failing}, {next}");
        let all: Vec<u64> = (1..=next + 1).collect();
        assert_eq!(read_from(&mut log.reader(), 1), all, "{case}");
        let segments = log.shared().segments();
        for (segment, (name, bytes)) in segments.iter().zip(topic_files(&third).iter().skip(1)) {
            // The active file comes first, by its name.
            let lines = bytes.iter().filter(|b| **b == b'\n').count() as u64;
            let behind = segment.first.get() + lines;
            let is_next = segments.iter().any(|next| next.first.get() == behind);
            assert!(is_next, "{case}: {name} has more than its segment");
        }
    }
}

#[test]
fn files_that_no_descriptor_is_there_for_are_synced_when_it_is_tried_again() {
    let (disk, settings) = (disk(), LogSettings { segment_bytes: 1 });
    let mut logs = ["a", "b", "c"].map(|name| {
        let topic = TopicName::parse(name.as_bytes()).unwrap();
        let mut log = TopicLog::create(arc(&disk), Path::new(DIR), topic, settings, budget());
        append(&mut log, 1..=2);
        log
    });
    let mut jobs: Vec<_> = logs.iter_mut().map(TopicLog::unsynced).collect();
    disk.fail(Fault {
        op: Some(Op::Open),
        path_has: "b@".to_owned(),
        skip: 1,
        times: 2,
        failure: Failure::NoDescriptor,
    });
    let syncs = disk.count(Op::Sync);
    for files in [1, 1, 0] {
        let synced = sync_many(&mut jobs, &disk, Path::new(DIR));
        assert_eq!(synced.is_ok(), files == 0);
        assert!(synced.err().is_none_or(|error| error.is_shortage()));
        assert_eq!(jobs.iter().map(SyncJob::files).sum::<usize>(), files);
    }
    assert_eq!(disk.count(Op::Sync), syncs + 6, "each file once");
    let found = disk.copy(Crash::LoseUnsynced);
    let found =
        found.files().into_iter().filter(|(path, _)| path.extension() == Some("log".as_ref()));
    assert_eq!(found.filter(|(_, bytes)| !bytes.is_empty()).count(), 6);
    let jobs = logs.iter_mut().map(TopicLog::unsynced);
    assert!(jobs.into_iter().all(|job| job.is_empty()), "nothing is left");
}

#[test]
fn a_sync_that_fails_is_no_shortage() {
    let disk = disk();
    let mut log = fresh(&disk);
    append(&mut log, 1..=2);
    disk.fail_next(Op::Sync, 1, Failure::NoSpace);
    assert!(!log.unsynced().run(&disk).unwrap_err().is_shortage());
}
