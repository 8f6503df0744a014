//! The group itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::members::Members;
use super::{
    Action, Attempt, Change, Departure, Event, Outcome, Policy, Progress, Report, Verdict,
};
use crate::ids::{ConnId, Offset};
use crate::time::{Moment, Now, Timestamp};

/// One consumer group; see the module.
#[derive(Debug)]
pub struct Group {
    policy: Arc<Policy>,
    progress: Progress,
    members: Members,
    /// Messages that were delivered, or tried before a restart, and are not settled.
    unsettled: BTreeMap<Offset, Entry>,
    ready: BTreeSet<Offset>,
    waiting: BTreeSet<(Moment, Offset)>,
    /// Deadlines of leases, ascending since all have the same timeout. Those whose lease ended
    /// otherwise are dropped when they come to the front.
    deadlines: VecDeque<(Moment, Offset)>,
    leased: usize,
    /// Everything below was delivered at least once, or is settled.
    next: Offset,
    end: Offset,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Known deliveries that failed, committed or about to be.
    attempts: Vec<Attempt>,
    /// Who had it last.
    last: Option<ConnId>,
    sent: Timestamp,
    mark: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ready,
    Leased { member: ConnId, until: Moment },
    Waiting { until: Moment },
    Settling,
    Dying,
}

impl Group {
    /// A group that is where `progress` says, without members.
    pub fn new(policy: Arc<Policy>, progress: Progress) -> Self {
        let mut group = Self {
            policy,
            next: progress.next_unsettled(Offset::ZERO),
            progress,
            members: Members::default(),
            unsettled: BTreeMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            deadlines: VecDeque::new(),
            leased: 0,
            end: Offset::ZERO,
        };
        let tried: Vec<_> = group.progress.tried().collect();
        tried.into_iter().for_each(|offset| group.recall(offset));
        group
    }

    /// Takes an event at a time, and appends what is to be done.
    pub fn on(&mut self, now: Now, event: Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::Join { member, name, prefetch } => self.join(member, name, prefetch, out),
            Event::Leave { member, why } => self.leave(now, member, why, out),
            Event::LogEnd { end } => self.end = self.end.max(end),
            Event::Ack { member, offset } => self.ack(member, offset, out),
            Event::Nack { member, offset, delay, reason, error, counts, dead } => {
                let nack = Nack { delay, reason, error, counts, dead };
                self.nack(now, member, offset, nack, out);
            }
            Event::Wake => self.wake(now, out),
            Event::Committed(change) => self.committed(change),
        }
        self.dispatch(now, out);
        while self.deadlines.front().is_some_and(|front| !self.is_deadline(*front)) {
            self.deadlines.pop_front();
        }
    }

    /// When [`Event::Wake`] has something to do.
    pub fn wake_at(&self) -> Option<Moment> {
        let deadline = self.deadlines.front().map(|(until, _)| *until);
        let delay = self.waiting.first().map(|(until, _)| *until);
        deadline.into_iter().chain(delay).min()
    }

    /// The durable part.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Who has the message now.
    pub fn holder(&self, offset: Offset) -> Option<ConnId> {
        match self.unsettled.get(&offset)?.state {
            State::Leased { member, .. } => Some(member),
            State::Ready | State::Waiting { .. } | State::Settling | State::Dying => None,
        }
    }

    /// Whether an acknowledgement of the message would count.
    pub fn is_unsettled(&self, offset: Offset) -> bool {
        self.unsettled.get(&offset).is_some_and(|entry| !entry.state.is_ending())
    }

    /// The deliveries of an unsettled message that failed.
    pub fn attempts(&self, offset: Offset) -> &[Attempt] {
        self.unsettled.get(&offset).map_or(&[], |entry| &entry.attempts)
    }

    /// Attaches a number of the owner's to an unsettled message.
    pub fn remember(&mut self, offset: Offset, mark: u64) {
        if let Some(entry) = self.unsettled.get_mut(&offset) {
            entry.mark = mark;
        }
    }

    /// The number that was attached to an unsettled message, zero if none was.
    pub fn mark(&self, offset: Offset) -> Option<u64> {
        self.unsettled.get(&offset).map(|entry| entry.mark)
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// How many messages members hold.
    pub fn in_flight(&self) -> usize {
        self.leased
    }

    /// How many messages wait for a delay to be over.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many messages are not settled, of a topic that ends at `end`.
    pub fn lag(&self, end: Offset) -> u64 {
        let above = end.get().saturating_sub(self.progress.floor().get());
        above.saturating_sub(self.progress.settled_above())
    }

    fn join(&mut self, member: ConnId, name: Arc<str>, prefetch: u32, out: &mut Vec<Action>) {
        if self.members.join(member, Arc::clone(&name), prefetch) {
            let members = self.members.len();
            out.push(Action::Report(Report::Joined { member: name, members }));
        }
    }

    fn leave(&mut self, now: Now, member: ConnId, why: Departure, out: &mut Vec<Action>) {
        let Some((name, held)) = self.members.leave(member) else { return };
        let members = self.members.len();
        let report = Report::Left { member: Arc::clone(&name), why, held: held.len(), members };
        out.push(Action::Report(report));
        let outcome = match why {
            Departure::Closed => Outcome::Disconnect,
            Departure::Silent => Outcome::Dead,
        };
        for offset in held {
            self.leased -= 1;
            let attempt = self.attempt(now, offset, &name, outcome, None, None);
            self.ready(offset);
            out.push(Action::Commit(Change::Failed { offset, attempt }));
        }
    }

    fn ack(&mut self, member: ConnId, offset: Offset, out: &mut Vec<Action>) {
        let entry = self.unsettled.get(&offset).filter(|entry| !entry.state.is_ending());
        let Some(entry) = entry else {
            out.push(Action::Answer(Verdict::NotPending));
            return;
        };
        let late = !matches!(entry.state, State::Leased { member: holder, .. } if holder == member);
        self.unplace(offset);
        self.entry(offset).state = State::Settling;
        out.push(Action::Commit(Change::Settled { offset }));
        if late {
            out.push(Action::Report(Report::LateAck { offset }));
        }
        out.push(Action::Answer(Verdict::Acked { late }));
    }

    fn nack(
        &mut self,
        now: Now,
        member: ConnId,
        offset: Offset,
        nack: Nack,
        out: &mut Vec<Action>,
    ) {
        if self.holder(offset) != Some(member) {
            out.push(Action::Answer(Verdict::NotPending));
            return;
        }
        self.unplace(offset);
        if !nack.counts && !nack.dead {
            let delay = nack.delay.unwrap_or_default();
            self.wait(now, offset, delay);
            let retry = self.counted(offset);
            let of = self.policy.max_retries;
            out.push(Action::Answer(Verdict::Nacked { retry, of, delay }));
            return;
        }
        let name = self.members.name(member).expect("who holds a message is a member");
        let attempt = self.attempt(now, offset, &name, Outcome::Nack, nack.reason, nack.error);
        let verdict = self.failed(now, offset, attempt, nack.delay, nack.dead, out);
        out.push(Action::Answer(verdict));
    }

    fn wake(&mut self, now: Now, out: &mut Vec<Action>) {
        while let Some((until, offset)) = self.waiting.first().copied() {
            if until > now.moment {
                break;
            }
            self.waiting.pop_first();
            self.ready(offset);
        }
        while let Some(front) = self.deadlines.front().copied() {
            if front.0 > now.moment {
                break;
            }
            self.deadlines.pop_front();
            if !self.is_deadline(front) {
                continue;
            }
            let offset = front.1;
            let member = self.holder(offset).expect("a deadline is that of a lease");
            let name = self.members.name(member).expect("who holds a message is a member");
            self.unplace(offset);
            let attempt = self.attempt(now, offset, &name, Outcome::Timeout, None, None);
            self.failed(now, offset, attempt, None, false, out);
        }
    }

    /// A delivery that counts failed: another try, or the end.
    fn failed(
        &mut self,
        now: Now,
        offset: Offset,
        attempt: Attempt,
        delay: Option<Duration>,
        dead: bool,
        out: &mut Vec<Action>,
    ) -> Verdict {
        let retry = self.counted(offset);
        let (of, outcome) = (self.policy.max_retries, attempt.outcome);
        if retry <= of && !dead {
            let delay = delay.unwrap_or_else(|| self.policy.delay(retry));
            self.wait(now, offset, delay);
            out.push(Action::Commit(Change::Failed { offset, attempt }));
            out.push(Action::Report(Report::Retry { offset, retry, of, delay, outcome }));
            return Verdict::Nacked { retry, of, delay };
        }
        if self.policy.dead_letters {
            self.entry(offset).state = State::Dying;
            out.push(Action::Commit(Change::DeadLettered { offset, attempt }));
            out.push(Action::Report(Report::DeadLettered { offset, attempts: retry }));
        } else {
            self.entry(offset).state = State::Settling;
            out.push(Action::Commit(Change::Settled { offset }));
            out.push(Action::Report(Report::GaveUp { offset, attempts: retry }));
        }
        Verdict::DeadLettering
    }

    fn committed(&mut self, change: &Change) {
        self.progress.apply(change);
        match change {
            Change::Settled { offset } | Change::DeadLettered { offset, .. } => {
                if self.unsettled.contains_key(offset) {
                    self.unplace(*offset);
                    self.unsettled.remove(offset);
                }
            }
            Change::Failed { offset, .. } => self.recall(*offset),
        }
        self.next = self.progress.next_unsettled(self.next);
    }

    /// Makes sure that a message with committed attempts is known, and they with it.
    fn recall(&mut self, offset: Offset) {
        let attempts = self.progress.attempts(offset);
        if attempts.is_empty() {
            return;
        }
        match self.unsettled.get_mut(&offset) {
            Some(entry) if entry.attempts.len() < attempts.len() => {
                entry.attempts = attempts.to_vec();
            }
            Some(_) => {}
            None => {
                let attempts = attempts.to_vec();
                self.unsettled.insert(offset, Entry { attempts, ..Entry::new() });
                self.ready.insert(offset);
            }
        }
    }

    /// Delivers what can be delivered: while there is credit, retries and then new messages.
    fn dispatch(&mut self, now: Now, out: &mut Vec<Action>) {
        loop {
            let retry = self.ready.first().copied();
            let avoid = retry.and_then(|offset| self.unsettled[&offset].last);
            let Some(member) = self.members.next(avoid) else { return };
            let Some(offset) = retry.or_else(|| self.next_new()) else { return };
            self.deliver(now, member, offset, out);
        }
    }

    /// Takes the next message that was never delivered.
    fn next_new(&mut self) -> Option<Offset> {
        if self.unsettled.len() >= self.policy.unsettled_max {
            return None;
        }
        let mut offset = self.progress.next_unsettled(self.next);
        while self.unsettled.contains_key(&offset) {
            offset = self.progress.next_unsettled(offset.next());
        }
        self.next = offset;
        if offset > self.end {
            return None;
        }
        self.next = offset.next();
        self.unsettled.insert(offset, Entry::new());
        Some(offset)
    }

    fn deliver(&mut self, now: Now, member: ConnId, offset: Offset, out: &mut Vec<Action>) {
        let until = now.moment + self.policy.ack_timeout;
        let (attempt, of) = (self.counted(offset) + 1, self.policy.max_retries + 1);
        self.ready.remove(&offset);
        let entry = self.entry(offset);
        let is_other = entry.last.is_some_and(|last| last != member);
        entry.state = State::Leased { member, until };
        entry.last = Some(member);
        entry.sent = now.wall;
        let was_taken_over = is_other && entry.attempts.last().is_some_and(|a| !a.outcome.counts());
        self.members.lease(member, offset);
        self.leased += 1;
        self.deadlines.push_back((until, offset));
        if was_taken_over {
            let to = self.members.name(member).expect("it was just given a message");
            out.push(Action::Report(Report::Redistributed { offset, to }));
        }
        out.push(Action::Deliver { member, offset, attempt, of, until });
    }

    /// Writes down that the present delivery failed.
    fn attempt(
        &mut self,
        now: Now,
        offset: Offset,
        consumer: &str,
        outcome: Outcome,
        reason: Option<String>,
        error: Option<String>,
    ) -> Attempt {
        let entry = self.entry(offset);
        let attempt = Attempt {
            n: u32::try_from(entry.attempts.len() + 1).unwrap_or(u32::MAX),
            consumer: consumer.to_owned(),
            sent: entry.sent,
            ended: now.wall,
            outcome,
            reason,
            error,
        };
        entry.attempts.push(attempt.clone());
        attempt
    }

    /// How many failed deliveries bring the message nearer to the dead letters.
    fn counted(&self, offset: Offset) -> u32 {
        let counted = self.attempts(offset).iter().filter(|attempt| attempt.outcome.counts());
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }

    fn ready(&mut self, offset: Offset) {
        self.entry(offset).state = State::Ready;
        self.ready.insert(offset);
    }

    fn wait(&mut self, now: Now, offset: Offset, delay: Duration) {
        let until = now.moment + delay;
        self.entry(offset).state = State::Waiting { until };
        self.waiting.insert((until, offset));
    }

    /// Takes the message out of the index of its state, whatever that is.
    fn unplace(&mut self, offset: Offset) {
        match self.entry(offset).state {
            State::Ready => {
                self.ready.remove(&offset);
            }
            State::Leased { member, .. } => {
                self.leased -= 1;
                self.members.release(member, offset);
            }
            State::Waiting { until } => {
                self.waiting.remove(&(until, offset));
            }
            State::Settling | State::Dying => {}
        }
    }

    fn entry(&mut self, offset: Offset) -> &mut Entry {
        self.unsettled.get_mut(&offset).expect("the message is not settled")
    }

    fn is_deadline(&self, (until, offset): (Moment, Offset)) -> bool {
        let state = self.unsettled.get(&offset).map(|entry| entry.state);
        matches!(state, Some(State::Leased { until: set, .. }) if set == until)
    }

    /// Asserts every invariant.
    pub fn check(&self) {
        let mut leases = BTreeMap::new();
        for (offset, entry) in &self.unsettled {
            assert!(!self.progress.is_settled(*offset), "{offset} is settled and open");
            assert_eq!(self.ready.contains(offset), entry.state == State::Ready, "{offset}");
            match entry.state {
                State::Leased { member, until } => {
                    leases.insert(*offset, member);
                    assert!(self.deadlines.contains(&(until, *offset)), "{offset} never times out");
                }
                State::Waiting { until } => assert!(self.waiting.contains(&(until, *offset))),
                State::Ready | State::Settling | State::Dying => {}
            }
            assert!(self.counted(*offset) <= self.policy.max_retries + 1, "tries of {offset}");
        }
        assert_eq!(leases.len(), self.leased);
        assert_eq!(self.members.in_flight(), self.leased);
        self.members.check(&leases);
        assert!(self.deadlines.iter().is_sorted_by_key(|(until, _)| *until), "deadlines ascend");
        let is_new = self.unsettled.len() < self.policy.unsettled_max
            && (self.next.get()..=self.end.get())
                .map(Offset::new)
                .any(|o| !self.progress.is_settled(o) && !self.unsettled.contains_key(&o));
        let has_work = !self.ready.is_empty() || is_new;
        assert!(self.members.next(None).is_none() || !has_work, "work and credit, and no delivery");
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            state: State::Ready,
            attempts: Vec::new(),
            last: None,
            sent: Timestamp::default(),
            mark: 0,
        }
    }
}

impl State {
    /// Whether the message's end is only waiting to be committed.
    fn is_ending(self) -> bool {
        matches!(self, State::Settling | State::Dying)
    }
}

struct Nack {
    delay: Option<Duration>,
    reason: Option<String>,
    error: Option<String>,
    counts: bool,
    dead: bool,
}
