//! Random lives of a group against a model that is too simple to be wrong: a list of messages,
//! looked through from the front for every question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::{Now, Timestamp};

const MAX_RETRIES: u32 = 2;
const TIMEOUT: Duration = Duration::from_secs(10);
const UNSETTLED_MAX: usize = 12;

#[derive(Clone, Debug)]
enum Op {
    Join(u64, u32),
    Leave(u64),
    Silent(u64),
    Publish(u64),
    Ack(u64, u64),
    Nack(u64, u64),
    GiveBack(u64, u64),
    Pass(u64),
    Commit(usize),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let member = 1..5u64;
    let offset = 1..30u64;
    prop_oneof![
        3 => (member.clone(), 0..4u32).prop_map(|(m, c)| Op::Join(m, c)),
        1 => member.clone().prop_map(Op::Leave),
        1 => member.clone().prop_map(Op::Silent),
        3 => (1..4u64).prop_map(Op::Publish),
        8 => (member.clone(), offset.clone()).prop_map(|(m, o)| Op::Ack(m, o)),
        2 => (member.clone(), offset.clone()).prop_map(|(m, o)| Op::Nack(m, o)),
        1 => (member, offset).prop_map(|(m, o)| Op::GiveBack(m, o)),
        4 => (0..15u64).prop_map(Op::Pass),
        6 => (1..5usize).prop_map(Op::Commit),
        1 => Just(Op::Restart),
    ]
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum At {
    Log,
    Ready,
    Leased(u64, Moment),
    Waiting(Moment),
    Ending,
    Settled,
}

#[derive(Clone, Debug)]
struct Message {
    at: At,
    last: Option<u64>,
    counted: u32,
    /// What survives a restart.
    durable_counted: u32,
    durable_settled: bool,
    was_tried: bool,
}

/// The model: what the words of the design say, without any index.
#[derive(Default)]
struct Model {
    messages: Vec<Message>,
    members: Vec<(u64, u32, u64)>,
    joined: u64,
    turn: u64,
    now: Moment,
    /// What was delivered since it was last asked: member and offset.
    delivered: Vec<(u64, u64)>,
}

impl Model {
    fn credit(&self, member: u64) -> bool {
        let held =
            self.messages.iter().filter(|m| matches!(m.at, At::Leased(by, _) if by == member));
        let known = self.members.iter().find(|(id, ..)| *id == member);
        known.is_some_and(|(_, prefetch, _)| held.count() < *prefetch as usize)
    }

    fn dispatch(&mut self) {
        loop {
            let unsettled =
                self.messages.iter().filter(|m| !matches!(m.at, At::Log | At::Settled)).count();
            let ready = self.messages.iter().position(|m| m.at == At::Ready);
            let fresh = self.messages.iter().position(|m| m.at == At::Log);
            let fresh = fresh.filter(|_| unsettled < UNSETTLED_MAX);
            let Some(index) = ready.or(fresh) else { return };
            // Whose turn: the next place after the last one's, then from the first again.
            let mut free: Vec<_> =
                self.members.iter().filter(|(id, ..)| self.credit(*id)).copied().collect();
            free.sort_by_key(|(_, _, place)| (*place <= self.turn, *place));
            let last = self.messages[index].last.filter(|_| ready.is_some());
            let other = free.iter().find(|(id, ..)| Some(*id) != last);
            let Some((member, _, place)) = other.or(free.first()).copied() else { return };
            self.turn = place;
            let message = &mut self.messages[index];
            message.at = At::Leased(member, self.now + TIMEOUT);
            message.last = Some(member);
            self.delivered.push((member, index as u64 + 1));
        }
    }

    fn leave(&mut self, member: u64) {
        self.members.retain(|(id, ..)| *id != member);
        for message in &mut self.messages {
            if matches!(message.at, At::Leased(by, _) if by == member) {
                message.at = At::Ready;
                message.was_tried = true;
            }
        }
    }

    fn fail(&mut self, index: usize) {
        let now = self.now;
        let message = &mut self.messages[index];
        message.counted += 1;
        message.was_tried = true;
        message.at = if message.counted > MAX_RETRIES {
            At::Ending
        } else {
            At::Waiting(now + Duration::from_secs(u64::from(message.counted)))
        };
    }

    fn wake(&mut self) {
        for index in 0..self.messages.len() {
            match self.messages[index].at {
                At::Waiting(until) if until <= self.now => self.messages[index].at = At::Ready,
                _ => {}
            }
        }
        for index in 0..self.messages.len() {
            if matches!(self.messages[index].at, At::Leased(_, until) if until <= self.now) {
                self.fail(index);
            }
        }
    }

    fn restart(&mut self) {
        for message in &mut self.messages {
            message.counted = message.durable_counted;
            message.last = None;
            message.at = match (message.durable_settled, message.was_tried) {
                (true, _) => At::Settled,
                (false, true) => At::Ready,
                (false, false) => At::Log,
            };
        }
        (self.members, self.turn, self.joined) = (Vec::new(), 0, 0);
    }
}

/// The group and the model, side by side.
struct Pair {
    group: Group,
    policy: Arc<Policy>,
    model: Model,
    pending: Vec<Change>,
    acked: BTreeSet<u64>,
    tries: BTreeMap<u64, u32>,
}

impl Pair {
    fn new() -> Self {
        let policy = Arc::new(Policy {
            ack_timeout: TIMEOUT,
            max_retries: MAX_RETRIES,
            backoff: vec![Duration::from_secs(1), Duration::from_secs(2)],
            dead_letters: true,
            unsettled_max: UNSETTLED_MAX,
        });
        let group = Group::new(Arc::clone(&policy), Progress::starting_at(Offset::FIRST));
        let (pending, acked, tries) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        Self { group, policy, model: Model::default(), pending, acked, tries }
    }

    fn on(&mut self, event: Event<'_>) -> Option<Verdict> {
        let mut actions = Vec::new();
        let now = Now { moment: self.model.now, wall: Timestamp::from_micros(1) };
        self.group.on(now, event, &mut actions);
        self.group.check();
        self.model.dispatch();
        let mut delivered = Vec::new();
        let mut verdict = None;
        for action in actions {
            match action {
                Action::Deliver { member, offset, attempt, of, .. } => {
                    assert!(attempt <= of, "never more tries than there are");
                    assert!(!self.acked.contains(&offset.get()), "settled for good");
                    delivered.push((member.0, offset.get()));
                }
                Action::Commit(change) => self.pending.push(change),
                Action::Answer(answer) => verdict = Some(answer),
                Action::Report(_) => {}
            }
        }
        assert_eq!(delivered, std::mem::take(&mut self.model.delivered));
        verdict
    }

    fn commit(&mut self, count: usize) {
        for _ in 0..count.min(self.pending.len()) {
            let change = self.pending.remove(0);
            match &change {
                Change::Settled { offset } => {
                    self.acked.insert(offset.get());
                    self.settled(*offset);
                }
                Change::DeadLettered { offset, .. } => {
                    let tries = self.tries.get(&offset.get()).copied().unwrap_or_default();
                    assert_eq!(tries, MAX_RETRIES, "dead exactly at the last try");
                    self.settled(*offset);
                }
                Change::Failed { offset, attempt } => {
                    let message = &mut self.model.messages[offset.get() as usize - 1];
                    if attempt.outcome.counts() {
                        message.durable_counted += 1;
                        *self.tries.entry(offset.get()).or_default() += 1;
                    }
                }
            }
            self.on(Event::Committed(&change));
        }
    }

    fn settled(&mut self, offset: Offset) {
        let message = &mut self.model.messages[offset.get() as usize - 1];
        message.at = At::Settled;
        message.durable_settled = true;
    }

    fn pass(&mut self, time: Duration) {
        let end = self.model.now + time;
        while let Some(at) = self.group.wake_at().filter(|at| *at <= end) {
            self.model.now = at;
            self.model.wake();
            self.on(Event::Wake);
            assert!(self.group.wake_at().is_none_or(|next| next > at), "a wake makes progress");
        }
        self.model.now = end;
        let due = |m: &Message| matches!(m.at, At::Leased(_, at) | At::Waiting(at) if at <= end);
        assert!(!self.model.messages.iter().any(due), "no wake-up was lost");
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Join(member, prefetch) => {
                let held = self.model.messages.iter();
                let held =
                    held.filter(|m| matches!(m.at, At::Leased(by, _) if by == member)).count();
                // A smaller credit than what is held is another story.
                let prefetch = prefetch.max(u32::try_from(held).unwrap());
                match self.model.members.iter_mut().find(|(id, ..)| *id == member) {
                    Some(known) => known.1 = prefetch,
                    None => {
                        self.model.joined += 1;
                        self.model.members.push((member, prefetch, self.model.joined));
                    }
                }
                let name = Arc::from(format!("m{member}"));
                self.on(Event::Join { member: ConnId(member), name, prefetch });
            }
            Op::Leave(member) => {
                self.model.leave(member);
                self.on(Event::Leave { member: ConnId(member), why: Departure::Closed });
            }
            Op::Silent(member) => {
                self.model.leave(member);
                self.on(Event::Leave { member: ConnId(member), why: Departure::Silent });
            }
            Op::Publish(count) => {
                for _ in 0..count {
                    self.model.messages.push(Message {
                        at: At::Log,
                        last: None,
                        counted: 0,
                        durable_counted: 0,
                        durable_settled: false,
                        was_tried: false,
                    });
                }
                let end = Offset::new(self.model.messages.len() as u64);
                self.on(Event::LogEnd { end });
            }
            Op::Ack(member, offset) => self.ack(member, offset),
            Op::Nack(member, offset) => {
                let held = self.holds(member, offset);
                if held {
                    self.model.fail(offset as usize - 1);
                }
                let verdict = self.on(nack(member, offset, true));
                assert_eq!(verdict != Some(Verdict::NotPending), held);
            }
            Op::GiveBack(member, offset) => {
                let held = self.holds(member, offset);
                if held {
                    self.model.messages[offset as usize - 1].at = At::Waiting(self.model.now);
                }
                let verdict = self.on(nack(member, offset, false));
                assert_eq!(verdict != Some(Verdict::NotPending), held);
                self.pass(Duration::ZERO);
            }
            Op::Pass(seconds) => self.pass(Duration::from_secs(seconds)),
            Op::Commit(count) => self.commit(count),
            Op::Restart => {
                // The log keeps its order: what was not committed is gone from some point on.
                self.pending.clear();
                for message in &mut self.model.messages {
                    message.was_tried &= !message.durable_settled;
                }
                let progress = self.group.progress().clone();
                for (index, message) in self.model.messages.iter_mut().enumerate() {
                    let offset = Offset::new(index as u64 + 1);
                    message.was_tried = !progress.attempts(offset).is_empty();
                    assert_eq!(progress.is_settled(offset), message.durable_settled);
                }
                self.group = Group::new(Arc::clone(&self.policy), progress);
                self.model.restart();
                let end = Offset::new(self.model.messages.len() as u64);
                self.on(Event::LogEnd { end });
            }
        }
    }

    fn holds(&self, member: u64, offset: u64) -> bool {
        let message = self.model.messages.get(offset as usize - 1);
        message.is_some_and(|m| matches!(m.at, At::Leased(by, _) if by == member))
    }

    fn ack(&mut self, member: u64, offset: u64) {
        let expected = match self.model.messages.get_mut(offset as usize - 1) {
            None => Verdict::NotPending,
            Some(message) => match message.at {
                At::Log | At::Ending | At::Settled => Verdict::NotPending,
                At::Leased(by, _) => Verdict::Acked { late: by != member },
                At::Ready | At::Waiting(_) => Verdict::Acked { late: true },
            },
        };
        if expected != Verdict::NotPending {
            self.model.messages[offset as usize - 1].at = At::Ending;
        }
        let member = ConnId(member);
        let verdict = self.on(Event::Ack { member, offset: Offset::new(offset) });
        assert_eq!(verdict, Some(expected));
    }
}

fn nack(member: u64, offset: u64, counts: bool) -> Event<'static> {
    Event::Nack {
        member: ConnId(member),
        offset: Offset::new(offset),
        delay: None,
        reason: None,
        error: None,
        counts,
        dead: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]
    #[test]
    fn a_group_does_what_the_model_does(ops in proptest::collection::vec(op(), 0..120)) {
        let mut pair = Pair::new();
        for op in ops {
            pair.run(op);
        }
        // Faults off: with a member that acknowledges, everything is settled in the end.
        pair.commit(usize::MAX);
        pair.run(Op::Join(9, 3));
        for _ in 0..400 {
            pair.commit(usize::MAX);
            let held: Vec<_> = (1..=pair.model.messages.len() as u64)
                .filter(|offset| pair.holds(9, *offset))
                .collect();
            held.into_iter().for_each(|offset| pair.ack(9, offset));
            pair.pass(Duration::from_secs(1));
        }
        pair.commit(usize::MAX);
        let end = Offset::new(pair.model.messages.len() as u64);
        prop_assert_eq!(pair.group.progress().floor(), end);
        prop_assert_eq!(pair.group.lag(end), 0);
    }
}
