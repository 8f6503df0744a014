//! What is measured: each work once, with one broker.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::figures::{micros, percentile, rate};
use crate::load::{
    Check, Consumers, Link, Plan, Publishers, Shared, Until, consume, publish, publish_at_rate,
};
use crate::peers::{Found, Server, Setup, Use, Watchdog};
use crate::protocol::Consumer;
use crate::stored;

/// What came of a work, by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Bytes of a message, unless a work says otherwise.
pub(crate) const SIZE: usize = 100;

/// Members of the group.
pub(crate) const MEMBERS: usize = 4;

/// The publisher of a group waits when so many messages have not come to it yet.
const AHEAD_OF_GROUP: u64 = 10_000;

/// The publisher of plain subscribers waits when they are so many messages behind, on an average: a
/// broker that stores nothing drops who is too slow.
const AHEAD_OF_SUBSCRIBERS: u64 = 2_000;

/// Idle connections that memory is measured with.
pub(crate) const IDLE: u32 = 1000;

/// A work. Those that are figures of one another are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many connections, messages in flight on each, bytes of a message.
    Publish(usize, u64, usize),
    /// Published, delivered to the members of a group, acknowledged.
    Queue,
    /// Delivered to so many plain subscribers.
    Fan(usize),
    /// 1,000 messages a second.
    Latency,
    /// Memory without messages.
    Idle,
    /// Everything that needs many messages on disk.
    Stored,
}

impl Work {
    /// In the order in which they are done, with the name of each in results.
    pub(crate) const ALL: [(&'static str, Self); 12] = [
        ("pub-1", Self::Publish(1, 1, SIZE)),
        ("pub-1000", Self::Publish(1, 1000, SIZE)),
        ("pub-16x100", Self::Publish(16, 100, SIZE)),
        ("pub-64x1", Self::Publish(64, 1, SIZE)),
        ("pub-1k", Self::Publish(1, 1000, 1024)),
        ("queue", Self::Queue),
        ("fan-1", Self::Fan(1)),
        ("fan-10", Self::Fan(10)),
        ("fan-100", Self::Fan(100)),
        ("latency", Self::Latency),
        ("idle", Self::Idle),
        ("stored", Self::Stored),
    ];

    /// Whether this setup can do it.
    pub(crate) fn suits(self, setup: &Setup) -> bool {
        match self {
            Self::Fan(_) => {
                setup.used_for != Use::Messages && setup.protocol().subscriber(0).is_some()
            }
            Self::Publish(..) | Self::Latency => setup.used_for != Use::Plain,
            _ => setup.used_for == Use::Everything,
        }
    }
}

/// What all works need.
pub(crate) struct Bench {
    pub(crate) found: Found,
    pub(crate) watchdog: Watchdog,
    /// The servers' folder.
    pub(crate) scratch: PathBuf,
    /// How long a run is measured.
    pub(crate) time: Duration,
    /// Messages to store for [`Work::Stored`], at most.
    pub(crate) messages: u64,
}

impl Bench {
    /// Does it once, on a new server.
    pub(crate) fn run(&self, work: Work, setup: &Setup) -> Result<Figures> {
        let dir = self.scratch.join(setup.id);
        let result = match work {
            Work::Publish(connections, window, size) => {
                self.publish(setup, connections, window, size)
            }
            Work::Queue => self.queue(setup),
            Work::Fan(subscribers) => self.fan(setup, subscribers),
            Work::Latency => self.latency(setup),
            Work::Idle => self.idle(setup),
            Work::Stored => stored::stored(self, setup),
        };
        // Whatever came of it: the next one needs the room.
        drop(fs::remove_dir_all(dir));
        result
    }

    pub(crate) fn fresh(&self, setup: &Setup) -> Result<Server> {
        let dir = self.scratch.join(setup.id);
        Server::fresh(setup, &self.found, &dir, &self.watchdog)
    }

    fn until(&self) -> Until {
        Until::Time(self.time / 4, self.time)
    }

    fn publish(&self, setup: &Setup, of: usize, window: u64, size: usize) -> Result<Figures> {
        let server = self.fresh(setup)?;
        let publishers = publishers(&server, of)?;
        let plan = Plan { window, size, until: self.until(), ahead: None };
        let mut published = publish(plan, &Shared::new(), publishers)?;
        holds(&server, published.count)?;
        let mut figures = Figures::from([("rate".to_owned(), published.rate)]);
        published.times.sort_unstable();
        add_times(&mut figures, &published.times);
        Ok(figures)
    }

    /// The rate is of all messages in all the time until the last acknowledgement was settled.
    fn queue(&self, setup: &Setup) -> Result<Figures> {
        let server = self.fresh(setup)?;
        server.protocol.add_group(server.addr)?;
        let publishers = publishers(&server, 1)?;
        let mut members = members(&server)?;
        let until = Until::Time(Duration::ZERO, self.time);
        let ahead = Some((AHEAD_OF_GROUP, 1));
        let plan = Plan { window: 1000, size: SIZE, until, ahead };
        let shared = Shared::new();
        let begin = Instant::now();
        let (published, consumed) = both(
            || publish(plan, &shared, publishers),
            || consume(&mut members, &shared, &mut |_, _| {}),
        )?;
        let end = settled(&server)?.unwrap_or(consumed.end);
        nothing_comes_back(&server, members)?;
        let figure = rate(published.count, end.max(consumed.end) - begin);
        Ok(Figures::from([("rate".to_owned(), figure)]))
    }

    fn fan(&self, setup: &Setup, of: usize) -> Result<Figures> {
        let server = self.fresh(setup)?;
        server.protocol.add_subscribers(server.addr, of)?;
        let publishers = publishers(&server, 1)?;
        let subscribers = consumers(&server, of, |n| server.protocol.subscriber(n))?;
        let mut subscribers = Consumers::new(subscribers, Check::each(of));
        let until = Until::Time(Duration::ZERO, self.time);
        let ahead = Some((AHEAD_OF_SUBSCRIBERS, of as u64));
        let plan = Plan { window: 1000, size: SIZE, until, ahead };
        let shared = Shared::new();
        let begin = Instant::now();
        let (_, consumed) = both(
            || publish(plan, &shared, publishers),
            || consume(&mut subscribers, &shared, &mut |_, _| {}),
        )?;
        let figure = rate(consumed.delivered, consumed.end - begin);
        Ok(Figures::from([("rate".to_owned(), figure)]))
    }

    /// One member of the group, which acknowledges.
    fn latency(&self, setup: &Setup) -> Result<Figures> {
        const STEP: Duration = Duration::from_millis(1);
        /// Messages before it counts.
        const WARM_UP: u64 = 500;
        let server = self.fresh(setup)?;
        server.protocol.add_group(server.addr)?;
        let publishers = publishers(&server, 1)?;
        let member = consumers(&server, 1, |n| server.protocol.member(n))?;
        let mut member = Consumers::new(member, Check::once());
        let count = WARM_UP + 2 * u64::try_from(self.time.as_millis())?;
        let shared = Shared::new();
        let begin = Instant::now() + Duration::from_millis(100);
        let mut times = Vec::with_capacity(usize::try_from(count)?);
        let mut note = |number: u64, now: Instant| {
            if number >= WARM_UP {
                let meant = begin + STEP * u32::try_from(number).unwrap_or(u32::MAX);
                let time = now.saturating_duration_since(meant);
                times.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            }
        };
        both(
            || publish_at_rate((begin, STEP, count), SIZE, &shared, publishers),
            || consume(&mut member, &shared, &mut note),
        )?;
        nothing_comes_back(&server, member)?;
        times.sort_unstable();
        let mut figures = Figures::new();
        add_times(&mut figures, &times);
        Ok(figures)
    }

    fn idle(&self, setup: &Setup) -> Result<Figures> {
        let server = self.fresh(setup)?;
        let rest = Duration::from_secs(1).min(self.time);
        thread::sleep(rest);
        let empty = server.memory()?;
        let publishers = publishers(&server, IDLE as usize)?;
        thread::sleep(rest);
        let more = server.memory()?.saturating_sub(empty);
        drop(publishers);
        let figures = [("empty", bytes(empty)), ("connection", bytes(more) / f64::from(IDLE))];
        Ok(figures.map(|(name, figure)| (name.to_owned(), figure)).into())
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(crate) fn bytes(count: u64) -> f64 {
    count as f64
}

/// Runs both sides. The failure of one stops the other; the one that failed first is told.
fn both<A: Send, B>(
    publish: impl FnOnce() -> Result<A> + Send,
    consume: impl FnOnce() -> Result<B>,
) -> Result<(A, B)> {
    let (published, consumed) = thread::scope(|scope| {
        let publishing = scope.spawn(publish);
        let consumed = consume();
        (publishing.join().expect("publishing does not panic"), consumed)
    });
    match (published, consumed) {
        (Ok(published), Ok(consumed)) => Ok((published, consumed)),
        (Err(error), Ok(_)) => Err(error.context("publishing")),
        (Ok(_), Err(error)) => Err(error.context("consuming")),
        (Err(first), Err(second)) => Err(anyhow::anyhow!("{first:#}; {second:#}")),
    }
}

fn add_times(figures: &mut Figures, sorted: &[u64]) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        if let Some(figure) = percentile(sorted, share) {
            figures.insert(name.to_owned(), figure);
        }
    }
}

/// So many connections that publish.
pub(crate) fn publishers(server: &Server, of: usize) -> Result<Publishers> {
    let open = |index| {
        let mut publisher = server.protocol.publisher(index);
        let link = Link::open(server.addr, of, |dialog| publisher.greet(dialog))?;
        Ok((link, publisher))
    };
    Ok(Publishers::new((0..of).map(open).collect::<Result<_>>()?))
}

/// So many connections that consume.
pub(crate) fn consumers(
    server: &Server,
    of: usize,
    make: impl Fn(usize) -> Option<Box<dyn Consumer>>,
) -> Result<Vec<(Link, Box<dyn Consumer>)>> {
    let open = |index| {
        let mut consumer = make(index).context("it has no such consumers")?;
        let link = Link::open(server.addr, of, |dialog| consumer.greet(dialog))?;
        Ok((link, consumer))
    };
    (0..of).map(open).collect()
}

/// The members of the group.
pub(crate) fn members(server: &Server) -> Result<Consumers> {
    let links = consumers(server, MEMBERS, |n| server.protocol.member(n))?;
    Ok(Consumers::new(links, Check::once()))
}

/// Waits until the broker has seen every acknowledgement. When that was, if it had not before.
pub(crate) fn settled(server: &Server) -> Result<Option<Instant>> {
    let begin = Instant::now();
    let mut waited = None;
    loop {
        let open = server.protocol.unsettled(server.addr)?;
        if open == 0 {
            return Ok(waited);
        }
        ensure!(begin.elapsed() < Duration::from_secs(30), "{open} acknowledgements were lost");
        thread::sleep(Duration::from_millis(1));
        waited = Some(Instant::now());
    }
}

/// When its members have gone, a broker that has not seen an acknowledgement has the message again.
pub(crate) fn nothing_comes_back(server: &Server, members: Consumers) -> Result<()> {
    drop(members);
    thread::sleep(Duration::from_millis(100));
    let open = server.protocol.unsettled(server.addr)?;
    ensure!(open == 0, "{open} acknowledgements were lost");
    Ok(())
}

/// Waits until the broker holds exactly so many messages, if it stores them.
pub(crate) fn holds(server: &Server, count: u64) -> Result<()> {
    let begin = Instant::now();
    loop {
        match server.protocol.held(server.addr)? {
            None => return Ok(()),
            Some(held) if held == count => return Ok(()),
            Some(held) => ensure!(
                begin.elapsed() < Duration::from_secs(10),
                "{count} messages were answered, {held} are held"
            ),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    micros(time) / 1e3
}
