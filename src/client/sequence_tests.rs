//! Tests of the order of a plain subscription, against a broker that is a list of events.

use std::collections::BTreeSet;

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

/// Offset and the next but for `damaged`: what a history has, and then that it lacks the first of those.
fn damaged_history(
    sequence: &mut Sequence,
    offsets: std::ops::RangeInclusive<u64>,
    damaged: &[u64],
    out: &mut Out,
) -> Option<u64> {
    let whole = offsets.clone().filter(|offset| !damaged.contains(offset));
    whole.for_each(|offset| sequence.history(message(offset), out));
    let first = Offset::new(*damaged.iter().find(|offset| offsets.contains(offset)).unwrap());
    sequence.lacks(&(first..=first));
    sequence.history_end(out)
}

#[test]
fn a_damaged_message_costs_that_message_and_no_further_round() {
    let (mut sequence, _, mut out) = resumed(3);
    history(&mut sequence, 10..=10, &mut out);
    assert_eq!(sequence.history_end(&mut out), Some(7 + 16));
    assert_eq!(damaged_history(&mut sequence, 1..=10, &[2, 5, 6], &mut out), None);
    assert_eq!(sequence.pushed(message(11), &mut out), None);
    assert_eq!(numbers(&out), ["4", "gap 4→7", "7", "8", "9", "10", "11"]);
}

#[test]
fn a_topic_whose_newest_message_is_damaged_is_no_new_one() {
    for (seen, expected) in
        [(10, &["11"][..]), (9, &["gap 9→11", "11"]), (7, &["8", "gap 8→11", "11"])]
    {
        let (mut sequence, _, mut out) = resumed(seen);
        if damaged_history(&mut sequence, 10..=10, &[10], &mut out).is_some() {
            assert_eq!(damaged_history(&mut sequence, 1..=10, &[9, 10], &mut out), None);
        }
        assert_eq!(sequence.pushed(message(11), &mut out), None);
        assert_eq!(numbers(&out), expected, "behind {seen}");
    }
}

#[test]
fn what_is_not_pushed_since_it_is_damaged_is_told() {
    let mut sequence = Sequence::new("t");
    let mut out = Vec::new();
    sequence.pushed(message(4), &mut out);
    assert_eq!(sequence.pushed(message(7), &mut out), Some(3));
    assert!(damaged_history(&mut sequence, 5..=7, &[5, 6], &mut out).is_some());
    assert_eq!(damaged_history(&mut sequence, 1..=7, &[5, 6], &mut out), None);
    assert_eq!(numbers(&out), ["4", "gap 4→7", "7"]);
}

#[test]
fn a_damaged_message_does_not_hide_those_before_what_came() {
    let (mut sequence, _, mut out) = resumed(4);
    history(&mut sequence, 20..=20, &mut out);
    assert_eq!(sequence.history_end(&mut out), Some(16 + 16));
    // Meanwhile so many came that what is missing is not among them: only 31 of the 32, and not all there is.
    assert_eq!(damaged_history(&mut sequence, 20..=51, &[30], &mut out), Some(47 + 32));
    assert_eq!(damaged_history(&mut sequence, 1..=51, &[30], &mut out), None);
    let mut expected: Vec<_> = (5..=51).map(|n| n.to_string()).collect();
    expected[25] = "gap 29→31".to_owned();
    assert_eq!(numbers(&out), expected);
}

#[test]
fn what_is_no_longer_kept_is_told_though_a_later_message_is_damaged() {
    let (mut sequence, _, mut out) = resumed(3);
    history(&mut sequence, 20..=20, &mut out);
    for expected in [Some(17 + 16), Some(17 + 32), Some(11 + 64), None] {
        assert_eq!(sequence.history_end(&mut out), expected);
        history(&mut sequence, 10..=14, &mut out);
        history(&mut sequence, 16..=20, &mut out);
        sequence.lacks(&(Offset::new(15)..=Offset::new(15)));
    }
    assert_eq!(sequence.pushed(message(21), &mut out), None);
    assert_eq!(numbers(&out)[..3], ["gap 3→10", "10", "11"]);
    assert_eq!(numbers(&out)[6..], ["gap 14→16", "16", "17", "18", "19", "20", "21"]);
}

#[test]
fn what_goes_while_it_is_read_is_told() {
    let (mut sequence, _, mut out) = resumed(3);
    history(&mut sequence, 9..=9, &mut out);
    assert_eq!(sequence.history_end(&mut out), Some(6 + 16));
    history(&mut sequence, 8..=9, &mut out);
    sequence.lacks(&(Offset::FIRST..=Offset::new(7)));
    assert_eq!(sequence.history_end(&mut out), Some(2 + 32));
    history(&mut sequence, 8..=9, &mut out);
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(numbers(&out), ["gap 3→8", "8", "9"]);
    let (mut sequence, _, mut out) = resumed(3);
    sequence.lacks(&(Offset::FIRST..=Offset::new(9)));
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(sequence.pushed(message(10), &mut out), None);
    assert_eq!(numbers(&out), ["gap 3→10", "10"]);
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
fn a_topic_whose_messages_are_all_gone_goes_on_where_it_was() {
    // Nothing was missed; some were, and are gone; and the same, if the next is pushed before the answer.
    for (next, expected) in [(4, &["4", "5"][..]), (6, &["gap 3→6", "6", "7"])] {
        for is_early in [false, true] {
            let (mut sequence, _, mut out) = resumed(3);
            if is_early {
                assert_eq!(sequence.pushed(message(next), &mut out), None);
            }
            assert_eq!(sequence.history_end(&mut out), None);
            assert_eq!(numbers(&out).is_empty(), !is_early, "nothing is told before it is known");
            if !is_early {
                assert_eq!(sequence.pushed(message(next), &mut out), None);
            }
            assert_eq!(sequence.pushed(message(next + 1), &mut out), None);
            assert_eq!(numbers(&out), expected);
        }
    }
}

#[test]
fn a_topic_whose_messages_are_all_gone_is_resumed_as_often_as_it_takes() {
    let (mut sequence, _, mut out) = resumed(3);
    for _ in 0..3 {
        assert_eq!(sequence.history_end(&mut out), None);
        sequence.resume();
    }
    history(&mut sequence, 4..=4, &mut out);
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(sequence.pushed(message(5), &mut out), None);
    assert_eq!(numbers(&out), ["4", "5"]);
}

#[test]
fn all_that_is_asked_for_may_be_gone_when_it_is_looked_for() {
    let (mut sequence, mut out) = (Sequence::new("t"), Vec::new());
    sequence.pushed(message(3), &mut out);
    assert_eq!(sequence.pushed(message(7), &mut out), Some(4));
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(sequence.pushed(message(8), &mut out), None);
    assert_eq!(numbers(&out), ["3", "gap 3→7", "7", "8"]);
}

#[test]
fn a_subscription_that_has_given_out_nothing_misses_nothing() {
    // The topic was empty when it began, and again when it came back, or had messages by then.
    let (mut sequence, mut out) = (Sequence::new("t"), Vec::new());
    sequence.resume();
    assert_eq!(sequence.history_end(&mut out), None);
    assert_eq!(sequence.pushed(message(4), &mut out), None);
    assert_eq!(numbers(&out), ["4"]);
    let (mut sequence, mut out) = (Sequence::new("t"), Vec::new());
    sequence.resume();
    history(&mut sequence, 7..=7, &mut out);
    for expected in [Some(7 + 16), Some(4 + 32), None] {
        assert_eq!(sequence.history_end(&mut out), expected);
        history(&mut sequence, 4..=7, &mut out);
    }
    assert_eq!(numbers(&out), ["4", "5", "6", "7"]);
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
    /// With the first damaged message that was passed over.
    End(Option<u64>),
}

struct Model {
    end: u64,
    damaged: BTreeSet<u64>,
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
                if !self.damaged.contains(&self.end) {
                    self.wire.push_back(Line::Pushed(self.end));
                }
            }
            Event::Answer => {
                if self.answering.is_empty() {
                    let Some(count) = self.asked.pop_front() else { return };
                    let first = self.end.saturating_sub(count) + 1;
                    let first = first.max(1);
                    let (damaged, whole): (Vec<_>, Vec<_>) =
                        (first..=self.end).partition(|offset| self.damaged.contains(offset));
                    self.answering.extend(whole.into_iter().map(Line::History));
                    self.answering.push_back(Line::End(damaged.first().copied()));
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
            Line::End(damaged) => {
                if let Some(damaged) = damaged.map(Offset::new) {
                    self.sequence.lacks(&(damaged..=damaged));
                }
                self.sequence.history_end(&mut self.out)
            }
        };
        self.asked.extend(ask);
    }
}

proptest! {
    /// Held lines overflow here after three messages, so that rounds upon rounds are needed.
    #[test]
    fn every_message_comes_once_and_in_order(
        start in 0..50u64,
        damaged in prop_oneof![Just(BTreeSet::new()), proptest::collection::btree_set(1..150u64, 0..80)],
        events in events(),
    ) {
        let mut sequence = Sequence::new("t");
        sequence.starts_behind(Offset::new(start));
        let mut model = Model {
            end: start,
            damaged,
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
        let whole = |offset: &u64| !model.damaged.contains(offset);
        let expected: Vec<u64> = (start + 1..=model.end).filter(whole).collect();
        let came = model.out.iter().flatten().map(|message| message.offset().get());
        prop_assert_eq!(came.collect::<Vec<_>>(), expected);
        for lost in model.out.iter().filter_map(|item| item.as_ref().err()) {
            let ClientError::Gap { after, next, .. } = lost else { panic!("{lost}") };
            let mut told = after.get() + 1..next.get();
            prop_assert!(after < next && told.all(|offset| !whole(&offset)), "{}", lost);
        }
    }
}
