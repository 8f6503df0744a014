//! Publishing at a fixed rate, whatever the broker does. When a message is to be sent is known
//! beforehand, and how long it took is counted from there: while the broker is slow, or this
//! process, nothing is left out of what is measured.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tokio::net::tcp::OwnedWriteHalf;

use super::load::{Load, Round};
use super::messages::Ring;
use super::times::Times;
use super::wire::lost;
use crate::cli::exit::Failure;
use crate::time::Moment;

/// How long to wait for a connection that takes no more.
const FULL_PAUSE: Duration = Duration::from_micros(200);

/// How long after the end what should have been sent by then is still sent.
const GRACE: Duration = Duration::from_secs(10);

/// How much of a long wait is spent awake.
const AWAKE: Duration = Duration::from_micros(100);

/// Messages that come closer than this are sent together, so far apart. A write for each of 400,000 a
/// second wants a processor for itself, and what is measured is how the broker does without it.
const TICK: Duration = Duration::from_micros(50);

/// The same for messages that come closer than [`CLOSE`]. A write over loopback takes 5 µs, since it
/// does the receiver's work as well: every 50 µs, with a few connections, that is half a processor.
const LONG_TICK: Duration = Duration::from_micros(200);

/// See [`LONG_TICK`].
const CLOSE: Duration = Duration::from_micros(10);

/// When each message is to be sent. They go to the connections in turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) begin: Moment,
    /// Messages a second.
    pub(super) rate: u64,
    /// Connections.
    pub(super) lanes: u64,
}

impl Schedule {
    /// When message `n` is to be sent, counted from 0.
    pub(super) fn at(&self, n: u64) -> Moment {
        let nanos = u128::from(n) * 1_000_000_000 / u128::from(self.rate);
        self.begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are to be sent before `end`.
    pub(super) fn before(&self, end: Moment) -> u64 {
        let nanos = end.since(self.begin).as_nanos() * u128::from(self.rate);
        u64::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
    }

    /// From a message to the next.
    fn interval(&self) -> Duration {
        self.at(1).since(self.begin)
    }

    /// How many of the first `messages` go to connection number `lane`.
    pub(super) fn count(&self, messages: u64, lane: u64) -> u64 {
        (messages + self.lanes - 1 - lane) / self.lanes
    }
}

/// When there may be a write again.
#[derive(Debug)]
struct Turns {
    schedule: Schedule,
    tick: Duration,
    /// Most messages of one turn.
    most: u64,
    not_before: Moment,
}

impl Turns {
    fn new(schedule: Schedule, most: u64) -> Self {
        let tick = match schedule.interval() {
            interval if interval < CLOSE => LONG_TICK,
            interval if interval < TICK => TICK,
            _ => Duration::ZERO,
        };
        Self { schedule, tick, most, not_before: schedule.begin }
    }

    /// Before which message all are to be sent now, if `sent` were; or how long to wait. What comes due
    /// while it is written waits for the next turn. Of more than fits one turn, the rest has its turn at once:
    /// the end of the time is noticed between turns.
    fn take(&mut self, sent: u64, now: Moment) -> Result<u64, Duration> {
        let next = self.schedule.at(sent).max(self.not_before);
        if now < next {
            return Err(next.since(now));
        }
        let due = self.schedule.before(now + Duration::from_nanos(1));
        let most = sent.saturating_add(self.most);
        if due > most {
            return Ok(most);
        }
        self.not_before = now + self.tick;
        Ok(due)
    }
}

/// A connection that is written to.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) round: Round,
    pub(super) writer: Arc<OwnedWriteHalf>,
    pub(super) ring: Ring,
}

/// What became of the schedule.
#[derive(Clone, Debug)]
pub(super) struct Paced {
    /// Messages that were sent, and those that it was too late for.
    pub(super) sent: u64,
    pub(super) unsent: u64,
    /// How late they were sent: part of every time that is measured.
    pub(super) lag: Times,
}

/// Sends by the schedule until its time is over. Blocks: it has a thread of its own, since it wants
/// to sleep more precisely than a runtime does.
pub(super) fn pace(
    load: &Load,
    schedule: Schedule,
    mut lanes: Vec<Lane>,
) -> Result<Paced, Failure> {
    sleep_precisely();
    let planned = schedule.before(load.span.end);
    // A ring on each connection is one write on each.
    let ring = lanes.iter().map(|lane| lane.ring.room()).min().unwrap_or(1);
    let mut turns = Turns::new(schedule, schedule.lanes.saturating_mul(ring as u64));
    let mut paced = Paced { sent: 0, unsent: 0, lag: Times::new() };
    while paced.sent < planned && !load.is_over.load(Ordering::Relaxed) {
        let now = Moment::read();
        let due = match turns.take(paced.sent, now) {
            Ok(due) => due.min(planned),
            Err(left) => {
                wait(left, schedule.interval());
                continue;
            }
        };
        if now >= load.span.end + GRACE {
            break;
        }
        // Each connection gets all of its that are due in one write.
        let first = paced.sent;
        let touched = (due - first).min(schedule.lanes);
        for n in first..first + touched {
            let index = usize::try_from(n % schedule.lanes).expect("an index of a lane");
            send(load, schedule, &mut lanes[index], n, due)?;
        }
        let now = Moment::read();
        for n in first..due {
            let meant = schedule.at(n);
            if load.span.measures(meant) {
                paced.lag.add(now.since(meant), 1);
            }
        }
        paced.sent = due;
    }
    paced.unsent = planned - paced.sent;
    Ok(paced)
}

/// Waits for `left`, or for most of it: of a long wait the last is spent awake, since a sleep ends
/// late. Short waits in a row would not leave the processor to anyone else.
pub(super) fn wait(left: Duration, interval: Duration) {
    if interval < 4 * AWAKE {
        thread::sleep(left);
    } else if left > AWAKE {
        thread::sleep(left.saturating_sub(AWAKE));
    } else {
        thread::yield_now();
    }
}

/// Sends message `n` and those that follow it on the same connection, before `due`.
fn send(load: &Load, schedule: Schedule, lane: &mut Lane, n: u64, due: u64) -> Result<(), Failure> {
    for n in (n..due).step_by(usize::try_from(schedule.lanes).unwrap_or(usize::MAX)) {
        if lane.ring.room() == 0 {
            flush(load, lane)?;
        }
        if lane.ring.room() > 0 {
            lane.ring.add(1, schedule.at(n));
        }
        lane.round.sent(load, 1);
    }
    flush(load, lane)
}

fn flush(load: &Load, lane: &mut Lane) -> Result<(), Failure> {
    while !lane.ring.unsent().is_empty() {
        match lane.writer.try_write(lane.ring.unsent()) {
            Ok(bytes) => lane.ring.sent(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if load.is_over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                thread::sleep(FULL_PAUSE);
            }
            Err(error) => return Err(lost(&error)),
        }
    }
    Ok(())
}

/// Linux lets a sleep last 50 µs longer unless a thread asks it not to.
pub(super) fn sleep_precisely() {
    // Where it can't, the sender's lag says what came of it.
    #[cfg(target_os = "linux")]
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_exact_and_shared_out() {
        let begin = Moment::from_millis(7);
        let schedule = Schedule { begin, rate: 3, lanes: 2 };
        assert_eq!(schedule.at(0), begin);
        assert_eq!(schedule.at(3), begin + Duration::from_secs(1));
        assert_eq!(schedule.before(begin), 0);
        assert_eq!(schedule.before(begin + Duration::from_nanos(1)), 1);
        assert_eq!(schedule.before(begin + Duration::from_secs(1)), 3);
        for messages in 0..20 {
            let counts = [schedule.count(messages, 0), schedule.count(messages, 1)];
            assert_eq!(counts[0] + counts[1], messages);
            assert!(counts[0] - counts[1] <= 1);
        }
        for n in 0..100 {
            assert_eq!(schedule.before(schedule.at(n) + Duration::from_nanos(1)), n + 1, "{n}");
        }
    }

    /// All that was due at a time was one turn: with a broker that takes 900,000 a second, and a hundred
    /// million to be sent, the next look at the clock came 40 s after the end.
    #[test]
    fn of_too_much_at_a_time_the_rest_has_its_turn_at_once() {
        let schedule = Schedule { begin: Moment::default(), rate: 100_000_000, lanes: 1 };
        let mut turns = Turns::new(schedule, 1_000);
        let now = schedule.begin + Duration::from_millis(1);
        for turn in 0..100 {
            assert_eq!(turns.take(turn * 1_000, now), Ok((turn + 1) * 1_000));
        }
        assert_eq!(turns.take(100_000, now), Ok(100_001), "the last, which is due right now");
        assert_eq!(turns.take(100_001, now), Err(LONG_TICK));
    }

    #[test]
    fn writes_stay_apart_however_long_they_take() {
        for (rate, writes) in [(2_000_000, 50), (500_000, 50), (60_000, 200), (10_000, 100)] {
            let schedule = Schedule { begin: Moment::default(), rate, lanes: 1 };
            let mut turns = Turns::new(schedule, 1_000);
            let (mut now, mut sent, mut taken) = (schedule.begin, 0, 0);
            while now < schedule.begin + Duration::from_millis(10) {
                match turns.take(sent, now) {
                    Ok(due) => {
                        assert!(due > sent, "a turn has something to send");
                        (sent, taken) = (due, taken + 1);
                        now = now + Duration::from_micros(7);
                    }
                    Err(left) => now = now + left,
                }
            }
            assert_eq!(taken, writes, "in 10 ms at {rate} a second");
        }
    }
}
