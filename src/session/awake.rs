//! Whether a session waits for its peer awake, and until when.
//!
//! To sleep and be woken costs some 25 µs on a virtual machine, as much as a publish that is not synced
//! costs in all. A peer that waits for one answer before it sends the next message comes back in less.
//! Who came back so soon last time is waited for awake, for as long as that: the rule of the ski rental
//! (Karlin, Manasse, McGeoch and Owicki, "Competitive randomized algorithms for nonuniform problems",
//! 1994), with a look at the past, so that whoever takes more time costs nothing. See
//! `docs/decisions/0011-waits-awake.md`.

use std::time::Duration;

use crate::time::Moment;

/// What is soon: a wait is no longer when it is awake. More than the two changes of threads between an
/// answer and the next message of a peer on the same machine.
const SOON: Duration = Duration::from_micros(80);

/// See the module.
#[derive(Debug)]
pub(super) struct Awake {
    /// Another processor is there for the peer.
    is_allowed: bool,
    heard: Moment,
    /// When the last message was answered, if that was soon and nothing was heard since.
    answered: Option<Moment>,
    /// The message before came soon after the answer to the one before it.
    is_soon: bool,
}

impl Awake {
    /// For a new connection. Without another processor the peer can't go on while it is waited for.
    pub(super) fn new(is_allowed: bool, now: Moment) -> Self {
        Self { is_allowed, heard: now, answered: None, is_soon: false }
    }

    /// Something was read.
    pub(super) fn heard(&mut self, now: Moment) {
        self.is_soon = self.answered.take().is_some_and(|answered| now.since(answered) <= SOON);
        self.heard = now;
    }

    /// What was read is answered. If that took long (the disk did), a sleep more or less makes no
    /// difference.
    pub(super) fn answered(&mut self, now: Moment) {
        self.answered = (now.since(self.heard) <= SOON).then_some(now);
    }

    /// Until when to wait awake, if at all.
    pub(super) fn until(&self) -> Option<Moment> {
        let answered = self.answered.filter(|_| self.is_allowed && self.is_soon)?;
        Some(answered + SOON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that takes `pauses` between answers, each of which took `visit`: for which of them was
    /// it waited awake?
    fn waits(is_allowed: bool, visit: u64, pauses: &[u64]) -> Vec<bool> {
        let mut now = Moment::default();
        let mut awake = Awake::new(is_allowed, now);
        let mut wait = |pause: &u64| {
            awake.heard(now);
            now = now + Duration::from_micros(visit);
            awake.answered(now);
            let until = awake.until();
            assert!(until.is_none_or(|until| until == now + SOON));
            now = now + Duration::from_micros(*pause);
            until.is_some()
        };
        pauses.iter().map(&mut wait).collect()
    }

    #[test]
    fn a_peer_that_comes_back_soon_is_waited_for_awake() {
        assert_eq!(waits(true, 10, &[20, 80, 20]), [false, true, true]);
    }

    #[test]
    fn a_peer_that_takes_its_time_is_waited_for_once_and_not_again() {
        let pauses = [20, 1000, 1000, 1000, 20, 20];
        assert_eq!(waits(true, 10, &pauses), [false, true, false, false, false, true]);
    }

    #[test]
    fn nobody_is_waited_for_awake_after_the_disk_or_on_one_processor() {
        assert_eq!(waits(true, 120, &[20, 20, 20]), [false; 3]);
        assert_eq!(waits(false, 10, &[20, 20, 20]), [false; 3]);
    }

    #[test]
    fn what_was_read_but_not_answered_here_ends_the_wait() {
        let now = Moment::default();
        let mut awake = Awake::new(true, now);
        awake.answered(now);
        awake.heard(now);
        awake.answered(now);
        assert!(awake.until().is_some());
        awake.heard(now);
        assert_eq!(awake.until(), None, "its answer comes from elsewhere");
    }
}
