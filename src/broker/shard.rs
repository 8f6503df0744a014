//! One shard: all state of its topics, changed by nobody else.
//!
//! Synchronous and without threads, so that a simulator can run it: the thread around it is in
//! [`super::thread`]. Its owner calls, in this order and with one reading of the clock,
//! [`Shard::letter`] for what came in, [`Shard::submit`], [`Shard::committed`] for what the log
//! made durable, [`Shard::wake`] for timers, [`Shard::submit`] again, and [`Shard::send`].

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::delivery::{Change, Progress};
use crate::disk::is_shortage;
use crate::ids::{GroupName, Offset, TopicName};
use crate::limits::{AHEAD_BYTES_MAX, BATCH_BYTES_TARGET};
use crate::log::LogError;
use crate::planted::{self, Bug};
use crate::time::{Moment, Now, Timestamp};
use crate::topic::{
    BadCommand, Command, CommandReader, Commands, Desk, GivenIds, GroupKey, Timers, TopicKey,
};
use crate::wal::{Lsn, Record};

use super::batch::{Answer, Appended, Batch, Done, Place, Published, Ticket};
use super::checkpoint::{Applied, Part, TopicState};
use super::conns::Conns;
use super::gate::PublishGate;
use super::letter::{Item, Letter};
use super::message::Submission;
use super::topics::Topics;
use super::writing::flush_early;

/// A shard's state in one piece ([`Shard::part`]).
pub(crate) const ALL_TOPICS: Range<usize> = 0..usize::MAX;

/// With more answers in a turn there is more to do than to send each of them: the sessions' threads do
/// it meanwhile.
pub(super) const ANSWERS_SENT_MAX: usize = 128;

/// Why a shard can't go on. Its process ends.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// A topic's file could not be written or read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A committed batch makes no sense.
    #[error(transparent)]
    Command(#[from] BadCommand),
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    pub(super) number: u32,
    pub(super) topics: Topics,
    pub(super) conns: Conns,
    pub(super) timers: Timers,
    pub(super) given: GivenIds,
    /// How many groups have messages for members without credit.
    starved: usize,
    /// How many groups keep a file open from one turn to the next.
    kept: usize,
    pub(super) gate: Arc<PublishGate>,
    pub(super) prefetch: u32,
    pub(super) open: Batch,
    /// Batches in their order that are not answered yet; those without commands wait for nothing
    /// but the ones before them.
    queue: VecDeque<Waiting>,
    /// What they hold that is not committed yet, in bytes of commands.
    ahead: usize,
    next_index: u64,
    applied: Applied,
    /// Applied, but not answered: their files are flushed first.
    done: Vec<Done>,
    /// Empty lists for the next batch.
    spare: Done,
    /// Topics with appends that are not flushed.
    pub(super) dirty: Vec<TopicKey>,
    /// Topics with appends that were flushed, and of which nobody was told.
    pub(super) fresh: Vec<TopicKey>,
    /// Topics with appends for which the disk had no room.
    pub(super) postponed: VecDeque<TopicKey>,
    /// When to try again to flush those.
    pub(super) retry_at: Option<Moment>,
    /// Bytes of records applied since the last flush, on replay.
    pub(super) unflushed: usize,
    buffers: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Waiting {
    tickets: Vec<Ticket>,
    /// Of commands; without any it is not written.
    bytes: usize,
}

impl Shard {
    /// A shard with these topics, before the first batch.
    pub fn new(number: u32, topics: Topics, prefetch: u32, gate: Arc<PublishGate>) -> Self {
        Self {
            number,
            topics,
            conns: Conns::default(),
            timers: Timers::default(),
            given: GivenIds::default(),
            starved: 0,
            kept: 0,
            gate,
            prefetch,
            open: Batch::default(),
            queue: VecDeque::new(),
            ahead: 0,
            next_index: 1,
            applied: Applied::default(),
            done: Vec::new(),
            spare: Done::default(),
            dirty: Vec::new(),
            fresh: Vec::new(),
            postponed: VecDeque::new(),
            retry_at: None,
            unflushed: 0,
            buffers: Vec::new(),
        }
    }

    /// Takes the requests of a letter into the open batch. Returns whether the batch is full and
    /// should be submitted before the next letter.
    ///
    /// # Errors
    /// What reading a log says.
    pub fn letter(&mut self, now: Now, letter: Letter) -> Result<bool, ShardError> {
        let mut answers = Vec::with_capacity(letter.items.len());
        for item in letter.items {
            match item {
                Item::Publish { tag, topic, messages } => {
                    let refusal = self.gate.refusal().or_else(|| self.topics.refusal(&topic));
                    if let Some(refusal) = &refusal {
                        let refused = |_| Answer::refused(tag.as_ref(), refusal);
                        answers.extend(messages.iter().map(refused));
                        if !planted::has(Bug::RefusedStored) {
                            continue;
                        }
                    }
                    let commands = &mut self.open.commands;
                    let first = commands.appends();
                    commands.topic(&topic);
                    commands.time(now.wall);
                    for message in messages {
                        commands.append(message.of(&letter.bytes));
                    }
                    if refusal.is_some() {
                        continue;
                    }
                    answers.push(Answer::Published(Published {
                        tag,
                        topic_tag: topic.tag(),
                        ts: now.wall,
                        appends: first..commands.appends(),
                    }));
                }
                Item::Ack { tag, id } => {
                    let id = id.of(&letter.bytes);
                    match self.ack(now, letter.conn, tag.as_ref(), id)? {
                        Some(refused) => answers.push(refused),
                        None => Answer::acked(&mut answers, tag),
                    }
                }
                Item::Subscribe { tag, topic, group: Some(group), consumer } => {
                    let (conn, outbox) = (letter.conn, &letter.outbox);
                    answers.push(self.ask(conn, outbox, tag, topic, group, consumer));
                }
                Item::Subscribe { tag, topic, group: None, consumer } => {
                    let at = Place::Behind(self.open.commands.appends());
                    answers.push(Answer::Follow { tag, topic, at, consumer });
                }
                Item::Locate { topic } => {
                    let at = Place::Behind(self.open.commands.appends());
                    answers.push(Answer::Read { topic, at });
                }
                Item::Line(line) => answers.push(Answer::Line(line)),
                Item::Silent | Item::Heard | Item::Drained | Item::Closed => {
                    self.hear_of(now, letter.conn, &item)?;
                }
            }
        }
        let is_ready =
            answers.iter().all(|answer| matches!(answer, Answer::Line(_) | Answer::Acked { .. }));
        let Letter { conn, outbox, seq, permit, .. } = letter;
        let ticket = Ticket { conn, outbox, seq, answers, permit };
        if planted::has(Bug::AckBeforeCommit) && is_ready && !ticket.answers.is_empty() {
            self.answer(now, ticket, &[])?;
        } else if !ticket.answers.is_empty() {
            self.open.tickets.push(ticket);
        }
        Ok(self.open.commands.len() >= BATCH_BYTES_TARGET)
    }

    /// Closes the open batch; what is to be made durable of it comes back, if anything.
    pub fn submit(&mut self) -> Option<Submission> {
        if self.open.is_empty() {
            return None;
        }
        let buffer = self.buffers.pop().unwrap_or_default();
        let tickets = std::mem::take(&mut self.spare.tickets);
        let next = Batch { commands: Commands::reusing(buffer), tickets };
        let Batch { commands, tickets } = std::mem::replace(&mut self.open, next);
        self.ahead += commands.len();
        self.queue.push_back(Waiting { tickets, bytes: commands.len() });
        if commands.is_empty() {
            self.pass_empty();
            return None;
        }
        let is_mine = |topic: &str| self.topics.iter().any(|t| t.topic.name().as_str() == topic);
        for later in planted::kept(is_mine) {
            self.open.commands.append_raw(&later);
        }
        let index = self.next_index;
        self.next_index += 1;
        Some(Submission { shard: self.number, index, payload: commands.into_bytes() })
    }

    /// The batch `index` is committed as record `lsn`: applies it. Answers leave with
    /// [`Shard::send`].
    ///
    /// # Errors
    /// [`ShardError`], and nothing of the batch was answered.
    pub fn committed(
        &mut self,
        now: Now,
        index: u64,
        lsn: Lsn,
        payload: Vec<u8>,
    ) -> Result<(), ShardError> {
        assert_eq!(index, self.applied.index + 1, "batches are committed in their order");
        let mut batch = self.queue.pop_front().expect("a committed batch was submitted");
        self.ahead -= batch.bytes;
        let mut appended = std::mem::take(&mut self.spare.appended);
        self.apply(now, lsn, &payload, Some(&mut appended))?;
        self.find_places(&mut batch.tickets, &appended);
        self.applied = Applied { index, lsn };
        if self.buffers.len() < 4 && payload.capacity() <= 2 * BATCH_BYTES_TARGET {
            self.buffers.push(payload);
        }
        self.done.push(Done { tickets: batch.tickets, appended });
        self.pass_empty();
        Ok(())
    }

    /// On start: its state is that of a checkpoint.
    pub(super) fn set_applied(&mut self, applied: Applied) {
        self.applied = applied;
    }

    /// On start: applies a record of the log again, but for topics whose state already covers it.
    ///
    /// # Errors
    /// As for [`Shard::committed`].
    pub(super) fn replay(&mut self, now: Now, record: &Record<'_>) -> Result<(), ShardError> {
        self.apply(now, record.lsn, record.payload, None)?;
        if record.shard == self.number {
            self.applied.index = self.applied.index.max(record.index);
        }
        self.unflushed += record.payload.len();
        if self.unflushed >= BATCH_BYTES_TARGET {
            self.flush_all()?;
            self.fresh.clear();
        }
        Ok(())
    }

    /// On start: all records up to `last` were applied.
    pub(super) fn resume(&mut self, last: Lsn) -> Result<(), ShardError> {
        self.flush_all()?;
        // Nobody is there yet to be told.
        self.fresh = Vec::new();
        self.applied.lsn = last;
        self.next_index = self.applied.index + 1;
        assert!(self.open.is_empty(), "without members, no group asks for anything");
        Ok(())
    }

    /// Lets timers do their work, until the batch is full: the rest has its turn when that is on its way.
    ///
    /// # Errors
    /// What reading a log says.
    pub fn wake(&mut self, now: Now) -> Result<(), ShardError> {
        while self.open.commands.len() < BATCH_BYTES_TARGET
            && !self.is_far_ahead()
            && let Some((topic, group)) = self.timers.due(now.moment)
        {
            let (topic, mut desk) = self.desk(now, topic);
            topic.wake(group, &mut desk)?;
        }
        Ok(())
    }

    /// When [`Shard::wake`] has something to do, unless what is on its way to the log comes back before.
    pub fn wake_at(&self) -> Option<Moment> {
        let timers = self.timers.next().filter(|_| !self.is_far_ahead());
        [self.retry_at, timers, self.topics.overdue_at()].into_iter().flatten().min()
    }

    fn is_far_ahead(&self) -> bool {
        self.ahead >= AHEAD_BYTES_MAX
    }

    /// Writes the topics' files, lets readers see them, and sends replies and deliveries.
    ///
    /// # Errors
    /// What writing or reading a log says.
    pub fn send(&mut self, now: Now) -> Result<(), ShardError> {
        self.flush(now.moment)?;
        let answers = self.done.iter().flat_map(|done| &done.tickets).map(Ticket::answers);
        self.conns.is_busy = answers.sum::<usize>() > ANSWERS_SENT_MAX;
        // These lists keep their memory: there is a turn for every message that comes alone.
        let mut done = std::mem::take(&mut self.done);
        for mut batch in done.drain(..) {
            for ticket in batch.tickets.drain(..) {
                self.answer(now, ticket, &batch.appended)?;
            }
            batch.appended.clear();
            if batch.is_small() {
                self.spare = batch;
            }
        }
        self.done = done;
        let mut fresh = std::mem::take(&mut self.fresh);
        for key in fresh.drain(..) {
            self.topics.tell(key, !self.conns.is_busy);
            let (topic, mut desk) = self.desk(now, key);
            topic.announce(&mut desk)?;
        }
        self.fresh = fresh;
        self.conns.send();
        Ok(())
    }

    /// Its topics, to look at.
    #[cfg(any(test, feature = "sim"))]
    pub fn topics(&self) -> impl Iterator<Item = &crate::topic::Topic> {
        self.topics.iter().map(|slot| &slot.topic)
    }

    /// Whether there is nothing to be done while a batch is on its way: what was taken is answered,
    /// and no group has messages for members that will have credit in a moment.
    pub fn can_wait(&self) -> bool {
        self.is_idle() && self.starved == 0
    }

    /// Whether all that was taken is answered.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.queue.is_empty() && self.done.is_empty()
    }

    /// The shard's state, for a checkpoint; `None` while the disk has no room for what it has to
    /// write before. `piece` are the topics that are wanted, by their places, from 0 on: a shard with
    /// many of them gives a piece at a time, and works in between. `last` is a record of the log that
    /// was written before this call: with nothing of its own on the way, the shard's state covers that
    /// too.
    ///
    /// # Errors
    /// What writing a log says.
    pub fn part(&mut self, last: Lsn, piece: Range<usize>) -> Result<Option<Part>, ShardError> {
        match self.write_piece(piece.clone()) {
            Ok(()) => {}
            Err(LogError::Io { source, .. }) if is_shortage(&source) => return Ok(None),
            Err(other) => return Err(other.into()),
        }
        if self.queue.is_empty() {
            self.applied.lsn = self.applied.lsn.max(last);
        }
        let (shard, applied) = (self.number, self.applied);
        let (slots, next) = self.topics.piece_mut(piece);
        let (mut topics, mut syncs, mut trimmed) = (Vec::new(), Vec::new(), Vec::new());
        for slot in slots {
            let state = TopicState {
                topic: slot.topic.name().as_str().to_owned(),
                mark: slot.topic.log().mark(),
                groups: slot.topic.progress().filter(is_kept).map(durable).collect(),
            };
            topics.push((applied.lsn, state));
            syncs.extend(Some(slot.topic.log_mut().unsynced()).filter(|job| !job.is_empty()));
            trimmed.extend(slot.topic.log_mut().take_trimmed());
        }
        Ok(Some(Part { shard, applied, topics, syncs, trimmed, next }))
    }

    /// Applies the commands of a record. On replay (`appended` is `None`) those of topics whose
    /// state covers the record are passed over.
    fn apply(
        &mut self,
        now: Now,
        lsn: Lsn,
        payload: &[u8],
        mut appended: Option<&mut Vec<Appended>>,
    ) -> Result<(), ShardError> {
        let mut reader = CommandReader::new(payload);
        let mut ts = Timestamp::default();
        let mut topic = None;
        let mut group = None;
        let mut is_short = self.retry_at.is_some();
        while let Some(command) = reader.next()? {
            if let Command::Topic(name) = &command {
                let is_mine = appended.is_some() || self.topics.is_mine(name);
                topic = is_mine.then(|| self.topics.ensure(name));
                topic =
                    topic.filter(|key| appended.is_some() || self.topics.slot(*key).covered < lsn);
                group = None;
                continue;
            }
            if let Command::Time(time) = command {
                ts = time;
                continue;
            }
            let Some(key) = topic else { continue };
            match command {
                Command::Topic(_) | Command::Time(_) => {}
                Command::Append { id, extra, message } => {
                    let (slot, is_first) = self.topics.touch(key);
                    let offset = slot.topic.append(ts, id, extra, message);
                    if is_first {
                        self.dirty.push(key);
                    }
                    if let Some(appended) = appended.as_deref_mut() {
                        appended.push((key, offset));
                    }
                    if !is_short && slot.topic.log().has_much() {
                        is_short = flush_early(&mut slot.topic)?;
                    }
                }
                Command::Seal => {
                    let (slot, is_first) = self.topics.touch(key);
                    slot.topic.seal();
                    if is_first {
                        self.dirty.push(key);
                    }
                }
                Command::Trim { first } => self.topics.slot_mut(key).topic.trim(first)?,
                Command::Group(name) => group = Some(name),
                Command::CreateGroup => {
                    let name = group.as_ref().ok_or_else(no_group)?;
                    self.topics.slot_mut(key).topic.create_group(name);
                }
                Command::Settled { first, count } => {
                    let group = group_key(self.topics.slot(key), group.as_ref())?;
                    let (topic, mut desk) = self.desk(now, key);
                    topic.settle(group, first, count, &mut desk)?;
                }
                Command::Change(Change::Failed { .. })
                    if appended.is_none() && planted::has(Bug::AttemptsInMemory) => {}
                Command::Change(change) => {
                    let group = group_key(self.topics.slot(key), group.as_ref())?;
                    let (topic, mut desk) = self.desk(now, key);
                    topic.change(group, &change, &mut desk)?;
                }
            }
        }
        Ok(())
    }

    /// Moves batches without commands that now have none before them.
    fn pass_empty(&mut self) {
        while self.queue.front().is_some_and(|batch| batch.bytes == 0) {
            let mut batch = self.queue.pop_front().expect("it was just seen");
            self.find_places(&mut batch.tickets, &[]);
            self.done.push(Done { tickets: batch.tickets, appended: Vec::new() });
        }
    }

    /// Says where topics ended for requests of a batch that was just applied.
    fn find_places(&self, tickets: &mut [Ticket], appended: &[Appended]) {
        for answer in tickets.iter_mut().flat_map(|ticket| &mut ticket.answers) {
            if let Answer::Follow { topic, at, .. } | Answer::Read { topic, at } = answer
                && let Place::Behind(appends) = *at
            {
                *at =
                    Place::End(self.end_behind(topic, &appended[..appends], &appended[appends..]));
            }
        }
    }

    /// Where the topic ended between some appends and others, which are its newest.
    fn end_behind(&self, topic: &TopicName, before: &[Appended], after: &[Appended]) -> Offset {
        let Some(key) = self.topics.find(topic) else { return Offset::ZERO };
        let of_topic = |(of, _): &&Appended| *of == key;
        let last = before.iter().rev().find(of_topic).map(|(_, offset)| *offset);
        let next = || after.iter().find(of_topic).map(|(_, offset)| offset.prev());
        last.or_else(next).unwrap_or_else(|| self.topics.slot(key).topic.log().end())
    }

    /// A topic, and what is at hand for it.
    pub(super) fn desk(&mut self, now: Now, key: TopicKey) -> (&mut crate::topic::Topic, Desk<'_>) {
        let desk = Desk {
            now,
            commands: &mut self.open.commands,
            pushes: &mut self.conns,
            timers: &mut self.timers,
            given: &mut self.given,
            starved: &mut self.starved,
            kept: &mut self.kept,
        };
        (&mut self.topics.slot_mut(key).topic, desk)
    }
}

/// Whether a checkpoint has the group: all of them.
fn is_kept((_, progress): &(&GroupName, &Progress)) -> bool {
    !planted::has(Bug::GroupForgotten) || progress.ranges() > 0
}

/// A group as a checkpoint has it.
fn durable((name, progress): (&GroupName, &Progress)) -> (String, Progress) {
    let mut progress = progress.clone();
    if planted::has(Bug::AttemptsInMemory) {
        progress = progress.without_attempts();
    }
    (name.as_str().to_owned(), progress)
}

fn group_key(
    slot: &super::topics::TopicSlot,
    name: Option<&crate::ids::GroupName>,
) -> Result<GroupKey, BadCommand> {
    name.and_then(|name| slot.topic.group_key(name)).ok_or_else(no_group)
}

fn no_group() -> BadCommand {
    BadCommand { at: 0, why: "a command for a group that was never created".to_owned() }
}
