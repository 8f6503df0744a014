//! How often something happens, against how often it should.

use std::time::Duration;

use crate::time::Moment;

/// Tells whether something happens more often than once in a turn, on average: the generic cell rate
/// algorithm (ITU-T I.371).
#[derive(Debug)]
pub struct Rate {
    turn: Duration,
    tolerance: Duration,
    /// When as many would have come that came, at the highest rate that is calm.
    due: Moment,
}

impl Rate {
    /// Once in a `turn`. Over `tolerance` a few may come closer together, and after twice as long in
    /// which nothing happens it is calm again, whatever was before.
    pub const fn once_in(turn: Duration, tolerance: Duration) -> Self {
        Self { turn, tolerance, due: Moment::from_nanos(0) }
    }

    /// It happens.
    pub fn note(&mut self, now: Moment) {
        self.due = (self.due.max(now) + self.turn).min(now + 2 * self.tolerance);
    }

    /// Whether it happens no more often than that.
    pub fn is_calm(&self, now: Moment) -> bool {
        self.due <= now + self.tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_micros(50);
    const TOLERANCE: Duration = Duration::from_millis(1);

    /// Whether it was calm behind each of `count`, one every `pause` microseconds.
    fn calms(rate: &mut Rate, begin: u64, pause: u64, count: u64) -> Vec<bool> {
        let times = (0..count).map(|n| Moment::from_nanos((begin + n * pause) * 1000));
        let calm = |now| {
            rate.note(now);
            rate.is_calm(now)
        };
        times.map(calm).collect()
    }

    #[test]
    fn once_in_a_turn_is_calm_for_ever_and_twice_is_not() {
        let mut rate = Rate::once_in(TURN, TOLERANCE);
        assert_eq!(calms(&mut rate, 1_000_000, 50, 1000), [true; 1000]);
        let crowd = calms(&mut rate, 2_000_000, 25, 1000);
        assert_eq!(crowd.iter().position(|calm| !calm), Some(39), "a millisecond's tolerance");
        assert!(crowd[39..].iter().all(|calm| !calm));
    }

    #[test]
    fn after_a_crowd_of_any_size_it_is_soon_calm() {
        let mut rate = Rate::once_in(TURN, TOLERANCE);
        calms(&mut rate, 1_000_000, 0, 1_000_000);
        let last = Moment::from_nanos(1_000_000_000);
        assert!(!rate.is_calm(last + (TOLERANCE - Duration::from_nanos(1))));
        assert!(rate.is_calm(last + TOLERANCE));
    }
}
