//! What happens on a subscription's connections: the task behind a `Subscription`.
//!
//! ```text
//!   socket ─▶ lines ─▶ pushed messages ─▶ (Sequence) ─▶ batch ─▶ bounded queue ─▶ consumer
//!                └───▶ answers, in the order of the commands ─▶ who waits for them
//!   socket ◀─ out ◀── SUB, HISTORY · ACK of the consumer · HEARTBEAT, PING by the clock
//! ```
//!
//! While a batch waits for room in the queue, the socket is not read; commands are still written,
//! so that a slow consumer stays a member of its group. A group's queue has room for far more than
//! the broker lets it hold, so that answers to acknowledgments do not wait behind messages.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::connection::{Connection, Lines, unexpected};
use super::options::{Backoff, Options};
use super::sequence::{Out, Sequence};
use super::{ClientError, Message};
use crate::ids::{GroupName, Offset, TopicName};
use crate::proto::{Kind, Request, ServerLine};

/// Most asks of a consumer that wait; more wait for room.
pub(super) const ASKS_MAX: usize = 256;

/// Most bytes of commands that wait to be written before no more asks are taken.
const OUT_BYTES_MAX: usize = 64 << 10;

/// After so many heartbeats in a row without a byte from it the broker is taken for dead.
const PROBES_UNANSWERED_MAX: usize = 3;

/// Most reads' worth of messages that wait for the consumer.
pub(super) fn batches_max(group: Option<&GroupName>) -> usize {
    if group.is_some() { 1024 } else { 4 }
}

/// What a consumer asks for.
#[derive(Debug)]
pub(super) enum Ask {
    Ack { message: Message, answer: Option<oneshot::Sender<Result<(), ClientError>>> },
    Close(oneshot::Sender<Result<(), ClientError>>),
}

#[derive(Debug)]
struct Ack {
    message: Message,
    answer: Option<oneshot::Sender<Result<(), ClientError>>>,
    /// It was sent on an earlier connection, without an answer.
    sent_before: bool,
}

/// A command that was sent and has no answer yet.
#[derive(Debug)]
enum Pending {
    /// `HISTORY <topic> 1`, before the first `SUB`.
    Start,
    Sub,
    History,
    Ack(Ack),
    Probe,
    Quit(Option<oneshot::Sender<Result<(), ClientError>>>),
}

/// How the connection of a subscription is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Link {
    /// It is subscribed.
    Up,
    /// It was lost, and another one is tried for.
    Lost {
        /// Why.
        why: String,
    },
}

/// Why a connection is no longer served.
enum End {
    /// The consumer is done with the subscription.
    Done,
    /// It may go on with another connection.
    Lost(ClientError),
    /// It cannot go on.
    Over(ClientError),
}

pub(super) struct Feed {
    options: Arc<Options>,
    topic: TopicName,
    group: Option<GroupName>,
    backoff: Backoff,
    /// The order of messages, where there is one: not in a group.
    sequence: Option<Sequence>,
    pending: VecDeque<Pending>,
    /// Heartbeats since a byte came. Not those without an answer: it stands behind all that was on its way.
    unheard: usize,
    out: Vec<u8>,
    batch: Out,
    to_consumer: mpsc::Sender<Out>,
    asks: mpsc::Receiver<Ask>,
    link: watch::Sender<Link>,
    /// Waits for the answer to the first `SUB`.
    ready: Option<oneshot::Sender<Result<(), ClientError>>>,
}

impl Feed {
    pub(super) fn new(
        options: Arc<Options>,
        topic: TopicName,
        group: Option<GroupName>,
        (to_consumer, asks): (mpsc::Sender<Out>, mpsc::Receiver<Ask>),
        link: watch::Sender<Link>,
        ready: oneshot::Sender<Result<(), ClientError>>,
    ) -> Feed {
        Feed {
            backoff: Backoff::new(options.reconnect),
            sequence: group.is_none().then(|| Sequence::new(topic.as_str())),
            options,
            topic,
            group,
            pending: VecDeque::new(),
            unheard: 0,
            out: Vec::new(),
            batch: Vec::new(),
            to_consumer,
            asks,
            link,
            ready: Some(ready),
        }
    }

    pub(super) async fn run(mut self, mut connection: Connection) {
        loop {
            self.hello();
            let lost = match self.serve(&mut connection).await {
                End::Done => return self.leave(connection).await,
                End::Lost(why) if self.ready.is_none() => why,
                End::Lost(why) | End::Over(why) => return self.over(why).await,
            };
            drop(connection);
            let why = match &lost {
                ClientError::Disconnected { why } => why.clone(),
                other => other.to_string(),
            };
            self.link.send_replace(Link::Lost { why });
            let reopened = tokio::select! {
                reopened = Connection::reopen(&self.options, &mut self.backoff, lost) => reopened,
                () = self.to_consumer.closed() => return,
            };
            match reopened {
                Ok(next) => connection = next,
                Err(why) => return self.over(why).await,
            }
        }
    }

    /// What a new connection begins with. Acknowledgments that were not answered on the last one
    /// are sent again: twice does no harm.
    fn hello(&mut self) {
        self.out.clear();
        self.unheard = 0;
        let unanswered = std::mem::take(&mut self.pending);
        let (topic, group) = (self.topic.clone(), self.group.clone());
        let sub = Request::Sub { topic, group };
        match (&mut self.sequence, self.ready.is_some()) {
            (Some(_), true) => {
                self.history(1, Pending::Start);
                self.send(&sub, Pending::Sub);
            }
            (Some(sequence), false) => {
                let count = sequence.resume();
                self.send(&sub, Pending::Sub);
                self.history(count, Pending::History);
            }
            (None, _) => self.send(&sub, Pending::Sub),
        }
        for pending in unanswered {
            match pending {
                Pending::Ack(ack) => self.ack(Ack { sent_before: true, ..ack }),
                Pending::Quit(_)
                | Pending::Start
                | Pending::Sub
                | Pending::History
                | Pending::Probe => {}
            }
        }
    }

    fn send(&mut self, request: &Request<'_>, pending: Pending) {
        request.write_to(&mut self.out);
        self.pending.push_back(pending);
    }

    fn history(&mut self, count: u64, pending: Pending) {
        let request = Request::History { topic: self.topic.clone(), count };
        self.send(&request, pending);
    }

    fn ack(&mut self, ack: Ack) {
        let id = ack.message.clone();
        self.send(&Request::Ack { id: id.id().as_bytes() }, Pending::Ack(ack));
    }

    fn asked(&mut self, ask: Ask) -> Result<(), End> {
        match ask {
            Ask::Ack { message, answer } => {
                self.ack(Ack { message, answer, sent_before: false });
                Ok(())
            }
            Ask::Close(answer) => {
                self.send(&Request::Quit, Pending::Quit(Some(answer)));
                Err(End::Done)
            }
        }
    }

    async fn serve(&mut self, connection: &mut Connection) -> End {
        let (mut reader, mut writer) = connection.stream.split();
        let to_consumer = self.to_consumer.clone();
        let mut heartbeat = interval(self.options.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        loop {
            let (read_on, write_on) = (self.batch.is_empty(), !self.out.is_empty());
            tokio::select! {
                room = to_consumer.reserve(), if !read_on => match room {
                    Ok(room) => room.send(std::mem::take(&mut self.batch)),
                    Err(_gone) => return End::Done,
                },
                read = connection.lines.read_from(&mut reader), if read_on => {
                    if let Err(why) = read {
                        return End::Lost(why);
                    }
                    if let Err(end) = self.lines(&mut connection.lines) {
                        return end;
                    }
                }
                wrote = writer.write(&self.out), if write_on => match wrote {
                    Ok(bytes) => drop(self.out.drain(..bytes)),
                    Err(why) => return End::Lost(ClientError::disconnected(why)),
                },
                ask = self.asks.recv(), if self.out.len() < OUT_BYTES_MAX => match ask {
                    Some(ask) => if let Err(end) = self.asked(ask) {
                        return end;
                    },
                    None => return End::Done,
                },
                _ = heartbeat.tick() => if let Err(end) = self.heartbeat(read_on) {
                    return end;
                },
                () = to_consumer.closed() => return End::Done,
            }
        }
    }

    /// Says that this member lives, and finds out whether the broker does.
    fn heartbeat(&mut self, read_on: bool) -> Result<(), End> {
        if self.unheard >= PROBES_UNANSWERED_MAX && read_on {
            let why = format!("no answer to {} heartbeats", self.unheard);
            return Err(End::Lost(ClientError::disconnected(why)));
        }
        // What is not read can't be heard.
        self.unheard = if read_on { self.unheard + 1 } else { 0 };
        if self.group.is_some() {
            self.send(&Request::Heartbeat, Pending::Probe);
        } else if read_on {
            // A plain subscriber may stay silent, but then would never notice a dead broker.
            self.send(&Request::Ping, Pending::Probe);
        }
        Ok(())
    }

    /// Bytes have come: all whole lines of them.
    fn lines(&mut self, lines: &mut Lines) -> Result<(), End> {
        self.unheard = 0;
        while let Some(line) = lines.next().map_err(End::Over)? {
            self.line(&line)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &Bytes) -> Result<(), End> {
        match ServerLine::parse(line).kind {
            Kind::Msg(record) => {
                let message = Message::new(line, &record);
                match &mut self.sequence {
                    None => self.batch.push(Ok(message)),
                    Some(sequence) => {
                        if let Some(count) = sequence.pushed(message, &mut self.batch) {
                            self.history(count, Pending::History);
                        }
                    }
                }
            }
            Kind::History(record) => {
                if let Some(sequence) = &mut self.sequence {
                    match self.pending.front() {
                        Some(Pending::Start) => sequence.starts_behind(record.offset),
                        Some(Pending::History) => {
                            sequence.history(Message::new(line, &record), &mut self.batch);
                        }
                        _ => return Err(End::Over(unexpected("no HISTORY line", line))),
                    }
                }
            }
            Kind::Ok(text) => return self.answer(line, Ok(text)),
            Kind::Err { code, text } => return self.answer(line, Err((code, text))),
            Kind::Other => {}
        }
        Ok(())
    }

    /// The answer to the command that waits longest.
    fn answer(&mut self, line: &Bytes, answer: Result<&str, (&str, &str)>) -> Result<(), End> {
        let result = answer.map(drop).map_err(|(code, text)| ClientError::from_answer(code, text));
        match self.pending.pop_front() {
            None => return Err(End::Over(unexpected("no answer", line))),
            Some(Pending::Sub) => {
                result.map_err(End::of_refusal)?;
                // A plain subscription is where it was only behind what it missed.
                if self.group.is_some() {
                    self.backoff.reset();
                }
                self.link.send_if_modified(|link| std::mem::replace(link, Link::Up) != Link::Up);
                if let Some(ready) = self.ready.take() {
                    // Whoever asked may have stopped waiting; then the queue is closed too.
                    drop(ready.send(Ok(())));
                }
            }
            Some(Pending::Probe) => result.map_err(End::of_refusal)?,
            Some(Pending::Start) => {
                let missing = missing(result)?;
                if let (Some(missing), Some(sequence)) = (missing, &mut self.sequence) {
                    sequence.starts_behind(*missing.end());
                }
            }
            Some(Pending::History) => {
                let missing = missing(result)?;
                let sequence = self.sequence.as_mut().expect("only a sequence asks for history");
                if let Some(missing) = missing {
                    sequence.lacks(&missing);
                }
                match sequence.history_end(&mut self.batch) {
                    Some(count) => self.history(count, Pending::History),
                    None => self.backoff.reset(),
                }
            }
            Some(Pending::Ack(ack)) => self.acked(ack, answer, result),
            Some(Pending::Quit(waiting)) => {
                if let Some(waiting) = waiting {
                    drop(waiting.send(result));
                }
                return Err(End::Done);
            }
        }
        Ok(())
    }

    fn acked(
        &mut self,
        ack: Ack,
        answer: Result<&str, (&str, &str)>,
        result: Result<(), ClientError>,
    ) {
        // The first of two may have been carried out, and then the second finds nothing pending.
        let settled_maybe = ack.sent_before && matches!(answer, Err(("NOT_PENDING", _)));
        let result = if settled_maybe { Err(ClientError::OutcomeUnknown) } else { result };
        match (ack.answer, result, answer) {
            (Some(waiting), result, _) => drop(waiting.send(result)),
            (None, Err(ClientError::OutcomeUnknown), _) => {
                self.batch.push(Err(ClientError::OutcomeUnknown));
            }
            (None, Err(_), Err((code, text))) => {
                let (code, text) = (code.to_owned(), text.to_owned());
                let id = ack.message.id().to_owned();
                self.batch.push(Err(ClientError::AckRefused { id, code, text }));
            }
            (None, _, _) => {}
        }
    }

    /// Says goodbye: what was to be acknowledged is sent and answered, messages are no longer
    /// wanted, and the broker has the last word.
    async fn leave(mut self, mut connection: Connection) {
        let mut quit = self.pending.iter().any(|p| matches!(p, Pending::Quit(_)));
        while !quit && let Ok(ask) = self.asks.try_recv() {
            quit = self.asked(ask).is_err();
        }
        if !quit {
            self.send(&Request::Quit, Pending::Quit(None));
        }
        let (mut reader, mut writer) = connection.stream.split();
        let options = Arc::clone(&self.options);
        let goodbye = async {
            loop {
                tokio::select! {
                    read = connection.lines.read_from(&mut reader) => {
                        read?;
                        match self.lines(&mut connection.lines) {
                            Ok(()) => self.batch.clear(),
                            Err(End::Done) => return Ok(()),
                            Err(End::Lost(why) | End::Over(why)) => return Err(why),
                        }
                    }
                    wrote = writer.write(&self.out), if !self.out.is_empty() => {
                        let bytes = wrote.map_err(ClientError::disconnected)?;
                        self.out.drain(..bytes);
                    }
                }
            }
        };
        let end = timeout(options.connect_timeout, goodbye).await.unwrap_or_else(|_elapsed| {
            Err(ClientError::disconnected("the broker did not answer the last commands in time"))
        });
        if let Err(why) = end {
            self.fail_pending(&why);
        }
    }

    fn fail_pending(&mut self, why: &ClientError) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Ack(Ack { answer: Some(waiting), .. }) | Pending::Quit(Some(waiting)) => {
                    drop(waiting.send(Err(why.clone())));
                }
                Pending::Ack(_)
                | Pending::Quit(None)
                | Pending::Start
                | Pending::Sub
                | Pending::History
                | Pending::Probe => {}
            }
        }
    }

    /// The subscription ends, and whoever waits is told why.
    async fn over(mut self, why: ClientError) {
        if let Some(ready) = self.ready.take() {
            drop(ready.send(Err(why)));
            return;
        }
        self.fail_pending(&why);
        let mut batch = std::mem::take(&mut self.batch);
        batch.push(Err(why));
        // With nobody left to read it, the news is of no use.
        drop(self.to_consumer.send(batch).await);
    }
}

/// What a history lacks, which costs those messages and not the subscription.
fn missing(result: Result<(), ClientError>) -> Result<Option<RangeInclusive<Offset>>, End> {
    match result {
        Ok(()) => Ok(None),
        Err(why) => why.missing().map(Some).ok_or_else(|| End::of_refusal(why)),
    }
}

impl End {
    /// The broker refuses what the subscription needs.
    fn of_refusal(why: ClientError) -> End {
        if why.passes() { End::Lost(why) } else { End::Over(why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A subscription to `chat` that has lost its first connection.
    fn feed(group: Option<&str>) -> Feed {
        let (to_consumer, _batches) = mpsc::channel(1);
        let (_asks, asks) = mpsc::channel(1);
        let (ready, _subscribed) = oneshot::channel();
        let topic = TopicName::parse(b"chat").unwrap();
        let group = group.map(|name| GroupName::parse(name.as_bytes()).unwrap());
        let options = Arc::new(Options::new("nowhere:0"));
        let link = watch::Sender::new(Link::Up);
        let mut feed = Feed::new(options, topic, group, (to_consumer, asks), link, ready);
        feed.ready = None;
        feed
    }

    /// Bytes come from the broker.
    async fn come(feed: &mut Feed, lines: &mut Lines, bytes: &str) -> Result<(), End> {
        lines.read_from(&mut bytes.as_bytes()).await.unwrap();
        feed.lines(lines)
    }

    /// The answer to a `PING` stands behind what the broker was sending before, which may be a large message
    /// on a slow line.
    #[tokio::test]
    async fn a_broker_of_which_bytes_come_is_not_dead() {
        for group in [None, Some("workers")] {
            let (mut feed, mut lines) = (feed(group), Lines::default());
            feed.hello();
            assert!(
                come(&mut feed, &mut lines, "OK subscribed chat\nMSG chat m 1 1.0 ").await.is_ok()
            );
            for _ in 0..10 {
                assert!(feed.heartbeat(true).is_ok(), "{group:?}");
                assert!(come(&mut feed, &mut lines, "a part of it").await.is_ok());
            }
            // What its consumer does not let be read can't be heard.
            for _ in 0..10 {
                assert!(feed.heartbeat(false).is_ok(), "{group:?}");
            }
            for _ in 0..PROBES_UNANSWERED_MAX {
                assert!(feed.heartbeat(true).is_ok(), "{group:?}");
            }
            let Err(End::Lost(why)) = feed.heartbeat(true) else { panic!("{group:?}") };
            assert!(why.to_string().contains("no answer to 3 heartbeats"), "{why}");
            feed.hello();
            assert!(feed.heartbeat(true).is_ok(), "a new connection has its own time");
        }
    }

    /// A broker that can't give the history answered the `SUB` before it, and was asked again at once.
    #[tokio::test]
    async fn a_plain_subscription_is_there_again_once_it_has_what_it_missed() {
        let now = tokio::time::Instant::now();
        let mut feed = feed(None);
        feed.sequence.as_mut().unwrap().starts_behind(Offset::new(3));
        let mut waits = Vec::new();
        for answers in [
            "ERR BUSY retry_after=1s\n",
            "HISTORY chat m 9 1.0 nine\nOK history end\nERR BUSY retry_after=1s\n",
            "HISTORY chat m 3 1.0 three\nOK history end\n",
        ] {
            waits.push(feed.backoff.delay(now, 1.0).unwrap().as_millis());
            feed.hello();
            let answers = format!("OK subscribed chat\n{answers}");
            let end = come(&mut feed, &mut Lines::default(), &answers).await;
            assert_eq!(end.is_err(), answers.contains("BUSY"), "{answers}");
        }
        waits.push(feed.backoff.delay(now, 1.0).unwrap().as_millis());
        assert_eq!(waits, [50, 100, 200, 50]);
    }

    #[test]
    fn a_new_connection_begins_with_whole_commands_only() {
        let mut feed = feed(Some("workers"));
        feed.out = b"TBEAT\n".to_vec();
        feed.pending.push_back(Pending::Probe);
        feed.hello();
        assert_eq!(feed.out, b"SUB chat workers\n");
        assert!(matches!(feed.pending.make_contiguous(), [Pending::Sub]));
    }
}
