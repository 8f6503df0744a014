//! Timings and limits of a group.

use std::time::Duration;

/// How a group deals with time and failure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// A message that is not acknowledged in this time is given to somebody again.
    pub ack_timeout: Duration,
    /// How often a message is tried again; it is delivered once more than that.
    pub max_retries: u32,
    /// The delay before each retry; the last one holds for all that follow.
    pub backoff: Vec<Duration>,
    /// Whether what fails for good goes to a dead-letter topic. Groups that read one have none.
    pub dead_letters: bool,
    /// At so many unsettled messages no new one is delivered until some are settled.
    pub unsettled_max: usize,
}

impl Policy {
    /// The delay before retry number `retry`, from 1.
    pub fn delay(&self, retry: u32) -> Duration {
        let at = (retry.max(1) - 1) as usize;
        self.backoff.get(at).or(self.backoff.last()).copied().unwrap_or_default()
    }
}
