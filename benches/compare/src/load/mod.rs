//! The one load generator for all brokers: a thread that publishes, a thread that consumes, each
//! with an epoll of its own over non-blocking sockets. Coders of `protocol` make and read the bytes.
//!
//! Every message carries its number. A message that comes twice, or out of turn where there is a
//! turn, ends a run at once; one that does not come ends it after a while.

mod check;
mod consume;
mod latency;
mod link;
mod payload;
mod publish;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub(crate) use check::Check;
pub(crate) use consume::{Consumers, consume};
pub(crate) use latency::publish_at_rate;
pub(crate) use link::Link;
pub(crate) use publish::{Plan, Publishers, Until, publish};

/// How long nothing at all may come while something is to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the two threads of a run know of each other.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Messages that came, of all consumers together.
    delivered: AtomicU64,
    /// Messages that were published in all, once that is known; before that [`u64::MAX`].
    published: AtomicU64,
    /// One side has failed: the other can stop.
    is_over: AtomicBool,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            delivered: AtomicU64::new(0),
            published: AtomicU64::new(u64::MAX),
            is_over: AtomicBool::new(false),
        }
    }

    /// So many messages are there already, and no more will come.
    pub(crate) fn published(count: u64) -> Self {
        let shared = Self::new();
        shared.published.store(count, Ordering::Relaxed);
        shared
    }

    /// Runs one side, and tells the other if it fails.
    pub(crate) fn side<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = work();
        if result.is_err() {
            self.is_over.store(true, Ordering::Relaxed);
        }
        result
    }

    fn check_other_side(&self) -> Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            bail!("stopped, since the other side failed");
        }
        Ok(())
    }
}

/// Notices when nothing moves any more.
#[derive(Debug)]
struct Quiet {
    since: Instant,
    seen: u64,
}

impl Quiet {
    fn new() -> Self {
        Self { since: Instant::now(), seen: 0 }
    }

    fn is_too_long(&mut self, count: u64) -> bool {
        if count != self.seen {
            (self.seen, self.since) = (count, Instant::now());
        }
        self.since.elapsed() >= PATIENCE
    }
}
