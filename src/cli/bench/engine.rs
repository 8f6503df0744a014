//! One run: connect, load, measure in the middle of it, let everything arrive, look whether it did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use super::consume::{Reader, wrong};
use super::load::{Consumer, Load, Round, Span, Tally, Topic};
use super::messages::Ring;
use super::pace::{Lane, Paced, Schedule, pace};
use super::plan::Plan;
use super::progress::Progress;
use super::publish;
use super::report::{Report, Row, Used};
use super::target::Target;
use super::wire::Wire;
use crate::cli::exit::{Exit, Failure};
use crate::time::{Moment, Now};

/// How long nothing at all may come while something is to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How often to look how far it is.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Time for all tasks to be there before the load begins.
const LEAD: Duration = Duration::from_millis(10);

/// Does what the plan says.
pub(super) async fn run(plan: &Plan, target: &Target) -> Result<Report, Failure> {
    let progress = Progress::new(plan.name);
    let topics = topics(plan);
    let rings = make_rings(plan, &topics, &progress).await;
    let (readers, wires) = connect(plan, target, &topics, &progress).await?;
    let writers = rings.into_iter().zip(wires).collect();
    // The time begins when there is nothing left to do before the load.
    let begin = Moment::read() + LEAD;
    let start = begin + plan.warmup;
    let span = Span { begin, start, end: start + plan.duration };
    let load = Arc::new(Load {
        span,
        topics,
        published: Tally::new(span),
        delivered: Tally::new(span),
        again_after: target.again_after,
        is_over: AtomicBool::new(false),
    });
    let run = Run {
        plan,
        load: &load,
        publishers: JoinSet::new(),
        readers: JoinSet::new(),
        stop: watch::Sender::new(false),
        pacer: None,
        progress,
    };
    run.go(target, readers, writers).await
}

/// Connections that read, each with the index of its topic and the consumer that it is, or is a
/// member of.
type Readers = Vec<(usize, Arc<Consumer>, Wire)>;

/// What each connection publishes to, and the lines that it publishes.
type Rings = Vec<(Round, Ring)>;

/// Connections that publish, each with what it publishes.
type Writers = Vec<((Round, Ring), Wire)>;

/// Makes all messages. Where they are many that takes seconds: a signal is heard between two rings.
async fn make_rings(plan: &Plan, topics: &[Topic], progress: &Progress) -> Rings {
    let mut rings = Vec::new();
    for n in 0..plan.connections {
        progress.show(n as u64, plan.connections as u64, || {
            format!("messages made for {n} of {}", plan.connections)
        });
        let round = Round::new(n, plan.connections, plan.topics);
        let ring = round.ring(topics, plan.size, plan.window);
        rings.push((round, ring));
        tokio::task::yield_now().await;
    }
    rings
}

/// Opens all connections: those that read, and those that publish.
async fn connect(
    plan: &Plan,
    target: &Target,
    topics: &[Topic],
    progress: &Progress,
) -> Result<(Readers, Vec<Wire>), Failure> {
    let of_group = |consumer: &Consumer| if consumer.group.is_some() { plan.members } else { 1 };
    let consumers = || topics.iter().flat_map(|topic| &topic.consumers);
    let all = consumers().map(|consumer| of_group(consumer)).sum::<usize>() + plan.connections;
    let show = |connected: usize| {
        progress.show(connected as u64, all as u64, || format!("{connected} of {all} connected"));
    };
    let mut readers = Vec::new();
    for (index, topic) in topics.iter().enumerate() {
        for consumer in &topic.consumers {
            for _ in 0..of_group(consumer) {
                show(readers.len());
                let wire = subscribe(target, &topic.name, consumer).await?;
                readers.push((index, Arc::clone(consumer), wire));
            }
        }
    }
    let mut writers = Vec::new();
    for _ in 0..plan.connections {
        show(readers.len() + writers.len());
        writers.push(Wire::open(&target.addr).await?);
    }
    Ok((readers, writers))
}

/// A connection that takes part as this consumer, or a member of it.
pub(super) async fn subscribe(
    target: &Target,
    topic: &str,
    consumer: &Consumer,
) -> Result<Wire, Failure> {
    let mut wire = Wire::open(&target.addr).await?;
    let group = consumer.group.as_deref().unwrap_or_default();
    wire.ask(&format!("SUB {topic} {group}"), "OK subscribed ").await?;
    Ok(wire)
}

/// Names that nobody has used before, all of one length.
pub(super) fn fresh_name(of: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("bench-{of}-{:x}-{count:010}", Now::read().wall.as_micros())
}

fn topics(plan: &Plan) -> Vec<Topic> {
    let topic = |_| {
        let plain = (0..plan.subscribers).map(|_| Consumer::default());
        let groups = (1..=plan.groups)
            .map(|n| Consumer { group: Some(format!("group-{n}")), ..Consumer::default() });
        let consumers = plain.chain(groups).map(Arc::new).collect();
        let name = fresh_name(plan.name);
        Topic { name, consumers, sent: AtomicU64::new(0), moved: Notify::new() }
    };
    (0..plan.topics).map(topic).collect()
}

/// A run that has connected.
#[derive(Debug)]
struct Run<'a> {
    plan: &'a Plan,
    load: &'a Arc<Load>,
    publishers: JoinSet<Result<(), Failure>>,
    readers: JoinSet<Result<(), Failure>>,
    stop: watch::Sender<bool>,
    pacer: Option<oneshot::Receiver<Result<Paced, Failure>>>,
    progress: Progress,
}

/// However it ends, its thread does too.
impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.load.is_over.store(true, Ordering::Relaxed);
    }
}

impl Run<'_> {
    async fn go(
        mut self,
        target: &Target,
        readers: Readers,
        writers: Writers,
    ) -> Result<Report, Failure> {
        for (topic, consumer, wire) in readers {
            let reader = Reader::new(Arc::clone(self.load), topic, consumer, wire);
            self.readers.spawn(reader.run(self.stop.subscribe()));
        }
        match self.plan.rate {
            None => self.publish_in_closed_loops(writers),
            Some(rate) => self.publish_at(rate, writers)?,
        }
        let span = self.load.span;
        self.until(span.start).await?;
        let before = target.read();
        self.until(span.end).await?;
        let after = target.read();
        let seconds = span.end.since(span.start).as_secs_f64();
        self.all_answered().await?;
        self.all_arrived().await?;
        let paced = match self.pacer.take() {
            // It has told how much it sent before it ended.
            Some(pacer) => Some(pacer.await.unwrap_or_else(|_gone| Err(ended_early()))?),
            None => None,
        };
        self.progress.end();
        Ok(Report {
            plan: self.plan.clone(),
            rows: self.rows(seconds),
            used: Used::between(before, after, seconds),
            paced,
        })
    }

    fn publish_in_closed_loops(&mut self, writers: Writers) {
        let Plan { window, backlog, .. } = *self.plan;
        let limits = publish::Limits { window: window.into(), backlog, messages: u64::MAX };
        for ((round, ring), wire) in writers {
            let load = Arc::clone(self.load);
            self.publishers.spawn(publish::closed_loop(load, round, wire, ring, limits));
        }
    }

    fn publish_at(&mut self, rate: u64, writers: Writers) -> Result<(), Failure> {
        let lanes = writers.len() as u64;
        let schedule = Schedule { begin: self.load.span.begin, rate, lanes };
        let (sent, sent_in_all) = watch::channel(None);
        let mut lanes = Vec::new();
        for (n, ((round, ring), wire)) in writers.into_iter().enumerate() {
            lanes.push(Lane { round, writer: wire.writer(), ring });
            let load = Arc::clone(self.load);
            let answers = publish::answers(load, wire, n as u64, schedule, sent_in_all.clone());
            self.publishers.spawn(answers);
        }
        let load = Arc::clone(self.load);
        let (result, pacer) = oneshot::channel();
        let work = move || {
            let paced = pace(&load, schedule, lanes);
            if let Ok(paced) = &paced {
                sent.send_replace(Some(paced.sent));
            }
            // Nobody waits for it any more if the run has failed.
            drop(result.send(paced));
            // Who waits for answers ends by itself; `sent` must not end before that.
            sent
        };
        let spawned = thread::Builder::new().name("pace".to_owned()).spawn(work);
        spawned.map_err(|error| {
            Failure::new(Exit::Internal, format!("failed to start a thread: {error}"))
        })?;
        self.pacer = Some(pacer);
        Ok(())
    }

    fn show_progress(&self) {
        let span = self.load.span;
        let elapsed = Moment::read().since(span.begin);
        self.progress.show(millis(elapsed), millis(span.end.since(span.begin)), || {
            let (published, delivered) = (self.load.published.total(), self.load.delivered.total());
            match delivered {
                0 => format!("{published} published"),
                _ => format!("{published} published, {delivered} delivered"),
            }
        });
    }

    /// Waits until then, unless something fails before.
    async fn until(&mut self, moment: Moment) -> Result<(), Failure> {
        loop {
            let left = moment.since(Moment::read());
            if left.is_zero() {
                return Ok(());
            }
            self.show_progress();
            let tick = left.min(Progress::TICK);
            tokio::select! {
                () = tokio::time::sleep(tick) => {}
                Some(ended) = self.readers.join_next() => flat(ended)?,
                Some(ended) = self.publishers.join_next() => flat(ended)?,
            }
        }
    }

    /// Waits for the publishers, which end when everything was answered.
    async fn all_answered(&mut self) -> Result<(), Failure> {
        let mut quiet = Quiet::new();
        while !self.publishers.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {
                    let answered = self.load.published.total();
                    let topics = self.load.topics.iter();
                    let sent: u64 = topics.map(|topic| topic.sent.load(Ordering::Relaxed)).sum();
                    self.progress.show(answered, sent, || {
                        format!("{} to be answered", sent.saturating_sub(answered))
                    });
                    if quiet.for_too_long(answered) {
                        return Err(wrong("some were not answered in 30 s".to_owned()));
                    }
                }
                Some(ended) = self.readers.join_next() => flat(ended)?,
                Some(ended) = self.publishers.join_next() => flat(ended)?,
            }
        }
        Ok(())
    }

    /// Waits until every consumer has everything, and everyone has ended without a complaint.
    async fn all_arrived(&mut self) -> Result<(), Failure> {
        let mut quiet = Quiet::new();
        loop {
            let (mut missing, mut progress) = (0, 0);
            for topic in &self.load.topics {
                let sent = topic.sent.load(Ordering::Relaxed);
                for consumer in &topic.consumers {
                    missing += sent.saturating_sub(consumer.progress());
                    progress += consumer.progress();
                }
            }
            if missing == 0 {
                break;
            }
            self.progress.show(progress, progress + missing, || format!("{missing} to arrive"));
            if quiet.for_too_long(progress) {
                return Err(wrong(format!("{missing} did not come in 30 s")));
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                Some(ended) = self.readers.join_next() => flat(ended)?,
            }
        }
        self.stop.send_replace(true);
        while let Some(ended) = self.readers.join_next().await {
            flat(ended)?;
        }
        for topic in &self.load.topics {
            let sent = topic.sent.load(Ordering::Relaxed);
            for consumer in &topic.consumers {
                let got = consumer.got.load(Ordering::Relaxed);
                if got != sent {
                    return Err(wrong(format!("{got} came of {sent} that were published")));
                }
            }
        }
        Ok(())
    }

    fn rows(&self, seconds: f64) -> Vec<Row> {
        let row = |what, tally: &Tally| Row {
            what,
            messages: tally.measured(),
            bytes: tally.measured() * self.plan.size as u64,
            seconds,
            times: tally.times(),
        };
        let mut rows = vec![row("published", &self.load.published)];
        if self.plan.has_consumers() {
            rows.push(row("delivered", &self.load.delivered));
        }
        rows
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How a task ended.
pub(super) fn flat(
    ended: Result<Result<(), Failure>, tokio::task::JoinError>,
) -> Result<(), Failure> {
    ended.unwrap_or_else(|_panicked| Err(ended_early()))
}

/// A thread or a task of ours is gone.
pub(super) fn ended_early() -> Failure {
    Failure::new(Exit::Internal, "failed to go on: a part of the load has panicked")
}

/// Notices when nothing moves any more.
#[derive(Debug)]
pub(super) struct Quiet {
    seen: u64,
    since: Moment,
}

impl Quiet {
    pub(super) fn new() -> Self {
        Self { seen: 0, since: Moment::read() }
    }

    /// Whether the count has stood still for so long that it will not move again.
    pub(super) fn for_too_long(&mut self, count: u64) -> bool {
        let now = Moment::read();
        if count != self.seen {
            (self.seen, self.since) = (count, now);
        }
        now.since(self.since) >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressBar;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::super::args::TargetFlags;
    use super::super::plan;
    use super::*;

    /// Waits until the bar says so.
    async fn said(bar: &ProgressBar, words: &str) {
        let said = async {
            while bar.message() != words {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let said = tokio::time::timeout(Duration::from_secs(20), said).await;
        said.unwrap_or_else(|_| panic!("it says {:?} and not {words:?}", bar.message()));
    }

    #[tokio::test]
    async fn while_it_connects_it_shows_how_many_are_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Some(listener.local_addr().unwrap().to_string());
        let flags = TargetFlags { addr, ..TargetFlags::default() };
        let target = Target::new(&flags, None, 1).await.unwrap();
        let plan = Plan { connections: 2, ..plan::PUB };
        let bar = ProgressBar::hidden();
        let progress = Progress::on(&bar);
        let greet = async {
            let mut sockets = Vec::new();
            for n in 0..2 {
                let (mut socket, _) = listener.accept().await.unwrap();
                said(&bar, &format!("{n} of 2 connected")).await;
                socket.write_all(b"OK connected\n").await.unwrap();
                sockets.push(socket);
            }
        };
        let (connected, ()) = tokio::join!(connect(&plan, &target, &[], &progress), greet);
        assert_eq!(connected.unwrap().1.len(), 2);
    }

    /// Rings of 4 MiB take seconds to make, on the task that listens for signals as well.
    #[tokio::test]
    async fn while_messages_are_made_a_signal_is_heard() {
        let plan = Plan { connections: 3, window: 1, ..plan::PUB };
        let bar = ProgressBar::hidden();
        let (topics, progress) = (topics(&plan), Progress::on(&bar));
        let heard = async {
            said(&bar, "messages made for 0 of 3").await;
            "a signal"
        };
        let what = tokio::select! {
            biased;
            rings = make_rings(&plan, &topics, &progress) => format!("{} rings", rings.len()),
            heard = heard => heard.to_owned(),
        };
        assert_eq!(what, "a signal");
        assert_eq!(make_rings(&plan, &topics, &progress).await.len(), 3);
    }

    /// A run whose topic was sent so many, of which some were answered and none has arrived.
    fn load(sent: u64, answered: u64) -> Arc<Load> {
        let now = Moment::read();
        let span = Span { begin: now, start: now, end: now };
        let consumers = vec![Arc::new(Consumer::default())];
        let (sent, moved) = (AtomicU64::new(sent), Notify::new());
        let topic = Topic { name: "t".to_owned(), consumers, sent, moved };
        let published = Tally::new(span);
        published.done(answered, now);
        let (delivered, is_over) = (Tally::new(span), AtomicBool::new(false));
        let (topics, again_after) = (vec![topic], None);
        Arc::new(Load { span, topics, published, delivered, again_after, is_over })
    }

    #[tokio::test]
    async fn while_it_drains_it_shows_what_is_left() {
        let (load, bar) = (load(5, 2), ProgressBar::hidden());
        let mut run = Run {
            plan: &plan::SUB,
            load: &load,
            publishers: JoinSet::new(),
            readers: JoinSet::new(),
            stop: watch::Sender::new(false),
            pacer: None,
            progress: Progress::on(&bar),
        };
        let (answer, answered) = oneshot::channel();
        run.publishers.spawn(async { answered.await.map_err(|_gone| ended_early()) });
        let answer = async {
            said(&bar, "3 to be answered").await;
            answer.send(()).unwrap();
        };
        tokio::join!(run.all_answered(), answer).0.unwrap();
        let arrive = async {
            said(&bar, "5 to arrive").await;
            load.topics[0].consumers[0].got.store(4, Ordering::Relaxed);
            said(&bar, "1 to arrive").await;
            assert_eq!((bar.position(), bar.length()), (4, Some(5)));
            load.topics[0].consumers[0].got.store(5, Ordering::Relaxed);
        };
        tokio::join!(run.all_arrived(), arrive).0.unwrap();
    }
}
