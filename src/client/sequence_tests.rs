//! Tests of the order of a plain subscription, against a broker that is a list of events.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::proto::{Kind, ServerLine};

fn message(offset: u64) -> Message {
    let line = Bytes::from(format!("MSG t msg_{offset} {offset} 1.0 body"));
    match ServerLine::parse(&line).kind {
        Kind::Msg(record) => Message::new(&line, &record),
        other => panic!("{other:?}"),
    }
}

fn numbers(out: &Out) -> Vec<String> {
    out.iter()
        .map(|item| match item {
            Ok(message) => message.offset().to_string(),
            Err(ClientError::Gap { after, next, .. }) => format!("gap {after}→{next}"),
            Err(other) => panic!("{other}"),
        })
        .collect()
}

/// A sequence that has given out `seen`, and is on a new connection.
fn resumed(seen: u64) -> (Sequence, u64, Out) {
    let mut sequence = Sequence::new("t");
    sequence.starts_behind(Offset::new(seen));
    let ask = sequence.resume();
    (sequence, ask, Vec::new())
}

fn history(sequence: &mut Sequence, offsets: std::ops::RangeInclusive<u64>, out: &mut Out) {
    offsets.for_each(|offset| sequence.history(message(offset), out));
}

#[test]
fn a_subscription_begins_with_what_is_pushed_first() {
    let mut sequence = Sequence::new("t");
    sequence.starts_behind(Offset::new(4));
    let mut out = Vec::new();
    for offset in [6, 7, 8] {
        assert_eq!(sequence.pushed(message(offset), &mut out), None);
    }
    assert_eq!(numbers(&out), ["6", "7", "8"]);
}

#[test]
fn what_was_missed_is_read_from_the_history_before_what_is_pushed() {
    let (mut sequence, ask, mut out) = resumed(3);
    assert_eq!(ask, 1, "first find out where the topic ends");
    assert_eq!(sequence.pushed(message(8), &mut out), None);
    history(&mut sequence, 7..=7, &mut out);
    assert_eq!(sequence.history_end(&mut out), Some(4 + 16));
    history(&mut sequence, 1..=8, &mut out);
    assert_eq!(sequence.pushed(message(9), &mut out), None);
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(sequence.pushed(message(10), &mut out), None);
    assert_eq!(numbers(&out), ["4", "5", "6", "7", "8", "9", "10"]);
}

#[test]
fn what_the_history_held_already_may_still_be_pushed() {
    let (mut sequence, _, mut out) = resumed(2);
    history(&mut sequence, 3..=3, &mut out);
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(sequence.pushed(message(3), &mut out), None);
    assert_eq!(sequence.pushed(message(4), &mut out), None);
    assert_eq!(numbers(&out), ["3", "4"]);
}

#[test]
fn nothing_missed_costs_one_line() {
    let (mut sequence, _, mut out) = resumed(7);
    history(&mut sequence, 7..=7, &mut out);
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(sequence.pushed(message(8), &mut out), None);
    assert_eq!(numbers(&out), ["8"]);
}

#[test]
fn what_the_broker_no_longer_keeps_is_told() {
    let (mut sequence, _, mut out) = resumed(3);
    history(&mut sequence, 9..=9, &mut out);
    assert_eq!(sequence.history_end(&mut out), Some(6 + 16));
    history(&mut sequence, 8..=9, &mut out);
    assert_eq!(sequence.history_end(&mut out), Some(2 + 32));
    history(&mut sequence, 8..=9, &mut out);
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(numbers(&out), ["gap 3→8", "8", "9"]);
}

#[test]
fn a_topic_that_was_begun_anew_is_told_and_followed() {
    for end in [0, 2] {
        let (mut sequence, _, mut out) = resumed(100);
        history(&mut sequence, 1.max(end)..=end, &mut out);
        assert_eq!(sequence.history_end(&mut out), None);
        assert_eq!(sequence.pushed(message(end + 1), &mut out), None);
        assert_eq!(numbers(&out), [format!("gap 100→{}", end + 1), (end + 1).to_string()]);
    }
}

#[test]
fn a_hole_that_nothing_fills_is_told_in_the_end() {
    let (mut sequence, _, mut out) = resumed(1);
    sequence.pushed(message(5), &mut out);
    let mut rounds = 0;
    loop {
        history(&mut sequence, 1..=1, &mut out);
        match sequence.history_end(&mut out) {
            Some(_) => rounds += 1,
            None => break,
        }
        assert!(rounds < 100);
    }
    assert_eq!(numbers(&out), ["gap 1→5", "5"]);
}

/// What the model of a broker does next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Publish,
    /// The broker writes a few more lines of its answer to the oldest `HISTORY`.
    Answer,
    /// The client reads so many of the lines on the wire.
    Read(u8),
    Cut,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Publish),
        3 => Just(Event::Answer),
        6 => (1..20u8).prop_map(Event::Read),
        1 => Just(Event::Cut),
    ];
    proptest::collection::vec(event, 0..200)
}

#[derive(Clone, Copy)]
enum Line {
    Pushed(u64),
    History(u64),
    End,
}

struct Model {
    end: u64,
    asked: VecDeque<u64>,
    answering: VecDeque<Line>,
    wire: VecDeque<Line>,
    sequence: Sequence,
    out: Out,
}

impl Model {
    fn step(&mut self, event: Event) {
        match event {
            Event::Publish => {
                self.end += 1;
                self.wire.push_back(Line::Pushed(self.end));
            }
            Event::Answer => {
                if self.answering.is_empty() {
                    let Some(count) = self.asked.pop_front() else { return };
                    let first = self.end.saturating_sub(count) + 1;
                    self.answering.extend((first..=self.end).map(Line::History));
                    self.answering.push_back(Line::End);
                }
                let lines = self.answering.len().min(3);
                self.wire.extend(self.answering.drain(..lines));
            }
            Event::Read(lines) => (0..lines).for_each(|_| self.read()),
            Event::Cut => {
                // Published while nobody is connected.
                self.end += 3;
                self.wire.clear();
                self.answering.clear();
                self.asked.clear();
                self.asked.push_back(self.sequence.resume());
            }
        }
    }

    fn read(&mut self) {
        let Some(line) = self.wire.pop_front() else { return };
        let ask = match line {
            Line::Pushed(offset) => self.sequence.pushed(message(offset), &mut self.out),
            Line::History(offset) => {
                self.sequence.history(message(offset), &mut self.out);
                None
            }
            Line::End => self.sequence.history_end(&mut self.out),
        };
        self.asked.extend(ask);
    }
}

proptest! {
    /// Held lines overflow here after three messages, so that rounds upon rounds are needed.
    #[test]
    fn every_message_comes_once_and_in_order(start in 0..50u64, events in events()) {
        let mut sequence = Sequence::new("t");
        sequence.starts_behind(Offset::new(start));
        let mut model = Model {
            end: start,
            asked: VecDeque::new(),
            answering: VecDeque::new(),
            wire: VecDeque::new(),
            sequence,
            out: Vec::new(),
        };
        events.into_iter().for_each(|event| model.step(event));
        for _ in 0..10_000 {
            model.step(Event::Answer);
            while !model.wire.is_empty() {
                model.read();
            }
        }
        prop_assert!(model.asked.is_empty(), "it comes to rest");
        let expected: Vec<String> = (start + 1..=model.end).map(|n| n.to_string()).collect();
        prop_assert_eq!(numbers(&model.out), expected);
    }
}
