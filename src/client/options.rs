//! How a client connects, and how it comes back when a connection is lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ClientError;
use crate::limits::HEARTBEAT;

/// Settings of a [`super::Client`]. Start from [`Options::new`] and change what you need.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker, as `host:port`.
    pub addr: String,
    /// When to try again after a connection was lost.
    pub reconnect: Reconnect,
    /// How often a subscription says that it is alive. A broker gives up a member of a group that
    /// was silent for 30 seconds.
    pub heartbeat: Duration,
    /// Most publishes of a connection that wait for their answers; more wait for room.
    pub window: usize,
    /// How long a new connection may take until the broker's greeting.
    pub connect_timeout: Duration,
}

impl Options {
    /// The usual settings, for the broker at `addr` (`host:port`).
    pub fn new(addr: impl Into<String>) -> Self {
        Self {
            addr: addr.into(),
            reconnect: Reconnect::default(),
            heartbeat: HEARTBEAT,
            window: 10_000,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// When to try again after a connection was lost: after a random time between zero and a bound
/// that doubles with every failure, so that many clients do not come back all at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reconnect {
    /// The bound before the first attempt.
    pub first: Duration,
    /// The largest bound.
    pub max: Duration,
    /// Give up after this many attempts in a row; `None` for no such limit.
    pub attempts: Option<u32>,
    /// Give up when attempts failed for this long; `None` for no such limit.
    pub give_up_after: Option<Duration>,
}

impl Default for Reconnect {
    /// 50 ms doubling to 5 s, for ever.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            max: Duration::from_secs(5),
            attempts: None,
            give_up_after: None,
        }
    }
}

/// Where a client stands between two connections.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: Reconnect,
    attempts: u32,
    since: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(policy: Reconnect) -> Self {
        Self { policy, attempts: 0, since: None }
    }

    /// A connection has proved to be good.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
        self.since = None;
    }

    /// How long to wait before the next attempt, or `None` to give up. `random` is from 0 to 1.
    pub(super) fn delay(&mut self, now: Instant, random: f64) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let tried_enough = self.policy.attempts.is_some_and(|max| self.attempts >= max);
        let waited_enough =
            self.policy.give_up_after.is_some_and(|max| now.saturating_duration_since(since) > max);
        if tried_enough || waited_enough {
            return None;
        }
        let factor = 1u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        let bound = self.policy.first.saturating_mul(factor).min(self.policy.max);
        self.attempts += 1;
        Some(bound.mul_f64(random.clamp(0.0, 1.0)))
    }

    /// Waits until the next attempt, or gives `lost` back to give up.
    pub(super) async fn pause(&mut self, lost: ClientError) -> Result<(), ClientError> {
        let Some(delay) = self.delay(Instant::now(), rand::random()) else { return Err(lost) };
        sleep(delay).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_largest_and_begin_anew_after_a_good_connection() {
        let now = Instant::now();
        let mut backoff = Backoff::new(Reconnect::default());
        let mut waits = |n: usize| -> Vec<u128> {
            (0..n).map(|_| backoff.delay(now, 1.0).unwrap().as_millis()).collect()
        };
        assert_eq!(waits(9), [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(waits(100).last(), Some(&5000), "no overflow");
        backoff.reset();
        assert_eq!(backoff.delay(now, 0.5), Some(Duration::from_millis(25)));
        assert_eq!(backoff.delay(now, 0.0), Some(Duration::ZERO));
    }

    #[test]
    fn a_client_gives_up_when_it_was_told_to() {
        let now = Instant::now();
        let mut backoff = Backoff::new(Reconnect { attempts: Some(2), ..Reconnect::default() });
        assert!(backoff.delay(now, 1.0).is_some() && backoff.delay(now, 1.0).is_some());
        assert_eq!(backoff.delay(now, 1.0), None);
        let give_up_after = Some(Duration::from_secs(3));
        let mut backoff = Backoff::new(Reconnect { give_up_after, ..Reconnect::default() });
        assert!(backoff.delay(now, 1.0).is_some());
        assert!(backoff.delay(now + Duration::from_secs(3), 1.0).is_some());
        assert_eq!(backoff.delay(now + Duration::from_secs(4), 1.0), None);
    }
}
