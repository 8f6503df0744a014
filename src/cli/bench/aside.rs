//! Work that blocks, on a thread of its own. When nobody waits for it any more it is told to stop, and
//! that is waited for: what it has made in a directory is removed by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::engine::ended_early;
use crate::cli::exit::{Exit, Failure};

/// Tells work that it shall stop.
#[derive(Clone, Default, Debug)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Does it, and waits for what comes of it.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let stop = Stop::default();
    let (done, result) = oneshot::channel();
    let asked = stop.clone();
    // Nobody waits for it any more if it was asked to stop.
    let work = move || drop(done.send(work(&asked)));
    let thread = thread::Builder::new().name("aside".to_owned()).spawn(work).map_err(|error| {
        Failure::new(Exit::Internal, format!("failed to start a thread: {error}"))
    })?;
    let _aside = Aside { stop, thread: Some(thread) };
    result.await.unwrap_or_else(|_panicked| Err(ended_early()))
}

/// A thread that does not outlive this.
#[derive(Debug)]
struct Aside {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.stop.ask();
        // Should it have panicked, its result said so.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
