//! Syncs files while they are written, a little at a time.
//!
//! A checkpoint syncs what was written to the topics since the last one, and without `fsync = always`
//! the write-ahead log is synced when a segment is full or an interval over. Left to that moment, it is
//! tens of megabytes at once for the disk, and whoever publishes waits behind them. So a file that has
//! got some is synced at once, beside its writer, who later finds little left to do. Nothing relies on
//! it: what has to be durable is synced all the same.

use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use crate::disk::SyncAhead;

use super::fatal::{Fatal, spawn};
use super::lock;

/// The way to the thread. At most one job a file is on it; without a thread it takes none.
#[derive(Debug, Default)]
pub struct Ahead {
    jobs: Mutex<Option<Sender<SyncAhead>>>,
}

impl Ahead {
    /// Has a file synced, if its writer says that enough was written to it.
    pub(super) fn offer(&self, job: impl FnOnce() -> Option<SyncAhead>) {
        if let Some(jobs) = &*lock(&self.jobs)
            && let Some(job) = job()
        {
            // A thread that is gone has said why, and the process ends.
            jobs.send(job).ok();
        }
    }

    /// Starts the thread.
    pub(super) fn start(&self, fatal: &UnboundedSender<Fatal>) -> JoinHandle<Option<()>> {
        let (sender, jobs) = mpsc::channel::<SyncAhead>();
        *lock(&self.jobs) = Some(sender);
        let serve = move || {
            jobs.iter().try_for_each(SyncAhead::run)?;
            Ok(())
        };
        spawn("ahead".to_owned(), fatal.clone(), serve)
    }

    /// Lets the thread end when it has done what it was asked for.
    pub(super) fn stop(&self) {
        *lock(&self.jobs) = None;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::disk::Disk;
    use crate::disk::sim::{Failure, Op, SimDisk};
    use crate::ids::TopicName;
    use crate::log::{LogSettings, NewRecord, TailBudget, TopicLog};
    use crate::time::Timestamp;

    fn log(disk: &SimDisk) -> TopicLog {
        disk.create_dir(Path::new("/data")).unwrap();
        let topic = TopicName::parse(b"chat").unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let settings = LogSettings { segment_bytes: 1 << 30 };
        let tail = Arc::new(TailBudget::new(0));
        TopicLog::create(disk, Path::new("/data"), topic, settings, tail)
    }

    fn append(log: &mut TopicLog, bytes: usize) {
        let message = vec![b'x'; bytes];
        let ts = Timestamp::default();
        log.append(&NewRecord { ts, id: None, message: &message, extra: "" });
        log.flush().unwrap();
    }

    #[test]
    fn a_file_is_synced_when_enough_was_written_to_it() {
        let (disk, ahead) = (SimDisk::new(), Ahead::default());
        let mut log = log(&disk);
        let (fatal, _failures) = unbounded_channel();
        append(&mut log, 3 << 20);
        ahead.offer(|| log.sync_ahead());
        assert_eq!(disk.count(Op::Sync), 0, "nobody is there for it");
        let thread = ahead.start(&fatal);
        ahead.offer(|| log.sync_ahead());
        append(&mut log, 1 << 19);
        ahead.offer(|| log.sync_ahead());
        ahead.stop();
        assert_eq!(thread.join().unwrap(), Some(()));
        assert_eq!(disk.count(Op::Sync), 1, "half a mebibyte more is not enough");
    }

    #[test]
    fn a_sync_that_fails_ends_the_process() {
        let (disk, ahead) = (SimDisk::new(), Ahead::default());
        let mut log = log(&disk);
        let (fatal, mut failures) = unbounded_channel();
        let thread = ahead.start(&fatal);
        disk.fail_next(Op::Sync, 1, Failure::Io);
        append(&mut log, 3 << 20);
        ahead.offer(|| log.sync_ahead());
        assert_eq!(thread.join().unwrap(), None);
        let fatal = failures.try_recv().unwrap().to_string();
        assert!(fatal.contains("sync") && fatal.contains("chat.log"), "{fatal}");
        append(&mut log, 3 << 20);
        ahead.offer(|| log.sync_ahead());
    }
}
