//! The thread of a shard: a dull loop around [`Shard`].

use std::sync::Arc;

use crate::time::Now;

use super::commit::Commit;
use super::fatal::Fatal;
use super::mailbox::Mailbox;
use super::message::{Message, Submission};
use super::shard::{Shard, ShardError};

/// Serves a shard until it is told to stop and has answered all it took; gives it back.
///
/// # Errors
/// [`Fatal`]: the process has to end.
pub fn run(
    mut shard: Shard,
    mailbox: &Arc<Mailbox<Message>>,
    commit: &Commit,
) -> Result<Shard, Fatal> {
    let mut messages = Vec::new();
    let mut stopping = false;
    loop {
        if messages.is_empty() {
            let patience = shard.wake_at().map(|at| at.since(Now::read().moment));
            mailbox.drain(&mut messages, patience);
        }
        // With nothing else to do, the batch of this turn is written by this thread.
        let mut own = None;
        let mut is_alone = shard.can_wait();
        stopping |= turn(&mut shard, &mut messages, Now::read(), &mut |batch| {
            if std::mem::take(&mut is_alone) {
                own = Some(batch);
            } else {
                own.take().into_iter().chain([batch]).for_each(|batch| commit.submit(batch));
            }
        })?;
        if let Some(batch) = own {
            messages.extend(commit.now_or_submit(batch)?);
        }
        if stopping && shard.is_idle() {
            return Ok(shard);
        }
    }
}

/// One turn of a shard: takes the messages, and lets time pass. Says whether it was told to stop.
///
/// # Errors
/// [`ShardError`]: the process has to end.
pub fn turn(
    shard: &mut Shard,
    messages: &mut Vec<Message>,
    now: Now,
    commit: &mut dyn FnMut(Submission),
) -> Result<bool, ShardError> {
    let mut committed = Vec::new();
    let mut parts = Vec::new();
    let mut stops = false;
    for message in messages.drain(..) {
        match message {
            Message::Letter(letter) => {
                if shard.letter(now, letter)? {
                    shard.submit().into_iter().for_each(&mut *commit);
                }
            }
            Message::Committed { index, lsn, payload } => committed.push((index, lsn, payload)),
            Message::Checkpoint { sender, last } => parts.push((sender, last)),
            Message::Stop => stops = true,
        }
    }
    // The new batch is on its way to the disk while the last one is applied and answered.
    shard.submit().into_iter().for_each(&mut *commit);
    for (index, lsn, payload) in committed {
        shard.committed(now, index, lsn, payload)?;
    }
    shard.wake(now)?;
    shard.send(now)?;
    shard.submit().into_iter().for_each(&mut *commit);
    for (sender, last) in parts {
        // Whoever asked may have given up waiting.
        drop(sender.try_send(shard.part(last)?));
    }
    Ok(stops)
}
