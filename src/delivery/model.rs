//! A group as one would write it on a napkin: one list of messages, one of members, and every
//! question answered by looking at all of them. Far too slow, and plainly what `mod.rs` says. The
//! random tests hold the real one against it, action by action.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::ids::{ConnId, Offset};
use crate::limits::DEAD_LETTERS_AT_ONCE;
use crate::time::{Moment, Now, Timestamp};

/// How many more messages may be sent to members; to others, any number.
pub(super) type Rooms = BTreeMap<ConnId, u32>;

/// The log of a model is never longer.
pub(super) const OFFSETS_MAX: u64 = 60;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum State {
    New,
    Ready,
    Leased { member: ConnId, sent: Timestamp, until: Moment },
    Waiting { until: Moment },
    Settling,
    Dying,
    Settled,
}

#[derive(Clone)]
pub(super) struct Message {
    pub(super) state: State,
    pub(super) durable: Vec<Attempt>,
    local: Vec<Attempt>,
    last: Option<ConnId>,
    pub(super) is_unsent: bool,
    orphan_of: Option<Arc<str>>,
}

#[derive(Clone)]
pub(super) struct Member {
    pub(super) id: ConnId,
    pub(super) name: Arc<str>,
    pub(super) prefetch: u32,
    seat: u64,
    pub(super) is_paused: bool,
}

pub(super) struct Model {
    policy: Policy,
    /// Message `n` stands at `n - 1`.
    pub(super) messages: Vec<Message>,
    pub(super) members: Vec<Member>,
    seats: u64,
    served: u64,
    pub(super) end: u64,
}

impl Model {
    pub(super) fn new(policy: Policy) -> Model {
        let fresh = Message {
            state: State::New,
            durable: Vec::new(),
            local: Vec::new(),
            last: None,
            is_unsent: false,
            orphan_of: None,
        };
        let messages = vec![fresh; usize::try_from(OFFSETS_MAX).unwrap()];
        Model { policy, messages, members: Vec::new(), seats: 0, served: 0, end: 0 }
    }

    /// Forgets all that is not durable.
    pub(super) fn restart(&mut self) {
        for message in &mut self.messages {
            message.local = message.durable.clone();
            (message.last, message.orphan_of, message.is_unsent) = (None, None, false);
            if message.state != State::Settled {
                message.state = State::New;
            }
        }
        self.members.clear();
        (self.seats, self.served, self.end) = (0, 0, 0);
    }

    fn at(&mut self, offset: Offset) -> &mut Message {
        &mut self.messages[usize::try_from(offset.get()).unwrap() - 1]
    }

    pub(super) fn get(&self, offset: Offset) -> Option<&Message> {
        self.messages.get(usize::try_from(offset.get()).unwrap().checked_sub(1)?)
    }

    /// The offsets in a state that `wanted` likes, lowest first.
    pub(super) fn offsets(&self, wanted: impl Fn(State) -> bool) -> Vec<Offset> {
        (1..=OFFSETS_MAX)
            .map(Offset::new)
            .filter(|offset| self.get(*offset).is_some_and(|message| wanted(message.state)))
            .collect()
    }

    pub(super) fn held_by(&self, id: ConnId) -> Vec<Offset> {
        self.offsets(|state| matches!(state, State::Leased { member, .. } if member == id))
    }

    pub(super) fn not_sent(&mut self, offset: Offset) {
        let message = self.at(offset);
        message.is_unsent = matches!(message.state, State::Leased { .. });
    }

    pub(super) fn unsettled(&self) -> Vec<Offset> {
        self.offsets(|state| !matches!(state, State::New | State::Settled))
    }

    pub(super) fn can_be_acked(&self, offset: Offset) -> bool {
        self.get(offset).is_some_and(|message| match message.state {
            State::Ready | State::Leased { .. } | State::Waiting { .. } => true,
            State::New => !message.durable.is_empty(),
            State::Settling | State::Dying | State::Settled => false,
        })
    }

    pub(super) fn wake_at(&self) -> Option<Moment> {
        let due = |message: &Message| match message.state {
            State::Leased { until, .. } | State::Waiting { until } => Some(until),
            State::New | State::Ready | State::Settling | State::Dying | State::Settled => None,
        };
        self.messages.iter().filter_map(due).min()
    }

    fn members(&mut self, id: ConnId) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().filter(move |member| member.id == id)
    }

    fn name(&self, id: ConnId) -> Arc<str> {
        self.members.iter().find(|member| member.id == id).unwrap().name.clone()
    }

    pub(super) fn on(&mut self, now: Now, event: Event<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Join { member, name, prefetch } => {
                if let Some(known) = self.members.iter_mut().find(|known| known.id == member) {
                    (known.name, known.prefetch) = (name, prefetch);
                } else {
                    self.seats += 1;
                    let seat = self.seats;
                    out.push(Action::Report(Report::Joined {
                        member,
                        name: name.clone(),
                        prefetch,
                    }));
                    self.members.push(Member {
                        id: member,
                        name,
                        prefetch,
                        seat,
                        is_paused: false,
                    });
                }
            }
            Event::Leave { member, why } => self.leave(now, member, why, &mut out),
            Event::LogEnd { end } => self.end = self.end.max(end.get()),
            Event::LogStart { first } => {
                for offset in (1..first.get()).map(Offset::new) {
                    self.settle(offset);
                }
            }
            Event::Ack { member, offset } => self.ack(member, offset, &mut out),
            Event::Nack { member, offset, delay, reason, error, counts, dead } => {
                if self.held_by(member).contains(&offset) && !self.at(offset).is_unsent {
                    let attempt = self.attempt(now, offset, Outcome::Nack);
                    let attempt = Attempt { reason, error, uncounted: !counts, ..attempt };
                    let (verdict, then) = self.fail(now, offset, attempt, delay, dead);
                    out.push(Action::Answer(verdict));
                    out.extend(then);
                } else {
                    out.push(Action::Answer(Verdict::NotPending));
                }
            }
            Event::Touch { member, offset, time } => {
                let until = now.moment + time.unwrap_or(self.policy.ack_timeout);
                let message = self.at(offset);
                let was_sent = !message.is_unsent;
                let verdict = match &mut message.state {
                    State::Leased { member: holder, until: old, .. }
                        if *holder == member && was_sent =>
                    {
                        *old = until;
                        Verdict::Touched { until }
                    }
                    _ => Verdict::NotPending,
                };
                out.push(Action::Answer(verdict));
            }
            Event::SetPrefetch { member, prefetch } => {
                self.members(member).for_each(|known| known.prefetch = prefetch);
            }
            Event::Resume { member } => self.resume(member, &mut out),
            Event::Wake => self.wake(now, &mut out),
            Event::Committed(change) => self.committed(change),
            Event::Settled { first, count } => {
                for number in first.get()..first.get() + u64::from(count) {
                    self.settle(Offset::new(number));
                }
            }
        }
        out
    }

    fn resume(&mut self, member: ConnId, out: &mut Vec<Action>) {
        for known in self.members(member).filter(|known| known.is_paused) {
            known.is_paused = false;
            let name = known.name.clone();
            out.push(Action::Report(Report::Resumed { member, name }));
        }
    }

    fn leave(&mut self, now: Now, member: ConnId, why: Departure, out: &mut Vec<Action>) {
        if !self.members.iter().any(|known| known.id == member) {
            return;
        }
        let held = self.held_by(member);
        let (name, count) = (self.name(member), held.len());
        let (report, outcome) = match why {
            Departure::Closed => (Report::Left { member, name, held: count }, Outcome::Disconnect),
            Departure::Silent => (Report::Dead { member, name, held: count }, Outcome::Dead),
        };
        out.push(Action::Report(report));
        for offset in held {
            if self.at(offset).is_unsent {
                self.at(offset).state = State::Ready;
                continue;
            }
            let attempt = self.attempt(now, offset, outcome);
            let name = self.name(member);
            let message = self.at(offset);
            message.local.push(attempt.clone());
            message.state = State::Ready;
            message.orphan_of = Some(name);
            out.push(Action::Commit(Change::Failed { offset, attempt }));
        }
        self.members.retain(|known| known.id != member);
    }

    fn ack(&mut self, member: ConnId, offset: Offset, out: &mut Vec<Action>) {
        if !self.can_be_acked(offset) {
            out.push(Action::Answer(Verdict::NotPending));
            return;
        }
        let holder = match self.at(offset).state {
            State::Leased { member, .. } => Some(member),
            _ => None,
        };
        let late = holder != Some(member);
        out.push(Action::Answer(Verdict::Acked { late }));
        out.push(Action::Commit(Change::Settled { offset }));
        if late {
            let holder = holder.map(|holder| self.name(holder));
            out.push(Action::Report(Report::LateAck { offset, member, holder }));
        }
        self.at(offset).state = State::Settling;
    }

    fn wake(&mut self, now: Now, out: &mut Vec<Action>) {
        let is_dead =
            |action: &&Action| matches!(action, Action::Commit(Change::DeadLettered { .. }));
        for offset in (1..=OFFSETS_MAX).map(Offset::new) {
            if out.iter().filter(is_dead).count() == DEAD_LETTERS_AT_ONCE {
                return;
            }
            let message = self.at(offset);
            let is_unsent = message.is_unsent;
            match message.state {
                State::Leased { until, .. } if until <= now.moment && is_unsent => {
                    self.at(offset).state = State::Ready;
                }
                State::Leased { until, .. } if until <= now.moment => {
                    let attempt = self.attempt(now, offset, Outcome::Timeout);
                    out.extend(self.fail(now, offset, attempt, None, false).1);
                }
                State::Waiting { until } if until <= now.moment => {
                    self.at(offset).state = State::Ready;
                }
                _ => {}
            }
        }
    }

    fn committed(&mut self, change: &Change) {
        match change {
            Change::Settled { offset } | Change::DeadLettered { offset, .. } => {
                self.settle(*offset);
            }
            Change::Failed { offset, attempt } => {
                let message = self.at(*offset);
                if message.state != State::Settled {
                    message.durable.push(attempt.clone());
                    if message.state == State::New {
                        message.local.push(attempt.clone());
                    }
                }
            }
        }
    }

    fn settle(&mut self, offset: Offset) {
        let message = self.at(offset);
        message.state = State::Settled;
        message.durable.clear();
    }

    fn attempt(&mut self, now: Now, offset: Offset, outcome: Outcome) -> Attempt {
        let State::Leased { member, sent, .. } = self.at(offset).state else {
            panic!("{offset} is not leased");
        };
        Attempt {
            n: u32::try_from(self.at(offset).local.len()).unwrap() + 1,
            consumer: self.name(member).to_string(),
            sent,
            ended: now.wall,
            outcome,
            reason: None,
            error: None,
            uncounted: false,
        }
    }

    /// A timeout or a nack.
    fn fail(
        &mut self,
        now: Now,
        offset: Offset,
        attempt: Attempt,
        delay: Option<Duration>,
        dead: bool,
    ) -> (Verdict, Vec<Action>) {
        let name: Arc<str> = attempt.consumer.as_str().into();
        let (outcome, attempts) = (attempt.outcome, attempt.n);
        let (of, dead_letters) = (self.policy.max_retries, self.policy.dead_letters);
        let before = counted(&self.at(offset).local);
        let delay = delay.unwrap_or_else(|| self.policy.delay_after(before));
        self.at(offset).local.push(attempt.clone());
        let retry = counted(&self.at(offset).local);
        if dead || (retry > before && retry == of + 1) {
            if dead_letters {
                self.at(offset).state = State::Dying;
                let report = Report::DeadLettering { offset, name, outcome, attempts };
                let commit = Change::DeadLettered { offset, attempt };
                (Verdict::DeadLettering, vec![Action::Commit(commit), Action::Report(report)])
            } else {
                self.at(offset).state = State::Settling;
                let report = Report::GaveUp { offset, name, outcome, attempts };
                let commit = Change::Settled { offset };
                (Verdict::GaveUp, vec![Action::Commit(commit), Action::Report(report)])
            }
        } else {
            let until = now.moment + delay;
            let ready = delay.is_zero();
            self.at(offset).state = if ready { State::Ready } else { State::Waiting { until } };
            let report = Report::Retry { offset, name, outcome, retry, of, delay };
            let commit = Change::Failed { offset, attempt };
            let verdict = Verdict::Nacked { retry, of, delay };
            (verdict, vec![Action::Commit(commit), Action::Report(report)])
        }
    }

    /// One message, if any; a member for which `rooms` has no more is paused.
    pub(super) fn hand_out(&mut self, now: Now, rooms: &Rooms, out: &mut Vec<Action>) -> bool {
        self.deliver_one(now, rooms, out).is_some()
    }

    fn deliver_one(&mut self, now: Now, rooms: &Rooms, out: &mut Vec<Action>) -> Option<()> {
        let ready = self.offsets(|state| state == State::Ready);
        let new = self.offsets(|state| state == State::New);
        let may_start = self.unsettled().len() < self.policy.unsettled_max;
        let new = new.into_iter().filter(|offset| may_start && offset.get() <= self.end);
        let offset = ready.into_iter().chain(new).next()?;

        let mut in_turn = self.members.clone();
        in_turn.sort_by_key(|member| (member.seat <= self.served, member.seat));
        in_turn.retain(|member| self.held_by(member.id).len() < member.prefetch as usize);
        in_turn.retain(|member| !member.is_paused);
        let last = self.at(offset).last;
        let other = in_turn.iter().find(|member| Some(member.id) != last);
        let Member { id, name, seat, .. } = other.or(in_turn.first())?.clone();
        if rooms.get(&id) == Some(&0) {
            self.members(id).for_each(|known| known.is_paused = true);
            out.push(Action::Report(Report::Paused { member: id, name }));
            return self.deliver_one(now, rooms, out);
        }
        self.served = seat;

        let (until, max_retries) = (now.moment + self.policy.ack_timeout, self.policy.max_retries);
        let message = self.at(offset);
        if let Some(from) = message.orphan_of.take() {
            out.push(Action::Report(Report::Redistributed { offset, from, to: name }));
        }
        let tried = u32::try_from(message.local.len()).unwrap();
        let of = max_retries + 1 + (tried - counted(&message.local));
        message.state = State::Leased { member: id, sent: now.wall, until };
        (message.last, message.is_unsent) = (Some(id), false);
        out.push(Action::Deliver { member: id, offset, attempt: tried + 1, of, until });
        Some(())
    }
}

pub(super) fn counted(attempts: &[Attempt]) -> u32 {
    u32::try_from(attempts.iter().filter(|attempt| attempt.counts()).count()).unwrap()
}
