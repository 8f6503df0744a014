//! A plain subscription without gaps and doubles, over any number of connections. Pure.
//!
//! The broker pushes what is published while a connection stands; what it published between two
//! connections has to be read from the history. [`Sequence`] says how much to ask for, puts both
//! in the order of offsets, and drops what it has seen.
//!
//! ```text
//!   offsets    1 2 3 4 5 6 7 8 9 …
//!   given out  ─────┘ next = 4
//!   pushed                 └─ 7, 8 … are held
//!   history n=1            7          → the end is 7, so 4 are missing or were held
//!   history n=4+slack  3 4 5 6 7      → 3 seen before, 4 5 6 7 given out, then 8 from what is held
//! ```
//!
//! A message that is damaged in the broker is missing in its history, and nothing else is: a hole in what
//! came of one answer is told as a [`ClientError::Gap`], and a history that was refused for such a message
//! is no less an answer.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::{ClientError, Message};
use crate::ids::Offset;

/// Most bytes of pushed lines that are held while the history is read. What is pushed beyond that
/// is read from the history too.
const HELD_BYTES_MAX: usize = if cfg!(test) { 100 } else { 4 << 20 };

/// After so many rounds without a step forward, the broker does not have what is missing.
const FRUITLESS_ROUNDS_MAX: u32 = 20;

/// What comes out: messages in order, and news of those that are lost.
pub(super) type Out = Vec<Result<Message, ClientError>>;

#[derive(Debug)]
enum Mode {
    /// The first message has not come, and may have any offset from `next` on.
    Starting,
    /// What is pushed is given out.
    Live,
    /// The topic held nothing, which says nothing about its end: what comes next has any offset, and tells.
    Emptied,
    /// The history is being read.
    Filling(Filling),
}

#[derive(Debug, Default)]
struct Filling {
    /// Pushed, in order and without a hole.
    held: VecDeque<Message>,
    held_bytes: usize,
    /// Something was pushed that is not held.
    overflow: bool,
    round: Round,
    before: Round,
    /// Where this round began.
    began_at: u64,
    fruitless: u32,
    slack: u64,
}

/// What was asked for at once, and what has come of it.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    asked: u64,
    /// The first message that came.
    first: Option<u64>,
    /// Where what came begins, with what is known to be lacking.
    begin: u64,
    /// The topic's newest message, as far as this and earlier rounds have shown.
    end: u64,
    /// Messages were lacking.
    lacks: bool,
}

/// The order of a plain subscription.
#[derive(Debug)]
pub(super) struct Sequence {
    topic: String,
    /// The offset that is given out next.
    next: u64,
    mode: Mode,
}

impl Sequence {
    pub(super) fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), next: 1, mode: Mode::Starting }
    }

    /// The topic's newest message before the subscription began: the end of a `HISTORY 1`.
    pub(super) fn starts_behind(&mut self, newest: Offset) {
        self.next = newest.get() + 1;
    }

    /// A new connection stands and its `SUB` is sent: how many messages of history to ask for.
    pub(super) fn resume(&mut self) -> u64 {
        self.fill(Filling { slack: 16, ..Filling::default() }, 1)
    }

    fn fill(&mut self, filling: Filling, ask: u64) -> u64 {
        let fruitless = if filling.began_at == self.next { filling.fruitless + 1 } else { 0 };
        let before = filling.round;
        let round =
            Round { asked: ask, first: None, begin: u64::MAX, end: before.end, lacks: false };
        let began_at = self.next;
        self.mode = Mode::Filling(Filling { round, before, began_at, fruitless, ..filling });
        ask
    }

    /// A pushed message. Gives how much history to ask for if one before it is missing.
    pub(super) fn pushed(&mut self, message: Message, out: &mut Out) -> Option<u64> {
        let offset = message.offset().get();
        match &mut self.mode {
            Mode::Starting => {
                self.next = offset + 1;
                self.mode = Mode::Live;
                out.push(Ok(message));
            }
            Mode::Emptied => {
                self.skip_to(offset, out);
                self.next += 1;
                self.mode = Mode::Live;
                out.push(Ok(message));
            }
            Mode::Live if offset == self.next => {
                self.next += 1;
                out.push(Ok(message));
            }
            Mode::Live if offset < self.next => {}
            Mode::Live => {
                let mut filling = Filling { slack: 16, ..Filling::default() };
                filling.hold(message);
                let ask = offset - self.next + 1;
                return Some(self.fill(filling, ask));
            }
            Mode::Filling(filling) => filling.hold(message),
        }
        None
    }

    /// A message of the history that was asked for.
    pub(super) fn history(&mut self, message: Message, out: &mut Out) {
        let Mode::Filling(filling) = &mut self.mode else { return };
        let offset = message.offset().get();
        let round = &mut filling.round;
        let follows = round.first.is_some_and(|first| first < self.next);
        round.first.get_or_insert(offset);
        round.begin = round.begin.min(offset);
        round.end = round.end.max(offset);
        if follows && offset > self.next {
            // What stands between is not to be had, or this answer would have it.
            self.skip_to(offset, out);
        }
        if offset == self.next {
            self.next += 1;
            out.push(Ok(message));
        }
    }

    /// The history that was asked for ends here, and lacks these messages: they are damaged or no longer
    /// kept. There may be more that it lacks, but none before these.
    pub(super) fn lacks(&mut self, missing: &RangeInclusive<Offset>) {
        let Mode::Filling(filling) = &mut self.mode else { return };
        let round = &mut filling.round;
        round.lacks = true;
        round.begin = round.begin.min(missing.start().get());
        round.end = round.end.max(missing.end().get());
    }

    /// The history that was asked for has come. Gives how much more to ask for, if any.
    pub(super) fn history_end(&mut self, out: &mut Out) -> Option<u64> {
        let Mode::Filling(mut filling) = std::mem::replace(&mut self.mode, Mode::Live) else {
            return None;
        };
        let round = filling.round;
        let end = round.end;
        if end == 0 {
            // Before what was pushed meanwhile there is nothing any more.
            match filling.held.front() {
                Some(message) => self.skip_to(message.offset().get(), out),
                None => self.mode = Mode::Emptied,
            }
            return self.release(filling, out);
        }
        // Messages at the end of an answer may be among those that it lacks, unless only one was asked for.
        let is_end_known = !round.lacks || round.asked == 1;
        if is_end_known && end + 1 < self.next {
            // The topic ends before what was seen of it: it has been begun anew.
            self.skip_to(end + 1, out);
        }
        if self.next <= end && (filling.has_all_from(self.next) || filling.gives_up()) {
            let behind = round.first.filter(|first| *first > self.next);
            self.skip_to(behind.unwrap_or(end + 1), out);
        }
        if self.next <= end {
            let slack = filling.slack;
            filling.slack = slack.saturating_mul(2);
            return Some(self.fill(filling, (end - self.next + 1).saturating_add(slack)));
        }
        self.release(filling, out)
    }

    /// The history has caught up with its own end: what is held follows.
    fn release(&mut self, mut filling: Filling, out: &mut Out) -> Option<u64> {
        while let Some(message) = filling.held.pop_front() {
            let offset = message.offset().get();
            if offset > self.next {
                if !filling.gives_up() {
                    filling.held.push_front(message);
                    let ask = (offset - self.next + 1).saturating_add(filling.slack);
                    return Some(self.fill(filling, ask));
                }
                self.skip_to(offset, out);
            }
            filling.held_bytes -= message.line().len();
            if offset == self.next {
                self.next += 1;
                out.push(Ok(message));
            }
        }
        if filling.overflow {
            let fresh = Filling { slack: filling.slack, ..Filling::default() };
            return Some(self.fill(fresh, filling.slack));
        }
        None
    }

    /// Goes on at `next`, and tells what is passed over. Before the first message of all there was nothing to
    /// miss: where the topic stood is not known if it was empty then.
    fn skip_to(&mut self, next: u64, out: &mut Out) {
        let (before, next) = (std::mem::replace(&mut self.next, next), Offset::new(next));
        if before == Offset::FIRST.get() || before == next.get() {
            return;
        }
        let after = Offset::new(before - 1);
        out.push(Err(ClientError::Gap { topic: self.topic.clone(), after, next }));
    }
}

impl Filling {
    fn hold(&mut self, message: Message) {
        let bytes = message.line().len();
        let follows = self.held.back().is_none_or(|last| last.offset().next() == message.offset());
        if !follows || self.held_bytes + bytes > HELD_BYTES_MAX {
            self.overflow = true;
            return;
        }
        self.held_bytes += bytes;
        self.held.push_back(message);
    }

    /// Whether what this answer does not have from `next` on is not to be had: it said so itself, or nothing
    /// is kept before what came. That is so if fewer messages came than were asked for. An answer that lacks
    /// some may end before the topic does: then it is so if asking for more did not make it begin earlier.
    fn has_all_from(&self, next: u64) -> bool {
        let (now, before) = (&self.round, &self.before);
        if now.lacks {
            let more = now.asked.wrapping_sub(before.asked);
            let is_more = more != now.end.wrapping_sub(before.end);
            return now.begin <= next || (now.begin == before.begin && is_more);
        }
        (now.end + 1).saturating_sub(now.begin) < now.asked
    }

    fn gives_up(&self) -> bool {
        self.fruitless >= FRUITLESS_ROUNDS_MAX
    }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
