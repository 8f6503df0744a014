//! `wiber bench catchup`: everything is there before anyone reads it. How fast does who asks for
//! the history get it, and how fast does a group work it off?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use memchr::memchr_iter;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::consume::{Reader, parse, wrong};
use super::engine::{PATIENCE, Quiet, TICK, flat, fresh_name, subscribe};
use super::load::{Consumer, Load, Round, Span, Tally, Topic};
use super::plan::Plan;
use super::progress::Progress;
use super::publish;
use super::report::{Report, Row, Used};
use super::target::Target;
use super::times::Times;
use super::wire::{Wire, unexpected};
use crate::cli::exit::Failure;
use crate::time::Moment;

/// No run takes so long.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// Publishes, then reads everything by `HISTORY`, then lets a group work it off.
pub(super) async fn run(plan: &Plan, messages: u64, target: &Target) -> Result<Report, Failure> {
    let progress = Progress::new(plan.name);
    let run = Run { plan, messages, target, progress, patience: PATIENCE };
    let consumer = Consumer { group: Some("late".to_owned()), ..Consumer::default() };
    let consumer = Arc::new(consumer);
    let topic = fresh_name(plan.name);
    // The group is there from the beginning; its members come when all is published.
    drop(subscribe(target, &topic, &consumer).await?);
    let (before, begin) = (target.read(), Moment::read());
    let published = run.publish(&topic).await?;
    let history = run.history(&topic).await?;
    let group = run.work_off(&topic, &consumer).await?;
    let (after, seconds) = (target.read(), Moment::read().since(begin).as_secs_f64());
    run.progress.end();
    Ok(Report {
        plan: plan.clone(),
        rows: vec![published, history, group],
        used: Used::between(before, after, seconds),
        paced: None,
    })
}

#[derive(Debug)]
struct Run<'a> {
    plan: &'a Plan,
    messages: u64,
    target: &'a Target,
    progress: Progress,
    /// How long nothing of the history may come.
    patience: Duration,
}

impl Run<'_> {
    async fn publish(&self, topic: &str) -> Result<Row, Failure> {
        let wire = Wire::open(&self.target.addr).await?;
        let round = Round::new(0, 1, 1);
        let ring = round.ring(&[named(topic, Vec::new())], self.plan.size, self.plan.window);
        let load = load(topic, Vec::new(), None);
        let limits = publish::Limits {
            window: self.plan.window.into(),
            backlog: self.plan.backlog,
            messages: self.messages,
        };
        let mut publisher = JoinSet::new();
        publisher.spawn(publish::closed_loop(Arc::clone(&load), round, wire, ring, limits));
        let what = || load.published.total();
        self.wait_for(&mut publisher, "published", 0, &what).await?;
        Ok(self.row("published", load.span.begin, load.published.times()))
    }

    async fn history(&self, topic: &str) -> Result<Row, Failure> {
        let mut wire = Wire::open(&self.target.addr).await?;
        let begin = Moment::read();
        let command = format!("HISTORY {topic} {}\n", self.messages);
        let head = format!("HISTORY {topic} ").into_bytes();
        let mut output = command.as_bytes();
        let mut last = 0;
        let mut is_over = false;
        while !is_over {
            let turned = tokio::time::timeout(self.patience, wire.turn(&mut output)).await;
            turned.unwrap_or_else(|_elapsed| Err(self.stopped(last)))?;
            let unread = wire.unread();
            let mut start = 0;
            for end in memchr_iter(b'\n', unread) {
                let line = &unread[start..end];
                start = end + 1;
                match line.strip_prefix(head.as_slice()).and_then(parse) {
                    Some(message) if message.offset == last + 1 => last += 1,
                    Some(message) => {
                        return Err(wrong(format!("message {} came after {last}", message.offset)));
                    }
                    None if line == b"OK history end" => is_over = true,
                    None => return Err(unexpected(line)),
                }
            }
            wire.used(start);
            self.show(self.messages + last, || format!("{last} of the history"));
        }
        if last != self.messages {
            return Err(wrong(format!("{last} came of {} in the history", self.messages)));
        }
        Ok(self.row("history", begin, Times::new()))
    }

    fn stopped(&self, last: u64) -> Failure {
        let patience = self.patience.as_secs();
        wrong(format!("only {last} of the history came, and no more in {patience} s"))
    }

    async fn work_off(&self, topic: &str, consumer: &Arc<Consumer>) -> Result<Row, Failure> {
        let load = load(topic, vec![Arc::clone(consumer)], self.target.again_after);
        let stop = watch::Sender::new(false);
        let mut members = JoinSet::new();
        for _ in 0..self.plan.members {
            let wire = subscribe(self.target, topic, consumer).await?;
            let member = Reader::new(Arc::clone(&load), 0, Arc::clone(consumer), wire);
            members.spawn(member.run(stop.subscribe()));
        }
        let what = || {
            let done = consumer.progress();
            if done == self.messages {
                stop.send_replace(true);
            }
            done
        };
        self.wait_for(&mut members, "worked off", 2 * self.messages, &what).await?;
        // Messages were stamped long ago: how old they are says nothing.
        Ok(self.row("group", load.span.begin, Times::new()))
    }

    /// Waits until all have ended, and shows how far they are.
    async fn wait_for(
        &self,
        tasks: &mut JoinSet<Result<(), Failure>>,
        what: &str,
        from: u64,
        done: &(dyn Fn() -> u64 + Sync),
    ) -> Result<(), Failure> {
        let mut quiet = Quiet::new();
        loop {
            let count = done();
            self.show(from + count, || format!("{count} {what}"));
            if quiet.for_too_long(count) {
                return Err(wrong(format!("only {count} were {what}, and no more in 30 s")));
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                ended = tasks.join_next() => match ended {
                    Some(ended) => flat(ended)?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Every message is published, read and worked off.
    fn show(&self, position: u64, words: impl FnOnce() -> String) {
        self.progress.show(position, 3 * self.messages, words);
    }

    fn row(&self, what: &'static str, begin: Moment, times: Times) -> Row {
        Row {
            what,
            messages: self.messages,
            bytes: self.messages * self.plan.size as u64,
            seconds: Moment::read().since(begin).as_secs_f64(),
            times,
        }
    }
}

/// A load that begins now and is measured from its beginning, until it is done.
fn load(topic: &str, consumers: Vec<Arc<Consumer>>, again_after: Option<Duration>) -> Arc<Load> {
    let begin = Moment::read();
    let span = Span { begin, start: begin, end: begin + FOR_EVER };
    Arc::new(Load {
        span,
        topics: vec![named(topic, consumers)],
        published: Tally::new(span),
        delivered: Tally::new(span),
        again_after,
        is_over: AtomicBool::new(false),
    })
}

fn named(topic: &str, consumers: Vec<Arc<Consumer>>) -> Topic {
    let (sent, moved) = (AtomicU64::new(0), Notify::new());
    Topic { name: topic.to_owned(), consumers, sent, moved }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::super::args::TargetFlags;
    use super::super::plan;
    use super::*;

    /// It waited for ever.
    #[tokio::test]
    async fn a_history_that_stops_coming_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Some(listener.local_addr().unwrap().to_string());
        let flags = TargetFlags { addr, ..TargetFlags::default() };
        let target = Target::new(&flags, None, 1).await.unwrap();
        let (progress, patience) = (Progress::new("catchup"), Duration::from_millis(10));
        let run = Run { plan: &plan::PUB, messages: 2, target: &target, progress, patience };
        let broker = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"OK connected\n").await.unwrap();
            let mut lines = BufReader::new(socket).lines();
            // It goes when the history was given up.
            while lines.next_line().await.is_ok_and(|line| line.is_some()) {}
        };
        let history = async { run.history("chat").await };
        let history = async { tokio::join!(history, broker).0 };
        let failure = tokio::time::timeout(Duration::from_secs(20), history).await;
        let failure = format!("{:?}", failure.expect("it gives up").unwrap_err());
        assert!(failure.contains("only 0 of the history came"), "{failure}");
    }
}
