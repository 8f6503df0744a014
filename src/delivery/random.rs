//! Random events: the real group against the naive model, and against oracles that know neither.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::model::{Model, OFFSETS_MAX, Rooms, State, counted};
use super::*;
use crate::ids::{ConnId, Offset};
use crate::time::{Moment, Now, Timestamp};

/// Whom and what a random member speaks of: mostly something it holds.
#[derive(Clone, Copy, Debug)]
struct Of {
    member: u64,
    held: bool,
    pick: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Join { member: u64, name: u8, prefetch: u32 },
    Leave { member: u64, silent: bool },
    Publish { to: u64 },
    Ack(Of),
    NotSent(Of),
    Nack { of: Of, delay: Option<u64>, counts: bool, dead: bool },
    Touch { of: Of, millis: Option<u64> },
    SetPrefetch { member: u64, prefetch: u32 },
    Fill { member: u64, room: u32 },
    Resume { member: u64, is_drained: bool },
    WakeInTime,
    Wake { after_millis: u64 },
    Commit { count: usize },
    Restart,
    SettledElsewhere { offset: u64 },
    FailedElsewhere { offset: u64 },
    LogStart { first: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let member = || 1..6u64;
    let of =
        || {
            (member(), prop::bool::weighted(0.8), 0..OFFSETS_MAX)
                .prop_map(|(member, held, pick)| Of { member, held, pick })
        };
    let delay = || prop::option::weighted(0.5, 0..40u64);
    let offset = || 1..=OFFSETS_MAX;
    prop_oneof![
        6 => (member(), 0..3u8, 0..4u32)
            .prop_map(|(member, name, prefetch)| Op::Join { member, name, prefetch }),
        3 => (member(), any::<bool>()).prop_map(|(member, silent)| Op::Leave { member, silent }),
        8 => (0..6u64).prop_map(|to| Op::Publish { to }),
        12 => of().prop_map(Op::Ack),
        3 => of().prop_map(Op::NotSent),
        8 => (of(), delay(), prop::bool::weighted(0.8), prop::bool::weighted(0.1))
            .prop_map(|(of, delay, counts, dead)| Op::Nack { of, delay, counts, dead }),
        3 => (of(), delay()).prop_map(|(of, millis)| Op::Touch { of, millis }),
        3 => (member(), 0..4u32)
            .prop_map(|(member, prefetch)| Op::SetPrefetch { member, prefetch }),
        3 => (member(), 0..3u32).prop_map(|(member, room)| Op::Fill { member, room }),
        4 => (member(), prop::bool::weighted(0.8))
            .prop_map(|(member, is_drained)| Op::Resume { member, is_drained }),
        10 => Just(Op::WakeInTime),
        4 => (0..60u64).prop_map(|after_millis| Op::Wake { after_millis }),
        12 => (1..8usize).prop_map(|count| Op::Commit { count }),
        1 => Just(Op::Restart),
        1 => offset().prop_map(|offset| Op::SettledElsewhere { offset }),
        1 => offset().prop_map(|offset| Op::FailedElsewhere { offset }),
        1 => (1..8u64).prop_map(|first| Op::LogStart { first }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let backoff = prop::collection::vec(0..20u64, 0..3);
    (1..30u64, 0..4u32, backoff, any::<bool>(), 1..12usize).prop_map(
        |(ack_timeout, max_retries, backoff, dead_letters, unsettled_max)| Policy {
            ack_timeout: Duration::from_millis(ack_timeout),
            max_retries,
            backoff: backoff.into_iter().map(Duration::from_millis).collect(),
            dead_letters,
            unsettled_max,
        },
    )
}

struct World {
    policy: Policy,
    group: Group,
    model: Model,
    now: u64,
    uncommitted: Vec<Change>,
    /// How many more messages may be sent to members that read nothing.
    rooms: Rooms,
    oracle: Oracle,
}

/// What can be said from the actions alone.
#[derive(Default)]
struct Oracle {
    /// What may be settled, because somebody answered for it.
    answered_for: Vec<Offset>,
    /// Failures that counted and are durable.
    failures: BTreeMap<Offset, u32>,
}

impl World {
    fn new(policy: Policy) -> World {
        let progress = Progress::starting_at(Offset::FIRST);
        World {
            group: Group::new(Arc::new(policy.clone()), progress),
            model: Model::new(policy.clone()),
            policy,
            now: 0,
            uncommitted: Vec::new(),
            rooms: Rooms::new(),
            oracle: Oracle::default(),
        }
    }

    fn now(&self) -> Now {
        let wall = Timestamp::from_micros(self.now * 1000);
        Now { moment: Moment::from_millis(self.now), wall }
    }

    fn event(&mut self, event: Event<'_>) -> Vec<Action> {
        let forced_end = matches!(event, Event::Nack { dead: true, .. });
        let mut actions = Vec::new();
        self.group.on(self.now(), event.clone(), &mut actions);
        let mut expected = self.model.on(self.now(), event.clone());
        assert_eq!(actions, expected, "at {event:?}");
        loop {
            let (now, rooms) = (self.now(), &self.rooms);
            let may_have = |member| rooms.get(&member) != Some(&0);
            let has_delivered = self.group.hand_out(now, may_have, &mut actions);
            assert_eq!(has_delivered, self.model.hand_out(now, rooms, &mut expected));
            assert_eq!(actions, expected, "after {event:?}");
            let Some(Action::Deliver { member, .. }) = actions.last().filter(|_| has_delivered)
            else {
                break;
            };
            if let Some(room) = self.rooms.get_mut(member) {
                *room = room.checked_sub(1).expect("nothing is sent to who may have no more");
            }
        }
        self.group.check();
        self.compare();
        for action in &actions {
            self.judge(action, forced_end);
            if let Action::Commit(change) = action {
                self.uncommitted.push(change.clone());
            }
        }
        let first_open = (1..).map(Offset::new).find(|o| !self.oracle.answered_for.contains(o));
        assert!(self.group.progress().floor() < first_open.unwrap(), "the floor passed something");
        actions
    }

    fn judge(&mut self, action: &Action, forced_end: bool) {
        match action {
            Action::Deliver { member, offset, attempt, of, .. } => {
                let held = self.group.held_by(*member);
                let mut members = self.group.each_member();
                let (_, _, prefetch, count) = members.find(|m| m.0 == *member).unwrap();
                assert_eq!(held.len(), count);
                assert!(held.contains(offset) && count <= prefetch as usize, "credit of {member}");
                assert!(attempt <= of);
            }
            Action::Commit(Change::Settled { offset }) => self.oracle.answered_for.push(*offset),
            Action::Commit(Change::Failed { attempt, .. }) => {
                assert!(!(attempt.counts() && self.policy.max_retries == 0), "no retries allowed");
            }
            Action::Commit(Change::DeadLettered { offset, attempt }) => {
                assert!(self.policy.dead_letters);
                self.oracle.answered_for.push(*offset);
                let pending = self.uncommitted.iter().filter(|change| {
                    matches!(change, Change::Failed { offset: o, attempt }
                        if o == offset && attempt.counts())
                });
                let durable = self.oracle.failures.get(offset).copied().unwrap_or(0);
                let before = durable + u32::try_from(pending.count()).unwrap();
                let at_the_end = attempt.counts() && before == self.policy.max_retries;
                assert!(at_the_end || forced_end, "{offset} given up after {before} failures");
            }
            Action::Answer(_) | Action::Report(_) => {}
        }
    }

    fn commit(&mut self, count: usize) {
        let count = count.min(self.uncommitted.len());
        let changes: Vec<Change> = self.uncommitted.drain(..count).collect();
        let mut changes = changes.into_iter().peekable();
        while let Some(change) = changes.next() {
            if let Change::Settled { offset: first } = change {
                // Neighbours may come as one, as from a batch.
                let mut count = 1;
                let is_next = |change: &Change, count: u32| {
                    *change
                        == Change::Settled { offset: Offset::new(first.get() + u64::from(count)) }
                };
                while changes.next_if(|change| is_next(change, count)).is_some() {
                    count += 1;
                }
                self.event(Event::Settled { first, count });
                continue;
            }
            if let Change::Failed { offset, attempt } = &change {
                let failures = self.oracle.failures.entry(*offset).or_default();
                *failures += u32::from(attempt.counts());
                assert!(*failures <= self.policy.max_retries, "{offset} failed too often");
            }
            self.event(Event::Committed(&change));
        }
    }

    fn compare(&self) {
        let (group, model) = (&self.group, &self.model);
        assert_eq!(group.wake_at(), model.wake_at());
        assert_eq!(group.unsettled(), model.unsettled().len());
        let unsettled = model.offsets(|state| state != State::Settled);
        let end = Offset::new(model.end);
        assert_eq!(group.lag(end), unsettled.iter().filter(|o| **o <= end).count() as u64);
        for offset in (0..=OFFSETS_MAX).map(Offset::new) {
            let message = model.get(offset);
            let settled = message.is_none_or(|message| message.state == State::Settled);
            assert_eq!(group.progress().is_settled(offset), settled, "{offset} settled");
            assert_eq!(
                group.look(offset).is_unsettled,
                model.can_be_acked(offset),
                "{offset} open"
            );
            let holder = message.and_then(|message| match message.state {
                State::Leased { member, .. } if !message.is_unsent => Some(member),
                _ => None,
            });
            assert_eq!(group.look(offset).holder, holder, "holder of {offset}");
            let durable: &[Attempt] = message.map_or(&[], |message| &message.durable);
            if durable.len() <= ATTEMPTS_KEPT_MAX {
                assert_eq!(group.attempts(offset), durable, "attempts of {offset}");
            }
            assert_eq!(group.progress().failures(offset), counted(durable));
        }
        let members: Vec<_> = model.members.iter().map(|m| (m.id, &*m.name, m.prefetch)).collect();
        let real: Vec<_> = group.each_member().map(|(id, name, n, _)| (id, name, n)).collect();
        assert_eq!(real, members);
        let paused = model.members.iter().filter(|member| member.is_paused).map(|member| member.id);
        assert!(group.paused().eq(paused), "who is paused");
        let states = |wanted: fn(State) -> bool| model.offsets(wanted).len();
        let counts = Counts {
            ready: states(|state| state == State::Ready),
            in_flight: states(|state| matches!(state, State::Leased { .. })),
            waiting: states(|state| matches!(state, State::Waiting { .. })),
            settling: states(|state| state == State::Settling),
            dying: states(|state| state == State::Dying),
        };
        assert_eq!(group.counts(), counts);
    }

    fn target(&self, of: Of) -> (ConnId, Offset) {
        let member = ConnId(of.member);
        let held = self.model.held_by(member);
        let pick = usize::try_from(of.pick).unwrap();
        match held.len() {
            n if n > 0 && of.held => (member, held[pick % n]),
            _ => (member, Offset::new(1 + of.pick % OFFSETS_MAX)),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Join { member, name, prefetch } => {
                let name = ["x", "y", "z"][usize::from(name)].into();
                self.event(Event::Join { member: ConnId(member), name, prefetch });
            }
            Op::Leave { member, silent } => {
                let why = if silent { Departure::Silent } else { Departure::Closed };
                self.event(Event::Leave { member: ConnId(member), why });
            }
            Op::Publish { to } => {
                // Now and then the end is told again, or an older one.
                let end = Offset::new((self.model.end + to).saturating_sub(1).min(OFFSETS_MAX));
                self.event(Event::LogEnd { end });
            }
            Op::Ack(of) => {
                let (member, offset) = self.target(of);
                self.event(Event::Ack { member, offset });
            }
            Op::NotSent(of) => {
                let (_, offset) = self.target(of);
                self.group.not_sent(offset);
                self.model.not_sent(offset);
            }
            Op::Nack { of, delay, counts, dead } => {
                let (member, offset) = self.target(of);
                let delay = delay.map(Duration::from_millis);
                let (reason, error) = (counts.then(|| "r".into()), dead.then(|| "e".into()));
                let nack = Event::Nack { member, offset, delay, reason, error, counts, dead };
                self.event(nack);
            }
            Op::Touch { of, millis } => {
                let (member, offset) = self.target(of);
                let time = millis.map(Duration::from_millis);
                self.event(Event::Touch { member, offset, time });
            }
            Op::SetPrefetch { member, prefetch } => {
                self.event(Event::SetPrefetch { member: ConnId(member), prefetch });
            }
            Op::Fill { member, room } => {
                self.rooms.insert(ConnId(member), room);
            }
            Op::Resume { member, is_drained } => {
                if is_drained {
                    self.rooms.remove(&ConnId(member));
                }
                self.event(Event::Resume { member: ConnId(member) });
            }
            Op::WakeInTime => self.wake_in_time(),
            Op::Wake { after_millis } => {
                self.now += after_millis;
                self.event(Event::Wake);
            }
            Op::Commit { count } => self.commit(count),
            Op::Restart => self.restart(),
            Op::SettledElsewhere { offset } => {
                let offset = Offset::new(offset);
                self.oracle.answered_for.push(offset);
                self.event(Event::Committed(&Change::Settled { offset }));
            }
            Op::FailedElsewhere { offset } => self.failed_elsewhere(Offset::new(offset)),
            Op::LogStart { first } => {
                self.oracle.answered_for.extend((1..first).map(Offset::new));
                self.event(Event::LogStart { first: Offset::new(first) });
            }
        }
    }

    /// Wakes the group exactly when it asks: that must lead to something, and just before it not.
    fn wake_in_time(&mut self) {
        let Some(at) = self.group.wake_at() else { return };
        let at = at.as_nanos() / 1_000_000;
        if at > self.now + 1 {
            self.now = at - 1;
            assert_eq!(self.event(Event::Wake), [], "woken too early");
        }
        self.now = self.now.max(at);
        let before = self.group.counts();
        self.event(Event::Wake);
        let later = self.group.wake_at().is_none_or(|at| at > self.now().moment);
        assert!(later, "something is still due");
        let counts = self.group.counts();
        assert!(counts != before || before.in_flight > 0 || before.waiting > 0);
    }

    /// Another node leads and reports a failure of what was never given out here.
    fn failed_elsewhere(&mut self, offset: Offset) {
        let message = self.model.get(offset).unwrap();
        let failures = self.oracle.failures.entry(offset).or_default();
        if message.state != State::New || *failures >= self.policy.max_retries {
            return;
        }
        *failures += 1;
        let attempt = Attempt {
            n: u32::try_from(message.durable.len()).unwrap() + 1,
            consumer: "far".into(),
            sent: self.now().wall,
            ended: self.now().wall,
            outcome: Outcome::Timeout,
            reason: None,
            error: None,
            uncounted: false,
        };
        self.event(Event::Committed(&Change::Failed { offset, attempt }));
    }

    fn restart(&mut self) {
        let lost = std::mem::take(&mut self.uncommitted);
        let settled = |change: &Change| !matches!(change, Change::Failed { .. });
        for change in lost.iter().filter(|change| settled(change)) {
            let answered_for = &mut self.oracle.answered_for;
            let at = answered_for.iter().rposition(|offset| *offset == change.offset()).unwrap();
            answered_for.swap_remove(at);
        }
        let stored = serde_json::to_string(self.group.progress()).unwrap();
        let progress = serde_json::from_str(&stored).unwrap();
        assert_eq!(self.group.progress(), &progress, "{stored}");
        self.group = Group::new(Arc::new(self.policy.clone()), progress);
        self.model.restart();
        self.group.check();
        self.compare();
    }

    /// With members that acknowledge everything, everything ends.
    fn finish(&mut self) {
        for member in 1..6 {
            self.event(Event::Leave { member: ConnId(member), why: Departure::Closed });
        }
        let end = Offset::new(self.model.end);
        let (member, name) = (ConnId(100), "diligent".into());
        self.event(Event::Join { member, name, prefetch: 2 });
        for _ in 0..10 * OFFSETS_MAX {
            self.commit(usize::MAX);
            for offset in self.group.held_by(member) {
                self.event(Event::Ack { member, offset });
            }
            if self.group.held_by(member).is_empty() && self.uncommitted.is_empty() {
                if self.group.lag(end) == 0 {
                    return;
                }
                assert!(self.group.wake_at().is_some(), "nothing will ever happen again");
                self.wake_in_time();
            }
        }
        panic!("{} of {end} are still open", self.group.lag(end));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_group_does_what_the_model_does(
        policy in policy(),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut world = World::new(policy);
        for op in ops {
            world.apply(op);
        }
        world.finish();
    }
}
