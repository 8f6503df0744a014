//! The state machine of one group.

mod check;
mod dead_letters;
mod unsent;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempt, Outcome};
use super::events::{Action, Departure, Event, Report, Verdict};
use super::leases::{Counts, Lease, Leases, Message, Slot, State};
use super::members::{Member, MemberIndex, Members};
use super::policy::Policy;
use super::progress::{Change, Progress};
use super::unsaved::Unsaved;
use crate::ids::{ConnId, Offset};
use crate::limits::DEAD_LETTERS_AT_ONCE;
use crate::planted::{self, Bug};
use crate::time::{Moment, Now};

/// One group of one topic. See the [module](super).
pub struct Group {
    policy: Arc<Policy>,
    /// What is durable; all else below is forgotten at a restart.
    progress: Progress,
    leases: Leases,
    members: Members,
    unsaved: Unsaved,
    /// The first offset that was never given out, by this process.
    next: Offset,
    /// The end of the log.
    end: Offset,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// What a group knows of a message; see [`Group::look`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Whether an acknowledgement would count: it was delivered, as far as is known, and neither
    /// settled nor given up since.
    pub is_unsettled: bool,
    /// Who has a lease of it.
    pub holder: Option<ConnId>,
    /// Who had it last, as far as this process knows.
    pub last: Option<ConnId>,
    /// The number attached by [`Group::remember`].
    pub mark: Option<u64>,
}

/// How a delivery ended without an acknowledgement.
struct Failure {
    outcome: Outcome,
    reason: Option<String>,
    error: Option<String>,
    uncounted: bool,
    delay: Option<Duration>,
    dead: bool,
}

impl From<Outcome> for Failure {
    fn from(outcome: Outcome) -> Failure {
        let (reason, error) = (None, None);
        Failure { outcome, reason, error, uncounted: false, delay: None, dead: false }
    }
}

impl Group {
    /// A group without members that goes on from `progress`: everything unsettled will be
    /// delivered (again), the lowest offset first.
    pub fn new(policy: Arc<Policy>, progress: Progress) -> Group {
        let next = progress.floor().next();
        Group {
            policy,
            progress,
            leases: Leases::new(),
            members: Members::default(),
            unsaved: Unsaved::default(),
            next,
            end: Offset::ZERO,
        }
    }

    /// Takes in `event` and appends what is to be done because of it. What can be delivered now is
    /// asked for afterwards, with [`Group::hand_out`].
    pub fn on(&mut self, now: Now, event: Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::Join { member, name, prefetch } => self.join(member, name, prefetch, out),
            Event::Leave { member, why } => self.leave(now, member, why, out),
            Event::LogEnd { end } => self.end = self.end.max(end),
            Event::LogStart { first } => self.skip_to(first),
            Event::Ack { member, offset } => self.ack(member, offset, out),
            Event::Nack { member, offset, delay, reason, error, counts, dead } => {
                let outcome = Outcome::Nack;
                let failure = Failure { outcome, reason, error, uncounted: !counts, delay, dead };
                self.nack(now, member, offset, failure, out);
            }
            Event::Touch { member, offset, time } => self.touch(now, member, offset, time, out),
            Event::SetPrefetch { member, prefetch } => {
                if let Some(index) = self.members.find(member) {
                    self.members.set_prefetch(index, prefetch);
                }
            }
            Event::Resume { member } => {
                if let Some(index) = self.members.find(member)
                    && self.members.get(index).is_paused()
                {
                    self.members.resume(index);
                    let name = Arc::clone(&self.members.get(index).name);
                    out.push(Action::Report(Report::Resumed { member, name }));
                }
            }
            Event::Wake => self.wake(now, out),
            Event::Committed(change) => self.committed(change),
            Event::Settled { first, count } => {
                for number in first.get()..first.get() + u64::from(count) {
                    self.committed(&Change::Settled { offset: Offset::new(number) });
                }
            }
        }
    }

    /// Delivers one message, if there is one to deliver and somebody to deliver it to; says whether.
    /// To be called until it says no, after each event: then nothing that could be delivered is left.
    ///
    /// `may_have` says whether more may be sent to a member now. One of which it says no is paused: it
    /// gets nothing until [`Event::Resume`].
    pub fn hand_out(
        &mut self,
        now: Now,
        mut may_have: impl FnMut(ConnId) -> bool,
        out: &mut Vec<Action>,
    ) -> bool {
        if !self.members.has_room() {
            return false;
        }
        let Some(slot) = self.leases.first_ready().or_else(|| self.take_new()) else {
            return false;
        };
        let Some(holder) = self.holder(self.leases.get(slot).last, &mut may_have, out) else {
            self.put_new_back(slot);
            return false;
        };
        self.deliver(now, slot, holder, out);
        true
    }

    /// The next message that was never given out, in memory.
    #[inline]
    fn take_new(&mut self) -> Option<Slot> {
        loop {
            let offset = self.new_at()?;
            self.next = offset.next();
            // It is there already if it was acknowledged late, before it was given out again.
            if let Some(slot) = self.leases.insert(self.known(offset)) {
                return Some(slot);
            }
        }
    }

    /// What [`Group::take_new`] took is not given out after all.
    fn put_new_back(&mut self, slot: Slot) {
        let message = self.leases.get(slot);
        if message.state() == State::New {
            self.next = message.offset;
            self.leases.remove(slot);
        }
    }

    /// Who gets the next message, another than `last` if possible. Those who may not have it are
    /// paused.
    fn holder(
        &mut self,
        last: Option<ConnId>,
        may_have: &mut impl FnMut(ConnId) -> bool,
        out: &mut Vec<Action>,
    ) -> Option<MemberIndex> {
        loop {
            let index = self.members.in_turn(last)?;
            let Member { id: member, name, .. } = self.members.get(index);
            if may_have(*member) {
                return Some(index);
            }
            let (member, name) = (*member, Arc::clone(name));
            out.push(Action::Report(Report::Paused { member, name }));
            self.members.pause(index);
        }
    }

    /// When to send the next [`Event::Wake`]. A wake at or after this moment always does something,
    /// and nothing is due before it.
    pub fn wake_at(&self) -> Option<Moment> {
        self.leases.next_due()
    }

    /// The durable part.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The durable part, without the rest: to start over as another [`Group`].
    pub fn into_progress(self) -> Progress {
        self.progress
    }

    /// The settings.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Other settings, for everything that happens from now on. A lease keeps its deadline.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// What is known of a message.
    pub fn look(&self, offset: Offset) -> Look {
        let Some(slot) = self.leases.find(offset) else {
            let is_unsettled = !self.attempts(offset).is_empty();
            return Look { is_unsettled, holder: None, last: None, mark: None };
        };
        let message = self.leases.get(slot);
        let holder = match message.state() {
            State::Leased(lease) => Some(self.members.get(lease.holder).id),
            State::New | State::Ready | State::Waiting { .. } => None,
            State::Settling | State::Dying => None,
        };
        let was_sent = |_: &ConnId| !message.is_unsent;
        let (holder, last) = (holder.filter(was_sent), message.last.filter(was_sent));
        let mark = message.mark;
        Look { is_unsettled: message.is_open(), holder, last, mark }
    }

    /// The durable attempts of an unsettled message, oldest first.
    pub fn attempts(&self, offset: Offset) -> &[Attempt] {
        self.progress.attempts(offset)
    }

    /// Attaches a number to a message that was delivered and is not settled; it is forgotten with
    /// the message. Does nothing for any other.
    pub fn remember(&mut self, offset: Offset, mark: u64) {
        if let Some(slot) = self.leases.find(offset) {
            self.leases.get_mut(slot).mark = Some(mark);
        }
    }

    /// Whether some member has credit and is not paused: a message that became ready now would be
    /// delivered now.
    pub fn has_room(&self) -> bool {
        self.members.has_room()
    }

    /// How many members take part.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The members in order of joining: connection, name, prefetch and how many messages each holds.
    pub fn each_member(&self) -> impl Iterator<Item = (ConnId, &str, u32, usize)> {
        self.members.iter().map(|m| (m.id, &*m.name, m.prefetch(), m.held().len()))
    }

    /// Those that get nothing before [`Event::Resume`], in order of joining.
    pub fn paused(&self) -> impl Iterator<Item = ConnId> {
        self.members.iter().filter(|member| member.is_paused()).map(|member| member.id)
    }

    /// The offsets that a member holds, in order.
    pub fn held_by(&self, member: ConnId) -> Vec<Offset> {
        let Some(index) = self.members.find(member) else { return Vec::new() };
        let held = self.members.get(index).held().iter();
        let mut offsets: Vec<_> = held.map(|slot| self.leases.get(*slot).offset).collect();
        offsets.sort_unstable();
        offsets
    }

    /// How many messages are in each state.
    pub fn counts(&self) -> Counts {
        self.leases.counts()
    }

    /// How many messages were given out and are not durably settled.
    pub fn unsettled(&self) -> usize {
        self.leases.len()
    }

    #[cfg(test)]
    pub(super) fn memory_slots(&self) -> usize {
        self.leases.slots()
    }

    /// How many of the messages up to `end` are not durably settled.
    pub fn lag(&self, end: Offset) -> u64 {
        self.progress.lag(end)
    }

    /// Whether members wait for credit: there is a message that would be delivered if one of them
    /// acknowledged another.
    pub fn is_starved(&self) -> bool {
        let has_more = || self.next <= self.end || self.leases.first_ready().is_some();
        !self.members.has_room() && self.members.len() > 0 && has_more()
    }

    /// Whether a message could be delivered and was not: never, when [`Group::hand_out`] has said no.
    /// For a metric.
    pub fn is_stuck(&self) -> bool {
        self.members.has_room() && (self.leases.first_ready().is_some() || self.new_at().is_some())
    }

    fn join(&mut self, id: ConnId, name: Arc<str>, prefetch: u32, out: &mut Vec<Action>) {
        match self.members.find(id) {
            Some(index) => {
                self.members.rename(index, name);
                self.members.set_prefetch(index, prefetch);
            }
            None => {
                out.push(Action::Report(Report::Joined {
                    member: id,
                    name: name.clone(),
                    prefetch,
                }));
                self.members.join(id, name, prefetch);
            }
        }
    }

    fn leave(&mut self, now: Now, member: ConnId, why: Departure, out: &mut Vec<Action>) {
        let Some(index) = self.members.find(member) else { return };
        let name = self.members.get(index).name.clone();
        let mut held = self.members.get(index).held().to_vec();
        held.sort_unstable_by_key(|slot| self.leases.get(*slot).offset);
        let count = held.len();
        let (report, outcome) = match why {
            Departure::Closed => (Report::Left { member, name, held: count }, Outcome::Disconnect),
            Departure::Silent => (Report::Dead { member, name, held: count }, Outcome::Dead),
        };
        out.push(Action::Report(report));
        for slot in held {
            if self.leases.get(slot).is_unsent {
                self.take_back(slot);
                continue;
            }
            self.fail(now, slot, Failure::from(outcome), out);
        }
        self.members.leave(index);
    }

    fn ack(&mut self, member: ConnId, offset: Offset, out: &mut Vec<Action>) {
        let slot = match self.leases.find(offset) {
            Some(slot) if self.leases.get(slot).is_open() => Some(slot),
            // It was tried before a restart, and not given out since.
            None if !self.attempts(offset).is_empty() => self.leases.insert(self.known(offset)),
            _ => None,
        };
        let is_taken =
            |slot: &Slot| !planted::has(Bug::RetryRefused) || self.leases.get(*slot).attempts == 0;
        let Some(slot) = slot.filter(is_taken) else {
            return out.push(Action::Answer(Verdict::NotPending));
        };
        let holder = self.end_lease(slot).map(|lease| self.members.get(lease.holder));
        self.leases.set(slot, State::Settling);
        let late = holder.is_none_or(|holder| holder.id != member);
        out.push(Action::Answer(Verdict::Acked { late }));
        out.push(Action::Commit(Change::Settled { offset }));
        if late {
            let holder = holder.map(|holder| holder.name.clone());
            out.push(Action::Report(Report::LateAck { offset, member, holder }));
        }
    }

    fn nack(
        &mut self,
        now: Now,
        member: ConnId,
        offset: Offset,
        failure: Failure,
        out: &mut Vec<Action>,
    ) {
        match self.held(member, offset) {
            Some((slot, _)) => {
                let at = out.len();
                let verdict = self.fail(now, slot, failure, out);
                out.insert(at, Action::Answer(verdict));
            }
            None => out.push(Action::Answer(Verdict::NotPending)),
        }
    }

    fn touch(
        &mut self,
        now: Now,
        member: ConnId,
        offset: Offset,
        time: Option<Duration>,
        out: &mut Vec<Action>,
    ) {
        let verdict = match self.held(member, offset) {
            Some((slot, lease)) => {
                let until = now.moment + time.unwrap_or(self.policy.ack_timeout);
                self.leases.set(slot, State::Leased(Lease { until, ..lease }));
                Verdict::Touched { until }
            }
            None => Verdict::NotPending,
        };
        out.push(Action::Answer(verdict));
    }

    /// Handles what is due by now, the lowest offset first; what is left of it when many messages are given
    /// up is due still.
    fn wake(&mut self, now: Now, out: &mut Vec<Action>) {
        let mut due = self.leases.due(now.moment);
        due.sort_unstable_by_key(|slot| self.leases.get(*slot).offset);
        let dying = self.counts().dying;
        for slot in due {
            if self.counts().dying == dying + DEAD_LETTERS_AT_ONCE {
                return;
            }
            match self.leases.get(slot).state() {
                State::Waiting { .. } => self.leases.set(slot, State::Ready),
                State::Leased(_) if self.leases.get(slot).is_unsent => self.take_back(slot),
                State::Leased(_) => {
                    self.fail(now, slot, Failure::from(Outcome::Timeout), out);
                }
                state @ (State::New | State::Ready | State::Settling | State::Dying) => {
                    unreachable!("nothing is due of a message that is {state:?}")
                }
            }
        }
    }

    fn committed(&mut self, change: &Change) {
        self.progress.apply(change);
        match change {
            Change::Settled { offset } | Change::DeadLettered { offset, .. } => {
                if let Some(slot) = self.leases.find(*offset) {
                    self.forget(slot);
                }
            }
            // It moved when the group asked for this; if it did not ask, it never gave it out.
            Change::Failed { offset, attempt } => self.unsaved.saved(*offset, attempt.n),
        }
        self.next = self.next.max(self.progress.floor().next());
    }

    fn skip_to(&mut self, first: Offset) {
        self.progress.skip_to(first);
        let gone = |(slot, message): (Slot, &Message)| (message.offset < first).then_some(slot);
        let gone: Vec<Slot> = self.leases.iter().filter_map(gone).collect();
        for slot in gone {
            self.forget(slot);
        }
        self.next = self.next.max(self.progress.floor().next());
    }

    /// Ends a delivery in vain: the message is ready, waiting, or given up.
    fn fail(&mut self, now: Now, slot: Slot, failure: Failure, out: &mut Vec<Action>) -> Verdict {
        let Failure { outcome, reason, error, uncounted, delay, dead } = failure;
        let lease = match self.leases.get(slot).state() {
            State::Leased(lease) if planted::has(Bug::LeaseKept) && outcome == Outcome::Timeout => {
                lease
            }
            _ => self.end_lease(slot).expect("only a leased message fails"),
        };
        let name = self.members.get(lease.holder).name.clone();
        let message = self.leases.get_mut(slot);
        let offset = message.offset;
        message.attempts = message.attempts.saturating_add(1);
        let attempt = Attempt {
            n: message.attempts,
            consumer: name.to_string(),
            sent: lease.sent,
            ended: now.wall,
            outcome,
            reason,
            error,
            uncounted,
        };
        let delay = delay.unwrap_or_else(|| self.policy.delay_after(message.failures));
        message.failures = message.failures.saturating_add(u32::from(attempt.counts()));
        let (retry, mut of) = (message.failures, self.policy.max_retries);
        if planted::has(Bug::DeadLetterEarly) {
            of -= 1;
        }
        if dead || (attempt.counts() && retry > of) {
            return self.give_up(slot, name, attempt, out);
        }
        self.unsaved.add(offset, attempt.clone());
        out.push(Action::Commit(Change::Failed { offset, attempt }));
        match outcome {
            Outcome::Disconnect | Outcome::Dead => {
                self.leases.get_mut(slot).orphan_of = Some(name);
                self.leases.set(slot, State::Ready);
            }
            Outcome::Timeout | Outcome::Nack => {
                out.push(Action::Report(Report::Retry { offset, name, outcome, retry, of, delay }));
                let until = now.moment + delay;
                let ready = until <= now.moment;
                self.leases.set(slot, if ready { State::Ready } else { State::Waiting { until } });
            }
        }
        Verdict::Nacked { retry, of, delay }
    }

    fn deliver(&mut self, now: Now, slot: Slot, holder: MemberIndex, out: &mut Vec<Action>) {
        let message = self.leases.get_mut(slot);
        self.members.end_turn(holder);
        let place = self.members.hold(holder, slot);
        let Member { id, name, .. } = self.members.get(holder);
        if let Some(from) = message.orphan_of.take() {
            let (offset, to) = (message.offset, name.clone());
            out.push(Action::Report(Report::Redistributed { offset, from, to }));
        }
        (message.last, message.is_unsent) = (Some(*id), false);
        let attempt = message.attempts.saturating_add(1);
        let failures_left = self.policy.max_retries.saturating_sub(message.failures);
        let until = now.moment + self.policy.ack_timeout;
        out.push(Action::Deliver {
            member: *id,
            offset: message.offset,
            attempt,
            of: attempt.saturating_add(failures_left),
            until,
        });
        self.leases.set(slot, State::Leased(Lease { holder, place, sent: now.wall, until }));
    }

    /// The next message that was never given out, if another may be.
    fn new_at(&self) -> Option<Offset> {
        let is_bound = !planted::has(Bug::MemoryUnbounded);
        if is_bound && self.leases.len() >= self.policy.unsettled_max {
            return None;
        }
        let beyond = self.next > self.progress.settled_up_to();
        let offset = if beyond { self.next } else { self.progress.unsettled_from(self.next) };
        (offset <= self.end).then_some(offset)
    }

    /// A message that is not held in memory yet, with what is durably known of it.
    fn known(&self, offset: Offset) -> Message {
        let attempts = self.progress.attempts(offset).last().map_or(0, |attempt| attempt.n);
        Message::new(offset, attempts, self.progress.failures(offset))
    }

    fn held(&self, member: ConnId, offset: Offset) -> Option<(Slot, Lease)> {
        let slot = self.leases.find(offset).filter(|slot| !self.leases.get(*slot).is_unsent)?;
        match self.leases.get(slot).state() {
            State::Leased(lease) if self.members.get(lease.holder).id == member => {
                Some((slot, lease))
            }
            State::Leased(_) | State::New | State::Ready | State::Waiting { .. } => None,
            State::Settling | State::Dying => None,
        }
    }

    /// Gives the credit for a message back, if it is leased. Its state is left to the caller.
    fn end_lease(&mut self, slot: Slot) -> Option<Lease> {
        let State::Leased(lease) = self.leases.get(slot).state() else { return None };
        if let Some(moved) = self.members.put_back(lease.holder, lease.place) {
            self.leases.set_place(moved, lease.place);
        }
        Some(lease)
    }

    /// Drops a message that is settled, whatever its state was.
    fn forget(&mut self, slot: Slot) {
        self.end_lease(slot);
        let message = self.leases.remove(slot);
        self.unsaved.forget(message.offset);
    }
}
