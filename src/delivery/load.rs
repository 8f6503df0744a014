//! Many messages: what must not grow does not, and how long a cycle takes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::*;
use crate::ids::{ConnId, Offset};
use crate::time::{Moment, Now};

struct Load {
    group: Group,
    now: Now,
    held: VecDeque<(ConnId, Offset)>,
    uncommitted: VecDeque<Change>,
    out: Vec<Action>,
}

impl Load {
    fn new(members: u64, prefetch: u32) -> Load {
        let progress = Progress::starting_at(Offset::FIRST);
        let mut load = Load {
            group: Group::new(Arc::new(Policy::default()), progress),
            now: Now::default(),
            held: VecDeque::new(),
            uncommitted: VecDeque::new(),
            out: Vec::new(),
        };
        for member in (1..=members).map(ConnId) {
            load.event(Event::Join { member, name: "w".into(), prefetch });
        }
        load
    }

    fn event(&mut self, event: Event<'_>) {
        self.now.moment = Moment::from_nanos(self.now.moment.as_nanos() + 100);
        self.group.on(self.now, event, &mut self.out);
        while self.group.hand_out(self.now, |_| true, &mut self.out) {}
        for action in self.out.drain(..) {
            match action {
                Action::Deliver { member, offset, .. } => self.held.push_back((member, offset)),
                Action::Commit(change) => self.uncommitted.push_back(change),
                Action::Answer(_) | Action::Report(_) => {}
            }
        }
    }

    fn ack_next(&mut self) {
        let (member, offset) = self.held.pop_front().expect("something is out");
        self.event(Event::Ack { member, offset });
    }

    fn commit_down_to(&mut self, left: usize) {
        while self.uncommitted.len() > left {
            let change = self.uncommitted.pop_front().expect("more than are to be left");
            self.event(Event::Committed(&change));
        }
    }

    /// Publishes, handles and settles `count` messages, with up to 1,000 commits under way.
    fn cycles(&mut self, count: u64) {
        let end = self.group.progress().settled_up_to().get() + count;
        for end in (0..=end).step_by(64).chain([end]) {
            self.event(Event::LogEnd { end: Offset::new(end) });
            while !self.held.is_empty() {
                self.ack_next();
                if self.uncommitted.len() > 1000 {
                    self.commit_down_to(500);
                }
            }
        }
        self.commit_down_to(0);
    }
}

#[test]
fn what_passes_a_message_stuck_at_the_floor_takes_no_room() {
    let mut load = Load::new(10, 10);
    load.event(Event::LogEnd { end: Offset::FIRST });
    let stuck = load.held.pop_front().expect("the first message is out");
    load.cycles(50_000);
    let progress = load.group.progress();
    assert_eq!((progress.floor(), progress.ranges()), (Offset::ZERO, 1));
    assert_eq!((load.group.unsettled(), load.group.memory_slots() < 2000), (1, true));
    assert!(serde_json::to_string(progress).expect("a map of numbers").len() < 100);
    load.group.check();

    load.held.push_back(stuck);
    load.ack_next();
    load.commit_down_to(0);
    assert_eq!(load.group.progress().ranges(), 0);
    assert_eq!(load.group.progress().floor(), load.group.progress().settled_up_to());
}

#[test]
fn a_member_that_crashes_for_ever_does_not_fill_the_memory() {
    let mut load = Load::new(0, 0);
    load.event(Event::LogEnd { end: Offset::FIRST });
    for member in (1..=1000).map(ConnId) {
        load.event(Event::Join { member, name: "w".into(), prefetch: 1 });
        if member == ConnId(3) {
            load.now.moment = load.group.wake_at().expect("it has a lease");
            load.event(Event::Wake);
            load.now.moment = load.group.wake_at().expect("it waits for its retry");
            load.event(Event::Wake);
        }
        load.event(Event::Leave { member, why: Departure::Closed });
        load.commit_down_to(0);
    }
    let attempts = load.group.attempts(Offset::FIRST);
    assert_eq!(attempts.len(), ATTEMPTS_KEPT_MAX);
    let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.n).collect();
    assert_eq!(numbers[..3], [1, 3, 972], "the first, the one that counted, the latest");
    assert_eq!(numbers.last(), Some(&1001));
    assert_eq!(load.group.progress().failures(Offset::FIRST), 1);
    load.group.check();
}

#[test]
#[ignore = "a measurement: cargo test --release --lib delivery::load -- --ignored --nocapture"]
fn cycles_a_second() {
    for (members, prefetch) in [(1, 1000), (3, 5), (3, 1000), (10_000, 1), (10_000, 5)] {
        let mut load = Load::new(members, prefetch);
        let start = crate::time::Moment::read();
        load.cycles(3_000_000);
        let rate = 3.0 / crate::time::Moment::read().since(start).as_secs_f64();
        println!("{members} members, prefetch {prefetch}: {rate:.2} million a second");
    }
}
