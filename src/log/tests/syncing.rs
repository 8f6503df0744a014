//! What a checkpoint has synced.

use super::super::writer::{BYTES_SYNCED_APART_MIN, FILES_SYNCED_APART_MAX};
use super::*;

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
    let jobs: Vec<_> = logs.iter_mut().map(TopicLog::unsynced).collect();
    let syncs = disk.count(Op::Sync);
    sync_many(jobs, &disk, Path::new(DIR)).unwrap();
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
    let jobs: Vec<_> = logs.iter_mut().map(TopicLog::unsynced).collect();
    let (files, syncs) = (jobs.iter().map(SyncJob::files).sum::<usize>(), disk.count(Op::Sync));
    sync_many(jobs, &disk, Path::new(DIR)).unwrap();
    assert_eq!(disk.count(Op::Sync), syncs + files as u64, "those that have much, one by one");
}
