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

/// Most files that the sessions of one thread read at a time.
const READERS_MAX: usize = 16;

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

    /// Whose turn it is to get a connection.
    pub(super) fn next(&mut self) -> (&Handle, Arc<Bell>) {
        self.next = (self.next + 1) % self.threads.len();
        let (thread, bell) = &self.threads[self.next];
        (thread, Arc::clone(bell))
    }
}
