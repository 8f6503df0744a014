//! Connections that publish.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use memchr::memchr_iter;
use tokio::sync::watch;

use super::load::{Load, Round};
use super::messages::Ring;
use super::pace::Schedule;
use super::wire::{Wire, unexpected};
use crate::cli::exit::Failure;
use crate::time::Moment;

/// How every answer has to begin.
const PUBLISHED: &[u8] = b"OK published ";

/// How soon to look again whether consumers have got on, should nobody tell.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How far a publisher may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Messages on their way, unanswered.
    pub(super) window: u64,
    /// Messages ahead of the slowest consumer.
    pub(super) backlog: u64,
    /// Messages in all.
    pub(super) messages: u64,
}

/// Publishes as fast as answers come: whenever some have come, as many are sent. Ends when its
/// time is over, or all it may send was sent, and everything was answered.
pub(super) async fn closed_loop(
    load: Arc<Load>,
    mut round: Round,
    mut wire: Wire,
    mut ring: Ring,
    limits: Limits,
) -> Result<(), Failure> {
    let mut on_their_way: VecDeque<(Moment, u64)> = VecDeque::new();
    let mut unanswered = 0;
    let mut left = limits.messages;
    loop {
        let now = Moment::read();
        let is_open = left > 0 && now < load.span.end;
        if is_open {
            let room = (limits.window - unanswered).min(ring.room() as u64);
            let room = room.min(round.room(&load, limits.backlog).0).min(left);
            if room > 0 {
                ring.add(usize::try_from(room).expect("a ring's lines"), now);
                round.sent(&load, room);
                on_their_way.push_back((now, room));
                unanswered += room;
                left -= room;
            }
        }
        if unanswered == 0 {
            if !is_open {
                return Ok(());
            }
            // It is too far ahead. A wake-up that is missed costs a moment.
            let (_, slowest) = round.room(&load, limits.backlog);
            drop(tokio::time::timeout(LOOK_AGAIN, slowest.moved.notified()).await);
            continue;
        }
        turn(&mut wire, &mut ring).await?;
        let answers = take_answers(&mut wire)?;
        if answers > 0 {
            unanswered -= answers;
            let now = Moment::read();
            load.published.done(answers, now);
            settle(&load, &mut on_their_way, answers, now);
        }
    }
}

async fn turn(wire: &mut Wire, ring: &mut Ring) -> Result<(), Failure> {
    let mut output = ring.unsent();
    let before = output.len();
    wire.turn(&mut output).await?;
    let sent = before - output.len();
    ring.sent(sent);
    Ok(())
}

/// The oldest so many are answered.
fn settle(load: &Load, on_their_way: &mut VecDeque<(Moment, u64)>, mut answers: u64, now: Moment) {
    let mut recorder = load.published.recorder();
    while let Some((sent, count)) = on_their_way.front_mut() {
        let part = answers.min(*count);
        recorder.add(*sent, now, part);
        answers -= part;
        *count -= part;
        if *count > 0 {
            break;
        }
        on_their_way.pop_front();
    }
}

/// Takes the answers to what the pacer sends on connection number `lane`, until it has ended and
/// everything was answered.
pub(super) async fn answers(
    load: Arc<Load>,
    mut wire: Wire,
    lane: u64,
    schedule: Schedule,
    mut sent: watch::Receiver<Option<u64>>,
) -> Result<(), Failure> {
    let mut answered = 0;
    loop {
        let sent_in_all = sent.borrow_and_update().map(|messages| schedule.count(messages, lane));
        if sent_in_all == Some(answered) {
            return Ok(());
        }
        let mut nothing = &b""[..];
        tokio::select! {
            biased;
            turned = wire.turn(&mut nothing) => turned?,
            // The pacer ends before it is dropped, if at all.
            Ok(()) = sent.changed() => continue,
        }
        let answers = take_answers(&mut wire)?;
        let now = Moment::read();
        load.published.done(answers, now);
        let mut recorder = load.published.recorder();
        for n in answered..answered + answers {
            recorder.add(schedule.at(n * schedule.lanes + lane), now, 1);
        }
        answered += answers;
    }
}

/// Counts the answers that have come, and fails at one that is not what it should be.
fn take_answers(wire: &mut Wire) -> Result<u64, Failure> {
    let (mut answers, mut start) = (0, 0);
    let unread = wire.unread();
    for end in memchr_iter(b'\n', unread) {
        if !unread[start..end].starts_with(PUBLISHED) {
            return Err(unexpected(&unread[start..end]));
        }
        answers += 1;
        start = end + 1;
    }
    wire.used(start);
    Ok(answers)
}
