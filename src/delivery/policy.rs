//! The settings of a group, and the schedule that follows from them.

use std::time::Duration;

use crate::limits::GROUP_UNSETTLED_MAX;

/// How a group treats what is not acknowledged. One value is shared by many groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// How long a member may hold a message before it counts as failed.
    pub ack_timeout: Duration,
    /// Deliveries after the first: a message is given up at failure number `max_retries + 1`.
    pub max_retries: u32,
    /// The pause before retry 1, 2, 3 …; the last one repeats. Empty means no pause.
    pub backoff: Vec<Duration>,
    /// Whether what fails for good goes to a dead-letter topic. False for groups that read one.
    pub dead_letters: bool,
    /// No new message is given out while this many are given out and not settled.
    pub unsettled_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(30),
            max_retries: 3,
            backoff: [1, 2, 4].map(Duration::from_secs).to_vec(),
            dead_letters: true,
            unsettled_max: GROUP_UNSETTLED_MAX,
        }
    }
}

impl Policy {
    /// The pause before a message that had failed `failures` times, and now once more, is ready.
    pub fn delay_after(&self, failures: u32) -> Duration {
        let step = usize::try_from(failures).unwrap_or(usize::MAX);
        self.backoff.get(step).or(self.backoff.last()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pause_repeats() {
        let policy = Policy::default();
        let seconds = [0, 1, 2, 3, u32::MAX].map(|n| policy.delay_after(n).as_secs());
        assert_eq!(seconds, [1, 2, 4, 4, 4]);
        let at_once = Policy { backoff: Vec::new(), ..Policy::default() };
        assert_eq!(at_once.delay_after(0), Duration::ZERO);
    }
}
