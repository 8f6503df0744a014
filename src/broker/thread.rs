//! A shard at work: its thread, and how a session that finds it at rest does the thread's work.
//!
//! To wake a thread takes longer than most of what is asked of it. While there is nothing to do, the
//! shard is therefore open to whoever comes with a small letter: the session's own thread takes a
//! turn with it, writes the batch and has the answer at hand ([`Home::enter`]). Everything else goes
//! through the mailbox to the shard's thread. One or the other, never both: the shard is behind a lock
//! that nobody waits for but its thread, and nobody enters while there is mail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::ids::ConnId;
use crate::rate::Rate;
use crate::time::{Moment, Now};

use super::commit::Commit;
use super::fatal::Fatal;
use super::letter::Letter;
use super::lock;
use super::mailbox::Mailbox;
use super::message::{Message, Submission};
use super::outbox::Letters;
use super::shard::Shard;

/// A letter up to this size may be brought in by its session, in bytes.
const LETTER_BYTES_MAX: usize = 4 << 10;

/// How often letters may come from another connection than the one before, on average, for one to be
/// brought in: about two syncs. Those who come more often had better share a batch, and wait for each
/// other no longer than half of the time.
const TURN: Duration = Duration::from_micros(250);

/// Over how long that average is taken: a few may come closer together.
const CALM: Duration = Duration::from_millis(2);

/// A visit that took so long met a slow disk: for as long again nobody else shall wait for it.
const SLOW: Duration = Duration::from_millis(20);

/// A shard, and its doors.
#[derive(Debug)]
pub struct Home {
    mailbox: Arc<Mailbox<Message>>,
    shard: Mutex<Shard>,
    commit: Commit,
    visits: Mutex<Visits>,
}

/// Who came when.
#[derive(Debug)]
struct Visits {
    last: Option<ConnId>,
    /// Of letters from another connection than the one before.
    changes: Rate,
    not_before: Moment,
}

impl Default for Visits {
    fn default() -> Self {
        let changes = Rate::once_in(TURN, CALM);
        Self { last: None, changes, not_before: Moment::default() }
    }
}

impl Visits {
    /// Notes a letter; says whether it may be brought in.
    fn may_enter(&mut self, conn: ConnId, now: Moment) -> bool {
        if self.last.replace(conn) != Some(conn) {
            self.changes.note(now);
        }
        self.changes.is_calm(now) && now >= self.not_before
    }
}

impl Home {
    /// The home of a shard.
    pub fn new(shard: Shard, commit: Commit) -> Self {
        let (mailbox, visits) = (Arc::default(), Mutex::default());
        Self { mailbox, shard: Mutex::new(shard), commit, visits }
    }

    /// Where messages for the shard's thread go.
    pub fn mailbox(&self) -> &Arc<Mailbox<Message>> {
        &self.mailbox
    }

    /// Serves the shard until it is told to stop and has answered all it took.
    ///
    /// # Errors
    /// [`Fatal`]: the process has to end.
    pub fn serve(&self) -> Result<(), Fatal> {
        let mut messages = Vec::new();
        let mut wake_at = lock(&self.shard).wake_at();
        let mut stopping = false;
        loop {
            self.mailbox.drain(&mut messages, wake_at.map(|at| at.since(Moment::read())));
            let mut shard = lock(&self.shard);
            let heard = Now::read();
            // A visitor may have been here until now.
            self.mailbox.drain(&mut messages, Some(Duration::ZERO));
            let mut now = heard;
            stopping |= work(&mut shard, &mut messages, &self.commit, heard, &mut now)?;
            if stopping && shard.is_idle() {
                return Ok(());
            }
            wake_at = shard.wake_at();
        }
    }

    /// Lets a small letter in if the shard is at rest, and does with it what the shard's thread would
    /// do; a batch is on disk when this returns. `direct` is lent meanwhile ([`Outbox::lend`]): the
    /// answer leaves before the rest of the turn is done. Otherwise the letter comes back, for the
    /// mailbox, and nothing is lent.
    ///
    /// [`Outbox::lend`]: super::outbox::Outbox::lend
    pub fn enter(&self, letter: Letter, direct: Option<Letters>) -> Option<Letter> {
        let heard = Now::read();
        let start = heard.moment;
        let may_enter = lock(&self.visits).may_enter(letter.conn, start);
        if !may_enter || letter.bytes.len() > LETTER_BYTES_MAX {
            return Some(letter);
        }
        let Some(mut shard) = self.mailbox.at_rest(|| self.shard.try_lock().ok()) else {
            return Some(letter);
        };
        letter.outbox.lend(direct);
        // Behind the turn of whoever was here last.
        let mut now = Now::read();
        let wake_at = shard.wake_at();
        let mut messages = vec![Message::Letter(letter)];
        let failed = work(&mut shard, &mut messages, &self.commit, heard, &mut now).err();
        let is_new_deadline = shard.wake_at() != wake_at;
        drop(shard);
        let end = now.moment;
        if end >= start + SLOW {
            lock(&self.visits).not_before = end + end.since(start);
        }
        if let Some(fatal) = failed {
            self.mailbox.post(Message::Failed(fatal));
        } else if is_new_deadline {
            self.mailbox.post(Message::Look);
        }
        None
    }

    /// The shard, when its thread has ended.
    pub fn shard(&self) -> std::sync::MutexGuard<'_, Shard> {
        lock(&self.shard)
    }
}

/// Takes messages, and what they lead to, until there is nothing to be done but to wait. Says whether
/// the shard was told to stop. `heard` is that of [`turn`]; `now` becomes the time of the last turn, which
/// is behind all that was waited for.
fn work(
    shard: &mut Shard,
    messages: &mut Vec<Message>,
    commit: &Commit,
    heard: Now,
    now: &mut Now,
) -> Result<bool, Fatal> {
    let mut stopping = false;
    loop {
        // With nothing else to do, the batch of this turn is written by this thread.
        let mut own = None;
        let mut is_alone = shard.can_wait();
        stopping |= turn(shard, messages, heard, *now, &mut |batch| {
            if std::mem::take(&mut is_alone) {
                own = Some(batch);
            } else {
                own.take().into_iter().chain([batch]).for_each(|batch| commit.submit(batch));
            }
        })?;
        let Some(batch) = own else { return Ok(stopping) };
        let Some(committed) = commit.now_or_submit(batch)? else { return Ok(stopping) };
        messages.push(committed);
        *now = Now::read();
    }
}

/// One turn of a shard: takes the messages, and lets time pass. Says whether it was told to stop.
///
/// All that had come at `heard` was taken by this turn or one before it, so that deadlines up to then have
/// passed. What came later may be an acknowledgement that is in time, however long the disk took meanwhile.
///
/// # Errors
/// [`Fatal`]: the process has to end.
pub fn turn(
    shard: &mut Shard,
    messages: &mut Vec<Message>,
    heard: Now,
    now: Now,
    commit: &mut dyn FnMut(Submission),
) -> Result<bool, Fatal> {
    let mut parts = Vec::new();
    let mut stops = false;
    let is_new = |message: &mut Message| !matches!(message, Message::Committed { .. });
    for message in messages.extract_if(.., is_new) {
        match message {
            Message::Letter(letter) => {
                if shard.letter(now, letter)? {
                    shard.submit().into_iter().for_each(&mut *commit);
                }
            }
            Message::Committed { .. } => unreachable!("they are left for later"),
            Message::Checkpoint { sender, last, piece } => parts.push((sender, last, piece)),
            Message::Inventory { sender, piece } => {
                drop(sender.try_send(shard.inventory(piece)));
            }
            Message::Trim(trims) => shard.trim(&trims),
            Message::Look => {}
            Message::Failed(fatal) => return Err(fatal),
            Message::Stop => stops = true,
        }
    }
    // The new batch is on its way to the disk while the last one is applied and answered.
    shard.submit().into_iter().for_each(&mut *commit);
    for message in messages.drain(..) {
        if let Message::Committed { index, lsn, payload } = message {
            shard.committed(now, index, lsn, payload)?;
        }
    }
    shard.wake(heard)?;
    shard.send(now)?;
    shard.submit().into_iter().for_each(&mut *commit);
    for (sender, last, piece) in parts {
        // Whoever asked may have given up waiting.
        drop(sender.try_send(shard.part(last, piece)?));
    }
    Ok(stops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_who_come_in_turn_may_enter() {
        let mut visits = Visits::default();
        let at =
            |micros| Moment::default() + Duration::from_secs(1) + Duration::from_micros(micros);
        let (a, b) = (ConnId(1), ConnId(2));
        // One alone, however often, and two that come in turn.
        assert!((0..100).all(|n| visits.may_enter(a, at(n))));
        assert!((1..100).all(|n| visits.may_enter(if n % 2 == 0 { a } else { b }, at(n * 250))));
        // Eight in a row may come closer together, and no more.
        let begin = 100_000;
        let crowd = (0..100).map(|n| visits.may_enter(ConnId(n), at(begin + n)));
        assert_eq!(crowd.filter(|may_enter| *may_enter).count(), 8);
        assert!(!visits.may_enter(ConnId(99), at(begin + 1_000)), "nor the last of them again");
        // It is calm again soon after the last of a crowd of any size.
        assert!(visits.may_enter(ConnId(99), at(begin + 99) + CALM));
        visits.not_before = at(1_000_000);
        assert!(!visits.may_enter(a, at(999_999)), "the disk was slow");
        assert!(visits.may_enter(a, at(1_000_000)));
    }
}
