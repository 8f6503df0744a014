//! A session without its socket: what to answer, in which order, and whom to ask.

mod room;
mod subscriptions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::broker::letter::{Bookmark, Item, Letter, Piece, Then};
use crate::broker::outbox::{Letters, Outbox, Sent};
use crate::broker::topics::shard_of;
use crate::disk::Disk;
use crate::ids::{ConnId, Offset, TopicName};
use crate::log::{LogError, LogShared};
use crate::planted::{self, Bug};
use crate::proto::{Decoder, Request, Step, Tag, WireError, encode};
use crate::time::{Moment, Now};

use super::drafts::{Draft, Drafts, span, take};
use super::out::Out;
use super::read::{Form, ReadDone, ReadJob, Reading};
use super::reading::{History, Readers, unreadable, unwritten};
use super::shares::Shares;
use subscriptions::Subscriptions;

/// Most letters whose answers others may send while a session sleeps.
const DIRECT_LETTERS_MAX: usize = 8;

/// What all sessions have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest message, in bytes.
    pub message_bytes_max: usize,
    /// A member of a group that is not heard from for this long is dead.
    pub dead_after: Duration,
    /// How many shards there are.
    pub shards: u32,
    /// Where topics' files are read.
    pub disk: Arc<dyn Disk>,
    /// The memory for what sessions hold for their peers.
    pub shares: Arc<Shares>,
    /// A connection with so many bytes unsent gets no more messages of its groups, even if there is
    /// memory.
    pub unsent_max: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    conn: ConnId,
    settings: Arc<Settings>,
    outbox: Arc<Outbox>,
    consumer: Arc<str>,
    decoder: Decoder,
    /// Answers in the order of their commands.
    slots: VecDeque<Slot>,
    /// Final lines that are still to come to the output.
    owed: usize,
    next_seq: u64,
    /// Bytes of answers that are ready, and wait for one before them.
    ready: usize,
    /// Pushes that wait for the answer to a `SUB`.
    held: Vec<Vec<u8>>,
    /// `SUB`s in groups that are not answered yet.
    joining: usize,
    subscriptions: Subscriptions,
    readers: Readers,
    out: Out,
    /// Where the last push ends in the output.
    pushed: u64,
    last_heard: Moment,
    is_silent: bool,
    /// It has become a member since it was silent: that group was not told.
    is_untold: bool,
    is_closing: bool,
}

/// The place of an answer.
#[derive(Debug)]
enum Slot {
    /// Ready.
    Lines(Vec<u8>),
    /// A letter's; how many of its items are `SUB`s in groups.
    Letter { seq: u64, joins: usize, reply: Option<(Vec<u8>, Option<Then>)> },
    /// A `HISTORY`, with the letter that asks where the log is.
    History { seq: u64, tag: Option<Tag>, topic: TopicName, count: u64, reply: Option<Then> },
}

/// What came of some bytes.
#[derive(Debug, Default)]
pub struct Input {
    /// Letters, each with the shard it goes to.
    pub letters: Vec<(u32, Letter)>,
    /// How many commands they are.
    pub commands: usize,
    /// The connection's first line looks like HTTP.
    pub is_http: bool,
    /// All whole commands were taken: what is left is the beginning of one.
    pub is_drained: bool,
}

impl Core {
    /// A session that has just begun; the greeting is in its output.
    pub fn new(
        conn: ConnId,
        consumer: Arc<str>,
        settings: Arc<Settings>,
        outbox: Arc<Outbox>,
        now: Moment,
    ) -> Self {
        let mut out = Out::default();
        let mut greeting = Vec::new();
        encode::connected(&mut greeting);
        out.lines(greeting);
        let readers = Readers::new(&settings.shares);
        Self {
            conn,
            decoder: Decoder::new(settings.message_bytes_max),
            settings,
            outbox,
            consumer,
            slots: VecDeque::new(),
            owed: 0,
            next_seq: 0,
            ready: 0,
            held: Vec::new(),
            joining: 0,
            subscriptions: Subscriptions::default(),
            readers,
            out,
            pushed: 0,
            last_heard: now,
            is_silent: false,
            is_untold: false,
            is_closing: false,
        }
    }

    /// What is to be written.
    pub fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    /// The peer took so many bytes of the output. While none of its own are taken, since too much is
    /// unsent, nothing else is heard of it.
    pub fn taken(&mut self, bytes: usize, now: impl FnOnce() -> Moment) -> Vec<(u32, Letter)> {
        let is_deaf = !self.is_closing && !self.wants_input();
        self.out.advance(bytes);
        if is_deaf { self.heard(now()) } else { Vec::new() }
    }

    /// How many bytes are worth reading next, where so many came last time.
    pub fn read_hint(&self, last: usize) -> usize {
        last.max(self.decoder.read_hint())
    }

    /// The end of a message of which this has come is not waited for any longer. The caller drops it.
    pub fn give_up(&mut self, part: &[u8]) {
        let (tag, error) = self.decoder.give_up(part);
        self.owed += 1;
        let mut lines = Vec::new();
        encode::error(&mut lines, tag.as_ref(), &error);
        self.place_lines(lines);
        self.emit();
    }

    /// Whether everything is answered and nothing more will be taken.
    pub fn is_finished(&self) -> bool {
        self.is_closing
            && self.slots.is_empty()
            && self.readers.history.is_none()
            && self.out.is_empty()
    }

    /// Whether no more commands will be taken.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// No more commands will be taken: the peer has sent its last byte, or the broker stops.
    pub fn finish(&mut self) {
        self.is_closing = true;
    }

    /// The peer was heard. If it had been taken for dead, it is a member again.
    pub fn heard(&mut self, now: Moment) -> Vec<(u32, Letter)> {
        self.last_heard = now;
        self.is_untold = false;
        if !std::mem::take(&mut self.is_silent) {
            return Vec::new();
        }
        self.tell_all(|| Item::Heard)
    }

    /// When [`Core::wake`] has something to do.
    pub fn wake_at(&self) -> Option<Moment> {
        let is_watched = self.subscriptions.is_member() && (!self.is_silent || self.is_untold);
        is_watched.then(|| self.last_heard + self.settings.dead_after)
    }

    /// Lets time pass: a member that was silent for too long is dead to its groups.
    pub fn wake(&mut self, now: Now) -> Vec<(u32, Letter)> {
        if self.wake_at().is_none_or(|at| at > now.moment) {
            return Vec::new();
        }
        (self.is_silent, self.is_untold) = (true, false);
        tracing::warn!(event = "consumer_dead", conn = self.conn.0, consumer = %self.consumer,
            silent_for = ?self.settings.dead_after,
            "no byte from a consumer for too long: its messages go to others");
        self.tell_all(|| Item::Silent)
    }

    /// The connection is closed: the shards that know it are told.
    pub fn closed(&mut self) -> Vec<(u32, Letter)> {
        self.outbox.close();
        self.tell_all(|| Item::Closed)
    }

    /// Takes commands from the front of `buf`.
    pub fn input(&mut self, buf: &mut BytesMut) -> Input {
        let mut drafts = Drafts::default();
        let owed = self.owed;
        let (mut is_http, mut is_drained) = (false, false);
        let mut at = 0;
        while !self.is_closing && self.may_answer(&drafts) {
            let rest = &buf[at..];
            match self.decoder.next(rest) {
                Step::Incomplete { used } => {
                    at += used;
                    is_drained = true;
                    break;
                }
                Step::Request { used, tag, request } => {
                    self.owed += 1;
                    let base = rest.as_ptr().addr() - at;
                    self.request(tag, request, base, &mut drafts);
                    at += used;
                }
                Step::Refused { used, tag, error } => {
                    self.owed += 1;
                    at += used;
                    let closes = error.code().closes();
                    drafts.line(|out| encode::error(out, tag.as_ref(), &error));
                    self.is_closing |= closes;
                }
                Step::Http { used } => {
                    at += used;
                    self.is_closing = true;
                    is_http = true;
                }
            }
        }
        let commands = self.owed - owed;
        let mut bytes = take(buf, at);
        let mut letters = Vec::with_capacity(drafts.list.len());
        let mut drafts = drafts.list.into_iter().peekable();
        while let Some(draft) = drafts.next() {
            // The last one has them for itself: most often there is no other.
            let is_last = drafts.peek().is_none();
            let bytes = if is_last { std::mem::take(&mut bytes) } else { bytes.clone() };
            self.place(draft, bytes, &mut letters);
        }
        self.emit();
        Input { letters, commands, is_http, is_drained }
    }

    /// Gives an answer its place, and sends the letter that brings it.
    fn place(&mut self, draft: Draft, bytes: Bytes, letters: &mut Vec<(u32, Letter)>) {
        match draft {
            Draft::Lines(lines) => self.place_lines(lines),
            Draft::Letter { shard, items, joins, .. } => {
                let letter = self.letter(bytes, items);
                self.slots.push_back(Slot::Letter { seq: letter.seq, joins, reply: None });
                letters.push((shard, letter));
            }
            Draft::History { shard, tag, topic, count } => {
                let letter = self.letter(Bytes::new(), vec![Item::Locate { topic: topic.clone() }]);
                let seq = letter.seq;
                self.slots.push_back(Slot::History { seq, tag, topic, count, reply: None });
                letters.push((shard, letter));
            }
        }
    }

    fn place_lines(&mut self, lines: Vec<u8>) {
        self.ready += lines.len();
        self.slots.push_back(Slot::Lines(lines));
    }

    fn letter(&mut self, bytes: Bytes, items: Vec<Item>) -> Letter {
        let seq = self.next_seq;
        self.next_seq += 1;
        let outbox = Arc::clone(&self.outbox);
        Letter { conn: self.conn, outbox, seq, bytes, items, permit: None }
    }

    /// The same to all shards that know this connection; nothing is answered.
    fn tell_all(&mut self, item: impl Fn() -> Item) -> Vec<(u32, Letter)> {
        let shards = self.subscriptions.shards();
        shards.map(|shard| (shard, self.letter(Bytes::new(), vec![item()]))).collect()
    }

    /// What others may send while nothing is done here: nothing of its own is unsent, and they wake it
    /// for what they don't send. `None` if nothing, else pushes and the answers to these letters. With
    /// one of those sent, nothing that is ready here may wait behind it.
    pub fn direct(&self) -> Option<Letters> {
        let is_quiet = self.out.is_empty() && self.readers.history.is_none() && self.joining == 0;
        if !is_quiet || !self.wants_input() {
            return None;
        }
        let first = match self.slots.front() {
            Some(Slot::Letter { seq, .. }) => *seq,
            _ => self.next_seq,
        };
        let waits = |(slot, expected): (&Slot, u64)| matches!(slot, Slot::Letter { seq, reply: None, .. } if *seq == expected);
        let are_letters =
            self.slots.len() <= DIRECT_LETTERS_MAX && self.slots.iter().zip(first..).all(waits);
        let count = if are_letters { self.slots.len() as u64 } else { 0 };
        Some(first..first + count)
    }

    /// Others answered the first letters that wait. Shards that held something back are told that there
    /// is room.
    pub fn sent(&mut self, sent: Sent) -> Vec<(u32, Letter)> {
        for _ in 0..sent.letters {
            let slot = self.slots.pop_front();
            let is_letter = matches!(slot, Some(Slot::Letter { reply: None, .. }));
            assert!(is_letter, "only letters that wait are answered");
        }
        self.owed = self.owed.saturating_sub(sent.lines);
        if sent.is_drained { self.tell_all(|| Item::Drained) } else { Vec::new() }
    }

    /// Of these subscriptions there may be more, said behind the pieces that came with it.
    pub fn more(&mut self, due: &[Arc<Bookmark>]) {
        self.readers.more(due);
    }

    /// A piece from a shard.
    pub fn piece(&mut self, piece: Piece) {
        match piece {
            Piece::Push(lines) if self.joining > 0 => self.held.push(lines),
            Piece::Push(lines) => self.pushed(lines),
            Piece::Reply { seq, lines, then } => {
                let place = self.slots.iter_mut().find(|slot| slot.awaits(seq));
                match place.expect("a letter is answered once, and its place waits for it") {
                    Slot::Letter { reply, .. } => {
                        self.ready += lines.len();
                        *reply = Some((lines, then));
                    }
                    Slot::History { reply, .. } => *reply = then,
                    Slot::Lines(_) => unreachable!("ready lines await nothing"),
                }
                self.emit();
            }
        }
    }

    /// Moves answers that are ready, and have none before them that is not, to the output.
    fn emit(&mut self) {
        while self.readers.history.is_none() {
            match self.slots.front_mut() {
                Some(Slot::Letter { reply: None, .. } | Slot::History { reply: None, .. }) => {
                    return;
                }
                None => return,
                Some(_) => {}
            }
            match self.slots.pop_front() {
                Some(Slot::Lines(lines)) => self.leaves(lines),
                Some(Slot::Letter { joins, reply: Some((lines, then)), .. }) => {
                    self.leaves(lines);
                    self.joining -= joins;
                    self.is_untold |= joins > 0;
                    if self.joining == 0 {
                        std::mem::take(&mut self.held).into_iter().for_each(|l| self.pushed(l));
                    }
                    if let Some(Then::Follow { topic, log, from }) = then {
                        self.readers.follow(topic, log, from);
                    }
                }
                Some(Slot::History {
                    tag,
                    topic,
                    count,
                    reply: Some(Then::Read { log, end }),
                    ..
                }) => {
                    self.begin_history(tag, topic, count, log, end);
                }
                _ => unreachable!("only what is ready was taken"),
            }
        }
    }

    /// A push comes to the output.
    fn pushed(&mut self, lines: Vec<u8>) {
        self.out.lines(lines);
        self.pushed = self.out.end();
    }

    /// Answers that were ready have their turn.
    fn leaves(&mut self, lines: Vec<u8>) {
        self.ready -= lines.len();
        self.answered(lines);
    }

    /// Answers come to the output.
    fn answered(&mut self, lines: Vec<u8>) {
        self.owed = self.owed.saturating_sub(memchr::memchr_iter(b'\n', &lines).count());
        self.out.lines(lines);
    }

    fn begin_history(
        &mut self,
        tag: Option<Tag>,
        topic: TopicName,
        count: u64,
        log: Option<Arc<LogShared>>,
        last: Offset,
    ) {
        let mut failure = None;
        let count = count.saturating_sub(u64::from(planted::has(Bug::HistoryShort)));
        let job = log.and_then(|log| {
            let (first, visible) = (log.first(), log.end());
            if count > 0 && visible < last {
                failure = Some(unwritten(visible.next(), last));
            }
            let wanted = Offset::new((last.get() + 1).saturating_sub(count)).max(first);
            let last = last.min(visible);
            let is_any = count > 0 && last >= wanted && last > Offset::ZERO;
            let form = Form::History(tag);
            let disk = &self.settings.disk;
            is_any.then(|| ReadJob::new(disk, log, topic.clone(), form, wanted, last))
        });
        self.readers.history = Some(Box::new(History { tag, topic, job, failure }));
        self.end_history_if_read();
    }

    fn end_history_if_read(&mut self) {
        let Some(history) = &self.readers.history else { return };
        if history.job.as_ref().is_some_and(|job| !job.is_done()) {
            return;
        }
        let mut line = Vec::new();
        let tag = history.tag.as_ref();
        match &history.failure {
            None => encode::history_end(&mut line, tag),
            Some(error) => encode::error(&mut line, tag, error),
        }
        self.answered(line);
        self.readers.history = None;
    }

    /// Moves ready chunks of subscriptions to the output while there is room, and returns what has
    /// to be read from files, which the caller gives back to [`Core::read`].
    pub fn pull(&mut self) -> Vec<(Reading, ReadJob)> {
        let jobs = self.readers.pull(&mut self.out, &self.settings.disk);
        if self.is_closing && self.slots.is_empty() {
            // That was their last turn: whoever is behind may never have all.
            self.readers.end_following();
        }
        jobs
    }

    /// Whether [`Core::pull`] would find something, now that output was sent.
    pub fn wants_pull(&mut self) -> bool {
        self.readers.wants_pull(&self.out)
    }

    /// Whether there is no use in more messages of its subscriptions: it has as many unsent as it may
    /// have, or reads them from a file. Whatever changes that wakes it.
    pub fn is_sated(&self) -> bool {
        self.readers.is_sated(&self.out)
    }

    /// What a read job brought.
    ///
    /// # Panics
    /// If others may use the wire: they would send what comes later before it.
    pub fn read(&mut self, reading: Reading, job: ReadJob, done: ReadDone) {
        assert!(!self.outbox.is_lent(), "a session takes its wire back before it does anything");
        for missing in done.missing.iter().chain(&done.error) {
            if let LogError::Gone { .. } = missing {
                tracing::warn!(event = "reader_too_late", conn = self.conn.0, "{missing}");
            } else {
                tracing::error!(event = "read_failed", conn = self.conn.0, "{missing}");
            }
        }
        self.readers.came(&job);
        self.out.lines(done.lines);
        match reading {
            Reading::History => {
                let history = self.readers.history.as_mut().expect("its job was running");
                // Whoever is told of one that is missing takes all others for what there is.
                let first = done.missing.first().filter(|_| history.failure.is_none());
                if let Some(error) = done.error.as_ref().or(first) {
                    history.failure = Some(unreadable(&history.topic, error));
                }
                history.job = done.error.is_none().then_some(job);
                self.end_history_if_read();
                self.emit();
            }
            Reading::Follow(number) => {
                self.readers.followed(number, job, done.next);
                // A subscription that can't be read has no way to say so but to end.
                self.is_closing |= done.error.is_some();
            }
        }
    }

    fn request(&mut self, tag: Option<Tag>, request: Request<'_>, base: usize, to: &mut Drafts) {
        let shards = self.settings.shards;
        match request {
            Request::Pub { topic, message } => {
                to.publish(shard_of(&topic, shards), tag, topic, span(base, message));
            }
            Request::Ack { id } => match self.subscriptions.shard_for_ack(id) {
                Some(shard) => to.item(shard, Item::Ack { tag, id: span(base, id) }),
                None => to.line(|out| {
                    encode::error(out, tag.as_ref(), &WireError::not_pending(id));
                }),
            },
            Request::Sub { topic, group } => {
                let shard = match self.subscriptions.add(&topic, group.as_ref(), shards) {
                    Ok(shard) => shard,
                    Err(error) => {
                        return to.line(|out| encode::error(out, tag.as_ref(), &error));
                    }
                };
                let consumer = Arc::clone(&self.consumer);
                let joins = group.is_some();
                self.joining += usize::from(joins);
                to.item(shard, Item::Subscribe { tag, topic, group, consumer });
                to.close(joins);
            }
            Request::History { topic, count } => {
                let shard = shard_of(&topic, shards);
                to.list.push(Draft::History { shard, tag, topic, count });
            }
            Request::Heartbeat => to.line(|out| encode::heartbeat_received(out, tag.as_ref())),
            Request::Ping => to.line(|out| encode::pong(out, tag.as_ref())),
            Request::Quit => {
                to.line(|out| encode::bye(out, tag.as_ref()));
                self.is_closing = true;
            }
        }
    }
}

impl Slot {
    fn awaits(&self, letter: u64) -> bool {
        match self {
            Slot::Lines(_) => false,
            Slot::Letter { seq, reply, .. } => {
                (*seq == letter || planted::has(Bug::ReplyOutOfTurn)) && reply.is_none()
            }
            Slot::History { seq, reply, .. } => *seq == letter && reply.is_none(),
        }
    }
}
