//! The side that consumes: members of a group, plain subscribers, or a reader of what is stored.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::link::Watch;
use super::payload::number_of;
use super::{Check, Link, Quiet, Shared};
use crate::protocol::Consumer;

/// Reads of one connection before the others get their turn.
const READS: usize = 8;

/// How long to listen for more when everything has come.
const AFTERWARDS: Duration = Duration::from_millis(30);

/// The connections that consume.
pub(crate) struct Consumers {
    links: Vec<(Link, Box<dyn Consumer>)>,
    check: Check,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Consumed {
    /// Messages that came, of all consumers together.
    pub(crate) delivered: u64,
    /// When the last message had come and everything said to it was answered.
    pub(crate) end: Instant,
}

impl Consumers {
    pub(crate) fn new(links: Vec<(Link, Box<dyn Consumer>)>, check: Check) -> Self {
        Self { links, check }
    }
}

/// Consumes until everything that was published has come and is acknowledged. `note` is told the
/// number of each message and when it was read. The consumers stay connected.
pub(crate) fn consume(
    consumers: &mut Consumers,
    shared: &Shared,
    note: &mut dyn FnMut(u64, Instant),
) -> Result<Consumed> {
    shared.side(|| {
        let watch = Watch::new(consumers.links.iter().map(|(link, _)| link))?;
        let copies = consumers.check.copies();
        let mut work = Work { consumers, shared, watch, note, delivered: 0, is_finishing: false };
        work.run(copies)
    })
}

struct Work<'a> {
    consumers: &'a mut Consumers,
    shared: &'a Shared,
    watch: Watch,
    note: &'a mut dyn FnMut(u64, Instant),
    delivered: u64,
    is_finishing: bool,
}

impl Work<'_> {
    fn run(&mut self, copies: u64) -> Result<Consumed> {
        for index in 0..self.consumers.links.len() {
            let (link, consumer) = &mut self.consumers.links[index];
            consumer.begin(&mut link.out);
            self.watch.write(index, link)?;
        }
        let mut quiet = Quiet::new();
        loop {
            self.turn(Duration::from_millis(20))?;
            self.shared.delivered.store(self.delivered, Ordering::Relaxed);
            let published = self.shared.published.load(Ordering::Relaxed);
            let wanted = published.saturating_mul(copies);
            ensure!(self.delivered <= wanted, "{} came of {wanted}", self.delivered);
            if self.delivered == wanted {
                self.finish()?;
                if self.unanswered() == 0 {
                    break;
                }
            }
            self.shared.check_other_side()?;
            if quiet.is_too_long(self.delivered.wrapping_sub(self.unanswered())) {
                let (came, open) = (self.delivered, self.unanswered());
                match published {
                    u64::MAX => bail!("{came} messages came, then no more"),
                    _ => bail!("{came} of {wanted} messages came, {open} acknowledgements open"),
                }
            }
        }
        let end = Instant::now();
        self.consumers.check.is_all(self.shared.published.load(Ordering::Relaxed))?;
        let delivered = self.delivered;
        while end.elapsed() < AFTERWARDS {
            self.turn(AFTERWARDS)?;
        }
        ensure!(delivered == self.delivered, "{} came twice", self.delivered - delivered);
        Ok(Consumed { delivered, end })
    }

    fn unanswered(&self) -> u64 {
        self.consumers.links.iter().map(|(_, consumer)| consumer.unanswered()).sum()
    }

    /// Has the last acknowledgements answered.
    fn finish(&mut self) -> Result<()> {
        if !self.is_finishing {
            self.is_finishing = true;
            for (index, (link, consumer)) in self.consumers.links.iter_mut().enumerate() {
                consumer.finish(&mut link.out);
                self.watch.write(index, link)?;
            }
        }
        Ok(())
    }

    /// Reads what has come.
    fn turn(&mut self, longest: Duration) -> Result<()> {
        for index in self.watch.wait(longest)? {
            let (link, consumer) = &mut self.consumers.links[index];
            for _ in 0..READS {
                if !link.read()? {
                    break;
                }
                let now = Instant::now();
                let (input, out) = link.both();
                let (check, note) = (&mut self.consumers.check, &mut *self.note);
                let delivered = &mut self.delivered;
                let mut each = |payload: &[u8]| {
                    let number = number_of(payload)?;
                    *delivered += 1;
                    note(number, now);
                    check.came(index, number)
                };
                let used = consumer.deliveries(input, out, &mut each)?;
                link.take(used);
            }
            consumer.pause(&mut link.out);
            self.watch.write(index, link)?;
        }
        Ok(())
    }
}
