//! How long a cache line takes from one processor to another and back. A virtual machine's host may give
//! two of its processors one cache, or two that are far apart, for seconds or minutes at a time; whatever
//! passes memory between threads, as a broker does, then differs by half.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use super::aside::Stop;
use super::times::Times;
use crate::time::Moment;

/// What is measured at once: one trip takes about as long as reading the clock.
const TRIPS: u32 = 10_000;

/// Who has looked so often lets others run: the other side may have no processor.
const LOOKS_MAX: u32 = 100_000;

const ASKED: u8 = 1;
const ANSWERED: u8 = 2;
const DONE: u8 = 3;

/// A cache line by itself, and its neighbour, which some processors fetch with it.
#[repr(align(128))]
struct Line(AtomicU8);

/// Sends one there and back for so long, or until it is asked to stop. `None` on a machine with one processor.
pub(super) fn measure(for_long: Duration, stop: &Stop) -> Option<Times> {
    thread::available_parallelism().ok().filter(|count| count.get() > 1)?;
    let line = Line(AtomicU8::new(ANSWERED));
    let mut times = Times::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            while line.wait(|now| now != ANSWERED) == ASKED {
                line.set(ANSWERED);
            }
        });
        let start = Moment::read();
        let mut before = start;
        while before.since(start) < for_long || times.is_empty() {
            for _ in 0..TRIPS {
                line.set(ASKED);
                line.wait(|now| now == ANSWERED);
            }
            let now = Moment::read();
            times.add(now.since(before) / TRIPS, u64::from(TRIPS));
            before = now;
            if stop.is_asked() {
                break;
            }
        }
        line.set(DONE);
    });
    Some(times)
}

impl Line {
    fn set(&self, value: u8) {
        self.0.store(value, Ordering::Release);
    }

    /// Looks until it is so. Without the processor's hint that this is a spin loop, which takes longer
    /// than the trip on some.
    fn wait(&self, is_so: impl Fn(u8) -> bool) -> u8 {
        let mut looks = 0;
        loop {
            let value = self.0.load(Ordering::Acquire);
            if is_so(value) {
                return value;
            }
            looks += 1;
            if looks == LOOKS_MAX {
                looks = 0;
                thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trip_is_counted_if_there_is_another_processor_until_it_is_asked_to_stop() {
        let stop = Stop::default();
        stop.ask();
        let is_there = thread::available_parallelism().unwrap().get() > 1;
        let times = measure(Duration::from_secs(60), &stop);
        let counts = times.map(|times| times.json()["count"].as_u64());
        assert_eq!(counts, is_there.then_some(Some(u64::from(TRIPS))));
    }
}
