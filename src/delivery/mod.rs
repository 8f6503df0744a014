//! The state machine of one consumer group.
//!
//! ```text
//!               deliver               ack                commit
//!    [READY] ────────────▶ [LEASED] ────────▶ [SETTLING] ──────────▶ settled; the floor may move
//!       ▲                    │   │                 ▲
//!       │ delay over         │   │ retries used up │ dead letter committed
//!    [WAITING] ◀─────────────┘   └────────▶ [DYING]┘
//!         timeout · nack · consumer gone
//! ```
//!
//! [`Group::on`] takes the time and an event and appends what is to be done to a list; nothing here
//! reads a clock, draws a number or does I/O.
//!
//! * **Durable** is [`Progress`] alone: the floor, the settled ranges above it, the attempts. It
//!   moves only by committed [`Change`]s. The group asks for one with [`Action::Commit`]; its owner
//!   makes it durable and gives it back with [`Event::Committed`].
//! * **Local** are members, leases, delays and what is ready. They move at once and are never
//!   durable: after a restart, or on another node, everything unsettled is delivered again.
//! * New messages are delivered in offset order; retries that are ready go before them.
//! * Credit is what the prefetch leaves of the leases; there is no second counter.
//!
//! Invariants, asserted by [`Group::check`]: something ready and credit free ⇒ it was delivered; one
//! lease for each message; no member over its credit; the floor is below every unsettled message.
//!
//! Not here: message bodies and ids (`topic`), who is alive (`session`), and what a dead letter's
//! record looks like (`topic`).

mod group;
mod members;
#[cfg(test)]
mod model_tests;
mod policy;
mod progress;
#[cfg(test)]
mod story_tests;

use std::sync::Arc;
use std::time::Duration;

pub use group::Group;
pub use policy::Policy;
pub use progress::{Attempt, Change, Outcome, Progress};

use crate::ids::{ConnId, Offset};
use crate::time::Moment;

/// Why a member is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// Its connection is closed.
    Closed,
    /// It was not heard from for too long.
    Silent,
}

/// What happens to a group.
#[derive(Debug)]
pub enum Event<'a> {
    /// A member is there, or there again.
    Join {
        /// The member.
        member: ConnId,
        /// Its name in the history of attempts.
        name: Arc<str>,
        /// How many unacknowledged messages it may hold; with zero it gets none.
        prefetch: u32,
    },
    /// A member is gone; what it holds goes to others at once.
    Leave {
        /// The member.
        member: ConnId,
        /// Why.
        why: Departure,
    },
    /// The topic now ends here.
    LogEnd {
        /// The last offset.
        end: Offset,
    },
    /// A member has handled a message. Answered with a [`Verdict`].
    Ack {
        /// The member.
        member: ConnId,
        /// The message.
        offset: Offset,
    },
    /// A member could not handle a message. Answered with a [`Verdict`].
    Nack {
        /// The member.
        member: ConnId,
        /// The message.
        offset: Offset,
        /// When it may come again; by the schedule if not given.
        delay: Option<Duration>,
        /// A code for programs.
        reason: Option<String>,
        /// What went wrong, for people.
        error: Option<String>,
        /// Whether this is an attempt at all, or the message was just given back.
        counts: bool,
        /// No further try: it is a dead letter now.
        dead: bool,
    },
    /// Time has passed: [`Group::wake_at`] is due.
    Wake,
    /// A change is committed: one that the group asked for, or on replay one from the log.
    Committed(&'a Change),
}

/// The answer to an [`Event::Ack`] or [`Event::Nack`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It counts; `late` if the member did not hold the message any more.
    Acked {
        /// The message was given to others, or was about to be.
        late: bool,
    },
    /// The message comes again.
    Nacked {
        /// Which retry that will be.
        retry: u32,
        /// How many there are.
        of: u32,
        /// After this time.
        delay: Duration,
    },
    /// The message becomes a dead letter.
    DeadLettering,
    /// The member's group does not wait for an acknowledgement of this message.
    NotPending,
}

/// What a group asks its owner to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send a message to a member.
    Deliver {
        /// To whom.
        member: ConnId,
        /// Which.
        offset: Offset,
        /// Which try this is, counting only those that bring it nearer to the dead letters.
        attempt: u32,
        /// How many tries there are.
        of: u32,
        /// When it must be acknowledged.
        until: Moment,
    },
    /// Make this durable and give it back with [`Event::Committed`].
    Commit(Change),
    /// Answer the acknowledgement.
    Answer(Verdict),
    /// Tell people.
    Report(Report),
}

/// What people may want to know of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// A member is there.
    Joined {
        /// Its name.
        member: Arc<str>,
        /// How many there are now.
        members: usize,
    },
    /// A member is gone.
    Left {
        /// Its name.
        member: Arc<str>,
        /// Why.
        why: Departure,
        /// How many messages it held.
        held: usize,
        /// How many members are left.
        members: usize,
    },
    /// What a member that is gone held was given to another.
    Redistributed {
        /// The message.
        offset: Offset,
        /// Who has it now.
        to: Arc<str>,
    },
    /// A try failed; another will come.
    Retry {
        /// The message.
        offset: Offset,
        /// Which retry that will be.
        retry: u32,
        /// How many there are.
        of: u32,
        /// After this time.
        delay: Duration,
        /// What became of the last try.
        outcome: Outcome,
    },
    /// All tries failed; the message becomes a dead letter.
    DeadLettered {
        /// The message.
        offset: Offset,
        /// How many tries there were.
        attempts: u32,
    },
    /// All tries failed in a group that has no dead-letter topic: the message stays where it is.
    GaveUp {
        /// The message.
        offset: Offset,
        /// How many tries there were.
        attempts: u32,
    },
    /// An acknowledgement came after its time, and counts.
    LateAck {
        /// The message.
        offset: Offset,
    },
}
