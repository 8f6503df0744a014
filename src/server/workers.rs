//! The threads that serve connections, each its own share of them.
//!
//! Each thread has a runtime of its own. A connection stays on the thread that it was given to, so what
//! happens on it wakes that thread and no other; a runtime whose threads take work from one another
//! wakes a second one for nearly every message that comes alone.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

use crate::broker::bell::Bell;
use crate::session::crowd;

/// Most files that the sessions of one thread read at a time.
const READERS_MAX: usize = 16;

/// How much such a reader gives way to all other threads, added to its nice value. Who reads a million
/// stored messages keeps a processor busy for as long; who publishes or waits for a delivery wants one
/// for microseconds, and has it first: see `docs/decisions/0010-readers-give-way.md`.
#[cfg(target_os = "linux")]
const READER_NICENESS: i32 = 2;

/// The threads. They end when this is dropped, and their sessions with them.
#[derive(Debug)]
pub(super) struct Workers {
    threads: Vec<(Handle, Arc<Bell>)>,
    next: usize,
    _stop: watch::Sender<()>,
}

impl Workers {
    /// Starts as many threads as the machine has processors.
    pub(super) fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let (stop, stopped) = watch::channel(());
        let start = |number| {
            let runtime = Builder::new_current_thread()
                .max_blocking_threads(READERS_MAX)
                .thread_name("reader")
                .on_thread_start(give_way)
                .on_thread_park(crowd::stand_back)
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            let bell = Arc::new(Bell::default());
            let ringer = Arc::clone(&bell);
            runtime.spawn(async move { ringer.serve().await });
            let mut stopped = stopped.clone();
            let serve = move || {
                runtime.block_on(async { while stopped.changed().await.is_ok() {} });
                runtime.shutdown_background();
            };
            std::thread::Builder::new().name(format!("io-{number}")).spawn(serve)?;
            Ok((handle, bell))
        };
        let threads = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { threads, next: 0, _stop: stop })
    }

    /// How many there are: as many as the machine has processors.
    pub(super) fn count(&self) -> usize {
        self.threads.len()
    }

    /// Whose turn it is to get a connection.
    pub(super) fn next(&mut self) -> (&Handle, Arc<Bell>) {
        self.next = (self.next + 1) % self.threads.len();
        let (thread, bell) = &self.threads[self.next];
        (thread, Arc::clone(bell))
    }
}

/// What a reader does before its first file; the thread of a runtime itself is none of them.
fn give_way() {
    // On Linux a nice value is a thread's own. Where it can't be raised, readers are like the others.
    #[cfg(target_os = "linux")]
    rustix::process::nice(READER_NICENESS).ok();
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::Moment;

    /// A group's message took 180 ms while two connections read histories, and 5 since.
    #[test]
    fn readers_give_way_to_all_others() {
        let mut workers = Workers::start().unwrap();
        let (thread, _bell) = workers.next();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        thread.spawn(async move {
            let reader = tokio::task::spawn_blocking(niceness).await.unwrap();
            sender.send((niceness(), reader)).unwrap();
        });
        let own = niceness();
        assert_eq!(receiver.recv().unwrap(), (own, (own + READER_NICENESS).min(19)));
    }

    #[test]
    fn a_thread_with_a_crowd_stands_back_before_it_sleeps_and_no_other_does() {
        let mut workers = Workers::start().unwrap();
        for is_crowd in [false, true] {
            let (thread, _bell) = workers.next();
            let (sender, receiver) = std::sync::mpsc::channel();
            thread.spawn(async move {
                for round in 0.. {
                    let count = if is_crowd { 1000 } else { 1 };
                    (0..count).for_each(|_| crowd::heard(100, Moment::read()));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    // A machine that stands still may have let a crowd pass.
                    let is_settled = if is_crowd { crowd::times() > 0 } else { round == 20 };
                    if is_settled {
                        return sender.send(crowd::times()).unwrap();
                    }
                }
            });
            let times = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(times > 0, is_crowd);
        }
    }
}
