//! What a group is told, and what it asks for.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Outcome;
use super::progress::Change;
use crate::ids::{ConnId, Offset};
use crate::time::Moment;

/// Why a member left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// Its connection closed, or it unsubscribed.
    Closed,
    /// It was not heard from for too long. It may join again on the same connection.
    Silent,
}

/// Something that happened to a group.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A member takes part from now on; for one that already does, its name and credit change.
    Join {
        /// The member.
        member: ConnId,
        /// What it calls itself. Need not be unique.
        name: Arc<str>,
        /// The most messages that it holds at a time.
        prefetch: u32,
    },
    /// A member takes part no longer: what it holds is ready for others at once.
    Leave {
        /// The member. Nothing happens if it is none.
        member: ConnId,
        /// How it went.
        why: Departure,
    },
    /// Messages up to this offset may be delivered. Never goes back.
    LogEnd {
        /// The last offset.
        end: Offset,
    },
    /// What lies before this offset is gone from the log and counts as settled. This changes the
    /// durable part at once, so feed it where the removal itself is applied.
    LogStart {
        /// The first offset that is left.
        first: Offset,
    },
    /// A message was handled. Answered.
    Ack {
        /// Who says so; need not be a member.
        member: ConnId,
        /// The message.
        offset: Offset,
    },
    /// A member refuses a message that it holds. Answered.
    Nack {
        /// The member.
        member: ConnId,
        /// The message.
        offset: Offset,
        /// The pause before the next delivery, if not the one of the schedule.
        delay: Option<Duration>,
        /// A code, for the history.
        reason: Option<String>,
        /// What went wrong, for the history.
        error: Option<String>,
        /// Whether this brings the message nearer to being given up.
        counts: bool,
        /// Give it up now.
        dead: bool,
    },
    /// A member needs more time for a message that it holds. Answered.
    Touch {
        /// The member.
        member: ConnId,
        /// The message.
        offset: Offset,
        /// How long from now; the ack timeout if it doesn't say.
        time: Option<Duration>,
    },
    /// The credit of a member changes.
    SetPrefetch {
        /// The member. Nothing happens if it is none.
        member: ConnId,
        /// The most messages that it holds at a time; 0 pauses it.
        prefetch: u32,
    },
    /// More may be sent to a member that [`Group::hand_out`](super::Group::hand_out) paused.
    Resume {
        /// The member. Nothing happens if it is none, or not paused.
        member: ConnId,
    },
    /// Time has passed: to be sent at [`Group::wake_at`](super::Group::wake_at).
    Wake,
    /// This change is durable now: one that the group asked for, or one that is replayed.
    Committed(&'a Change),
    /// The same for messages that are done with, one behind the other.
    Settled {
        /// The first of them.
        first: Offset,
        /// How many.
        count: u32,
    },
}

/// Something that a group asks its owner to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send a message to a member.
    Deliver {
        /// To whom.
        member: ConnId,
        /// Which message.
        offset: Offset,
        /// Which delivery of this message to this group it is, from 1 on.
        attempt: u32,
        /// The attempt that would be the last if all from this one on failed and counted: the
        /// maximum of retries, plus one, plus the attempts before this one that did not count.
        of: u32,
        /// When it counts as failed.
        until: Moment,
    },
    /// Make a change durable, then feed it back as [`Event::Committed`].
    Commit(Change),
    /// What to reply to the `Ack`, `Nack` or `Touch` just handled: exactly one for each.
    Answer(Verdict),
    /// Something that people will want to read in the log.
    Report(Report),
}

/// What to reply to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Acknowledged: once the commit that follows is durable.
    Acked {
        /// The member had lost the message before it said so.
        late: bool,
    },
    /// Refused, and will be delivered again.
    Nacked {
        /// How many failures counted by now: the next delivery is this retry.
        retry: u32,
        /// The maximum of retries.
        of: u32,
        /// How long from now.
        delay: Duration,
    },
    /// Refused for good: a dead letter, once the commit that follows is durable.
    DeadLettering,
    /// Refused for good in a group without dead letters: settled, once the commit that follows is
    /// durable.
    GaveUp,
    /// The lease is longer now.
    Touched {
        /// When the message counts as failed.
        until: Moment,
    },
    /// The message is not one that this member could say this of.
    NotPending,
}

/// Something that people will want to read in the log. `name` is always that of `member`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Report {
    /// A member takes part.
    Joined { member: ConnId, name: Arc<str>, prefetch: u32 },
    /// A member has left and its messages go back.
    Left { member: ConnId, name: Arc<str>, held: usize },
    /// A member is taken for dead and its messages go back.
    Dead { member: ConnId, name: Arc<str>, held: usize },
    /// A member has so much unsent that it gets nothing more for now.
    Paused { member: ConnId, name: Arc<str> },
    /// It gets messages again.
    Resumed { member: ConnId, name: Arc<str> },
    /// A message whose member went away is given to another.
    Redistributed { offset: Offset, from: Arc<str>, to: Arc<str> },
    /// A delivery failed; the next is retry `retry` of `of`, after `delay`.
    Retry { offset: Offset, name: Arc<str>, outcome: Outcome, retry: u32, of: u32, delay: Duration },
    /// A message failed for good and becomes a dead letter.
    DeadLettering { offset: Offset, name: Arc<str>, outcome: Outcome, attempts: u32 },
    /// A message failed for good in a group without dead letters: it stays in its topic only.
    GaveUp { offset: Offset, name: Arc<str>, outcome: Outcome, attempts: u32 },
    /// A message was acknowledged by a member that had lost it; `holder` had it by now.
    LateAck { offset: Offset, member: ConnId, holder: Option<Arc<str>> },
}
