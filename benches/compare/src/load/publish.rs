//! The side that publishes: on each connection so many messages in flight, each answered.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::link::Watch;
use super::payload::Payload;
use super::{Link, PATIENCE, Quiet, Shared};
use crate::protocol::Publisher;

/// What to publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Most messages in flight on each connection, not yet answered.
    pub(crate) window: u64,
    /// Bytes of a message.
    pub(crate) size: usize,
    pub(crate) until: Until,
    /// Publish no further than so many messages ahead of the consumers, on an average; and how
    /// many of them get each message.
    pub(crate) ahead: Option<(u64, u64)>,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After so many messages; all of it is measured.
    Count(u64),
    /// After the first time and the second: only the second is measured.
    Time(Duration, Duration),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Published {
    /// Messages in all, each answered.
    pub(crate) count: u64,
    /// Messages that were answered while it was measured, a second.
    pub(crate) rate: f64,
    /// With one message in flight on one connection: nanoseconds until each answer.
    pub(crate) times: Vec<u64>,
}

/// One connection.
struct Lane {
    link: Link,
    publisher: Box<dyn Publisher>,
    in_flight: u64,
}

/// The connections that publish.
pub(crate) struct Publishers {
    lanes: Vec<Lane>,
}

impl Publishers {
    pub(crate) fn new(links: Vec<(Link, Box<dyn Publisher>)>) -> Self {
        let lane = |(link, publisher)| Lane { link, publisher, in_flight: 0 };
        Self { lanes: links.into_iter().map(lane).collect() }
    }

    /// The only one of them, to be used otherwise.
    pub(super) fn into_single(mut self) -> Option<(Link, Box<dyn Publisher>)> {
        let lane = self.lanes.pop()?;
        Some((lane.link, lane.publisher))
    }
}

/// Most messages that one connection encodes before the others get their turn.
const BURST: u64 = 4096;

/// Publishes, and returns when every message was answered.
pub(crate) fn publish(plan: Plan, shared: &Shared, publishers: Publishers) -> Result<Published> {
    let mut work = Work {
        plan,
        shared,
        payload: Payload::new(plan.size),
        sent: 0,
        answered: 0,
        times: Vec::new(),
        span: Span::new(plan.until),
        is_held_back: false,
    };
    let mut lanes = publishers.lanes;
    let done = shared.side(|| match &mut lanes[..] {
        [lane] if plan.window == 1 && plan.ahead.is_none() => work.one_at_a_time(lane),
        lanes => work.many(lanes),
    });
    done?;
    ensure!(work.sent == work.answered, "{} sent, {} answered", work.sent, work.answered);
    shared.published.store(work.sent, Ordering::Relaxed);
    Ok(Published { count: work.sent, rate: work.span.rate(), times: work.times })
}

struct Work<'a> {
    plan: Plan,
    shared: &'a Shared,
    payload: Payload,
    sent: u64,
    answered: u64,
    times: Vec<u64>,
    span: Span,
    /// The consumers are too far behind.
    is_held_back: bool,
}

impl Work<'_> {
    /// Writes, and waits for the answer.
    fn one_at_a_time(&mut self, lane: &mut Lane) -> Result<()> {
        lane.link.block(PATIENCE)?;
        while !self.is_sent() {
            let begin = Instant::now();
            self.encode(lane, 1);
            lane.link.write()?;
            while lane.in_flight > 0 {
                ensure!(lane.link.read()?, "a message was not answered");
                self.decode(lane)?;
            }
            let end = Instant::now();
            if self.span.note(end, self.answered) {
                let time = u64::try_from(end.duration_since(begin).as_nanos())?;
                self.times.push(time);
            }
        }
        Ok(())
    }

    fn many(&mut self, lanes: &mut [Lane]) -> Result<()> {
        let mut watch = Watch::new(lanes.iter().map(|lane| &lane.link))?;
        let mut quiet = Quiet::new();
        let mut ready: Vec<usize> = (0..lanes.len()).collect();
        loop {
            for index in ready {
                let lane = &mut lanes[index];
                while lane.link.read()? {
                    self.decode(lane)?;
                }
                self.fill(lane);
                watch.write(index, &mut lane.link)?;
            }
            self.span.note(Instant::now(), self.answered);
            if self.is_sent() && self.answered == self.sent {
                return Ok(());
            }
            self.shared.check_other_side()?;
            let has_moved = self.answered + self.shared.delivered.load(Ordering::Relaxed);
            if quiet.is_too_long(has_moved) {
                bail!("{} messages were not answered", self.sent - self.answered);
            }
            let was_held_back = std::mem::take(&mut self.is_held_back);
            let longest = Duration::from_micros(if was_held_back { 100 } else { 20_000 });
            ready = watch.wait(longest)?;
            if was_held_back {
                ready = (0..lanes.len()).collect();
            }
        }
    }

    fn is_sent(&self) -> bool {
        match self.plan.until {
            Until::Count(count) => self.sent >= count,
            Until::Time(..) => self.span.is_over,
        }
    }

    fn decode(&mut self, lane: &mut Lane) -> Result<()> {
        let (input, out) = lane.link.both();
        let taken = lane.publisher.answers(input, out)?;
        lane.link.take(taken.bytes);
        ensure!(taken.messages <= lane.in_flight, "more answers than messages");
        lane.in_flight -= taken.messages;
        self.answered += taken.messages;
        Ok(())
    }

    /// Sends more when a quarter of the window is free: fewer, fuller packets, as clients do.
    fn fill(&mut self, lane: &mut Lane) {
        let free = self.plan.window - lane.in_flight;
        if self.is_sent() || free < (self.plan.window / 4).max(1) || lane.link.unwritten() > 1 << 20
        {
            return;
        }
        if let Some((most, copies)) = self.plan.ahead {
            let delivered = self.shared.delivered.load(Ordering::Relaxed);
            if self.sent * copies > delivered + most * copies {
                self.is_held_back = true;
                return;
            }
        }
        let count = match self.plan.until {
            Until::Count(count) => free.min(count - self.sent),
            Until::Time(..) => free,
        };
        self.encode(lane, count.min(BURST));
    }

    fn encode(&mut self, lane: &mut Lane, count: u64) {
        for _ in 0..count {
            lane.publisher.publish(self.payload.bytes(), &mut lane.link.out);
            self.payload.advance();
        }
        lane.publisher.burst_ends(&mut lane.link.out);
        lane.in_flight += count;
        self.sent += count;
    }
}

/// What is measured, from one answer to another. Some brokers answer many messages at once, and
/// seldom: it begins and ends with the first answers after a time, which is as early in a burst at
/// both ends.
#[derive(Debug)]
struct Span {
    until: Until,
    begin: Instant,
    /// When it began to be measured, and how many were answered then.
    start: Option<(Instant, u64)>,
    /// The same of its end.
    end: Option<(Instant, u64)>,
    answered: u64,
    is_over: bool,
}

impl Span {
    fn new(until: Until) -> Self {
        let begin = Instant::now();
        let start = match until {
            Until::Count(_) => Some((begin, 0)),
            Until::Time(..) => None,
        };
        Self { until, begin, start, end: None, answered: 0, is_over: false }
    }

    /// So many were answered by now. Whether an answer that came now is measured.
    fn note(&mut self, now: Instant, answered: u64) -> bool {
        let is_new = std::mem::replace(&mut self.answered, answered) != answered;
        if !is_new || self.is_over {
            return false;
        }
        match (self.until, self.start) {
            (Until::Count(_), _) => self.end = Some((now, answered)),
            (Until::Time(warm_up, _), None) => {
                if now.duration_since(self.begin) >= warm_up {
                    self.start = Some((now, answered));
                }
                return false;
            }
            (Until::Time(_, time), Some((start, _))) => {
                if now.duration_since(start) >= time {
                    self.end = Some((now, answered));
                    self.is_over = true;
                }
            }
        }
        true
    }

    fn rate(&self) -> f64 {
        let (Some((start, first)), Some((end, last))) = (self.start, self.end) else { return 0.0 };
        crate::figures::rate(last - first, end.duration_since(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_goes_from_an_answer_to_an_answer() {
        let second = Duration::from_secs;
        let mut span = Span::new(Until::Time(second(1), second(2)));
        let begin = span.begin;
        let mut note = |at, answered| span.note(begin + Duration::from_millis(at), answered);
        assert!(!note(500, 100), "warming up");
        assert!(!note(1100, 100), "no answer");
        assert!(!note(1200, 200), "from here on");
        assert!(note(1700, 300));
        assert!(!note(3300, 300), "no answer");
        assert!(note(3700, 450));
        assert!(!note(3800, 500), "it is over");
        assert!(span.is_over);
        assert!((span.rate() - 100.0).abs() < 1e-6, "{span:?}");
    }

    #[test]
    fn bursts_count_as_often_as_their_waits() {
        let mut span = Span::new(Until::Time(Duration::ZERO, Duration::from_secs(1)));
        let begin = span.begin;
        // A burst of 1,000 answers each second, each in two reads.
        for burst in 1..=3 {
            let at = begin + Duration::from_secs(burst);
            span.note(at, burst * 1000 - 500);
            span.note(at + Duration::from_millis(1), burst * 1000);
        }
        assert!((span.rate() - 1000.0).abs() < 1e-6, "{span:?}");
    }
}
