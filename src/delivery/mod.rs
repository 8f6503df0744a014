//! What a consumer group does with each message: who gets it, for how long, how often, and what
//! becomes of it in the end.
//!
//! ```text
//!               deliver               ack                commit
//!    [READY] ────────────▶ [LEASED] ────────▶ [SETTLING] ──────────▶ settled; the floor may move
//!       ▲                    │   │                 ▲
//!       │ delay over         │   │ retries used up │ dead letter committed
//!    [WAITING] ◀─────────────┘   └────────▶ [DYING]┘
//!         timeout · nack                                (a member gone: READY again at once)
//! ```
//!
//! A [`Group`] is told what happened ([`Event`]) and answers with what to do ([`Action`]); then it
//! hands out what can be delivered, one message at a time, so that its owner can say after each
//! whether its member may have more ([`Group::hand_out`]). It never
//! reads a clock, a file or a socket: time is an argument, and the same events give the same
//! actions. It knows offsets, not messages.
//!
//! # Durable and local
//!
//! Durable is the [`Progress`] alone: the floor, the settled ranges above it, and the attempts of
//! what is unsettled. The group never changes it by itself (but for [`Event::LogStart`]): it asks
//! with [`Action::Commit`] and changes it when the change comes back as [`Event::Committed`]. Each
//! change that is asked for must come back, in the same order; an owner that can't do that makes a
//! new group from [`Group::into_progress`]. Members, leases, timers and credit are local. They move
//! at once, without waiting for a commit, and are forgotten at a restart: then everything unsettled
//! is delivered again, the lowest offset first, and the attempts are counted on.
//!
//! # Invariants
//!
//! [`Group::check`] asserts these; tests call it after each event.
//!
//! * Something ready and a member with credit that is not paused: delivered now. Nothing is ever
//!   skipped.
//! * At most one lease for each offset. A member never gets a message while it holds `prefetch`.
//! * Credit is computed from the leases; there is no second counter to disagree with them.
//! * The floor never passes an unsettled message. What was given out is settled or in memory.
//! * Memory follows what is in flight, not the backlog and not what has been settled.
//!
//! # The rules in short
//!
//! * Ready retries go out before new messages, both in order of their offsets. Members take turns
//!   in the order of joining; one without credit is passed over. A retry goes to another member
//!   than its last one if another has credit. One to which no more can be sent for now is paused:
//!   it keeps what it holds, and has no credit until it is resumed.
//! * The `attempt` of a delivery is the number of attempts before it plus one, whatever their
//!   outcome. Only timeouts and nacks count towards giving up: a message is given up at failure
//!   `max_retries + 1` that counts, or at a nack that says so. So `of`, the attempt that would be
//!   the last, is `max_retries + 1` plus the attempts that didn't count, and `attempt = of` exactly
//!   if one more failure that counts is the end.
//! * A delivery that the owner could not make ([`Group::not_sent`]) takes credit until its time is
//!   over, or its member leaves. It is no attempt.
//! * An acknowledgement of a message that is not settled counts, whoever has it by now.
//!
//! # What this deliberately does not do
//!
//! It does not write dead letters (the owner does, as part of committing
//! [`Change::DeadLettered`]), doesn't notice that members are silent (the session does), knows no
//! message ids, keys or order among keys, and does not remember members that left.

mod attempt;
mod deadlines;
mod events;
mod group;
mod leases;
#[cfg(test)]
mod load;
mod members;
#[cfg(test)]
mod model;
pub(crate) mod numbers;
mod policy;
mod progress;
#[cfg(test)]
mod random;
#[cfg(test)]
mod story_tests;
mod unsaved;

pub use attempt::{Attempt, Outcome};
pub use events::{Action, Departure, Event, Report, Verdict};
pub use group::{Group, Look};
pub use leases::Counts;
pub use policy::Policy;
pub use progress::{ATTEMPTS_KEPT_MAX, BadProgress, Change, Progress};
