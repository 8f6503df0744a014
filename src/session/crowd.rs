//! A thread with many small requests lets the others run before it sleeps.
//!
//! When each of many connections sends one message at a time, a thread that sleeps as soon as it has
//! read all there is sleeps and is woken for one or two messages: both cost more than reading them, and
//! whoever sends them pays for half of it. If it stands back instead, once, those who are ready to run
//! go on, and what they send meanwhile is there when it looks: some twenty messages at a time. With
//! nobody ready to run this costs less than a microsecond. See
//! `docs/decisions/0014-stands-back.md`.

use std::cell::RefCell;
use std::time::Duration;

use crate::rate::Rate;
use crate::time::Moment;

/// A read up to this size is a small request or a few of them, in bytes.
const FEW_BYTES_MAX: usize = 512;

/// How often those come, on average, if there is no crowd; and over how long that is taken.
const TURN: Duration = Duration::from_micros(50);
const CALM: Duration = Duration::from_millis(2);

/// Another who wants the processor for so long goes on when the thread has something to do.
const LONG: Duration = Duration::from_millis(1);

/// For so many times as long as that took nobody is let run.
const PAUSE: u32 = 64;

thread_local! {
    static CROWD: RefCell<Crowd> = const { RefCell::new(Crowd::new()) };
}

/// Something was read by a session of this thread.
pub fn heard(bytes: usize, now: Moment) {
    if bytes <= FEW_BYTES_MAX {
        CROWD.with_borrow_mut(|crowd| crowd.requests.note(now));
    }
}

/// For a thread that serves sessions and has nothing more to do: lets others run, if it is to.
pub fn stand_back() {
    let start = Moment::read();
    if CROWD.with_borrow(|crowd| crowd.stands_back(start)) {
        std::thread::yield_now();
        CROWD.with_borrow_mut(|crowd| crowd.stood_back(start, Moment::read()));
    }
}

/// How often this thread has let others run.
#[cfg(test)]
pub(crate) fn times() -> u64 {
    CROWD.with_borrow(|crowd| crowd.times)
}

/// See the module.
#[derive(Debug)]
struct Crowd {
    requests: Rate,
    not_before: Moment,
    #[cfg(test)]
    times: u64,
}

impl Crowd {
    const fn new() -> Self {
        Self {
            requests: Rate::once_in(TURN, CALM),
            not_before: Moment::from_nanos(0),
            #[cfg(test)]
            times: 0,
        }
    }

    fn stands_back(&self, now: Moment) -> bool {
        !self.requests.is_calm(now) && now >= self.not_before
    }

    /// Others ran from `start` to `now`.
    fn stood_back(&mut self, start: Moment, now: Moment) {
        #[cfg(test)]
        {
            self.times += 1;
        }
        let took = now.since(start);
        if took >= LONG {
            self.not_before = now + PAUSE * took;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::from_nanos(1_000_000_000 + micros * 1000)
    }

    /// After 1,000 requests, one every `pause` microseconds.
    fn crowd(pause: u64) -> (Crowd, Moment) {
        let mut crowd = Crowd::new();
        (0..1000).for_each(|n| crowd.requests.note(at(n * pause)));
        (crowd, at(999 * pause))
    }

    #[test]
    fn a_crowd_is_stood_back_for_and_a_few_are_not() {
        for (pause, expected) in [(10, true), (40, true), (60, false), (1000, false)] {
            let (crowd, now) = crowd(pause);
            assert_eq!(crowd.stands_back(now), expected, "one every {pause} µs");
            assert!(!crowd.stands_back(now + CALM), "it is over");
        }
    }

    /// One publisher beside a program that wanted all of the processor was ten times as slow.
    #[test]
    fn who_stood_back_too_long_does_not_for_a_while() {
        let (mut crowd, now) = crowd(10);
        crowd.stood_back(now, now + Duration::from_micros(999));
        assert!(crowd.stands_back(now), "the others had little to do");
        let end = now + Duration::from_millis(3);
        crowd.stood_back(now, end);
        let again = Duration::from_millis(3 * 64);
        (0..100).for_each(|_| crowd.requests.note(end + again));
        assert!(!crowd.stands_back(end + (again - Duration::from_micros(1))));
        assert!(crowd.stands_back(end + again));
    }
}
