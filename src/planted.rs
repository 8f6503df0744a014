//! Bugs that can be planted on purpose, to see that the tests notice them.
//!
//! A bug is planted for the thread that asks for it, and only in builds for tests and for the
//! simulator: in any other build [`has`] is a constant, and nothing of this is left in the program.
//! `wiber-sim bugs` plants each of them in turn and shows what caught it.

/// A mistake that somebody could make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// OK is said when a batch is written, before it is synced.
    ReplyBeforeSync,
    /// A sealed segment gets its name without a sync of the folder.
    NoDirectorySync,
    /// A sync that failed is tried again, and its success believed.
    SyncRetried,
    /// Damage in the middle of the write-ahead log is cut off like a torn tail.
    CutInTheMiddle,
    /// Records are not bound to their segment: what a recycled one still holds is taken for new.
    StaleRecordTaken,
    /// A settled message moves the floor past unsettled ones.
    FloorPassesUnacked,
    /// A member gets twice its credit.
    CreditTwice,
    /// A group that was woken sets no other timer.
    LostWakeUp,
    /// A dead letter is committed in another batch than the settling of its original.
    DeadLetterApart,
    /// Attempts are not part of the durable state.
    AttemptsInMemory,
    /// The order of a hash map decides which of two timers comes first.
    HashOrder,
    /// An id is made of the time alone, so that a clock that is set back makes it again.
    IdReused,
    /// An acknowledgement is answered before it is durable.
    AckBeforeCommit,
    /// A checkpoint counts before the topics' files are synced.
    CheckpointUnsynced,
    /// A message whose time is over stays among what its holder has.
    LeaseKept,
    /// What an acknowledgement makes room for is not delivered before something else happens.
    AckMovesNothing,
    /// The bound on the unsettled messages of a group does not hold.
    MemoryUnbounded,
    /// A message is given up one failure too early.
    DeadLetterEarly,
    /// A message that is refused on a full disk is stored nevertheless.
    RefusedStored,
    /// A checkpoint leaves out the groups that have nothing settled above their floor.
    GroupForgotten,
    /// An answer takes the first place that waits for one, not its own.
    ReplyOutOfTurn,
    /// The last record of the log, for which nothing vouches, is cut though it is whole.
    LastRecordCut,
    /// With `fsync = interval`, nobody syncs when the interval is over.
    IntervalForgotten,
    /// What recovery reads of the log is believed to be on disk when a sync says so.
    TailBelieved,
    /// What was sent for a subscriber that sleeps is sent to it again.
    SentAgain,
    /// Of what is sent for a session that sleeps, what its socket did not take is lost.
    RestLost,
    /// A checkpoint says of all of its topics what the log was when the first was taken.
    PiecesAsOne,
    /// A session that has room again does not say so.
    PausedForEver,
    /// A member is sent what it has credit for, whether there is room for it or not.
    RoomIgnored,
    /// Messages that are too old go, whether every group has handled them or not.
    NeededTrimmed,
    /// The files of messages that are no longer kept are removed before a checkpoint says so.
    RemovedTooSoon,
    /// A message that is read from its file is sent without its text.
    TextLost,
    /// A plain subscriber is told only once that there is more than it has.
    FollowerForgotten,
    /// A history has one message less than was asked for.
    HistoryShort,
    /// A message that is given out again cannot be acknowledged.
    RetryRefused,
    /// Segments go until there is room for one more, and not until no more is left than may be.
    TrimmedTooMuch,
    /// A checkpoint for which there is no room ends the daemon.
    ShortageFatal,
    /// A follower is sent messages before it is told that it follows.
    FollowsTooSoon,
    /// The checksum of a line takes capital letters in its text for small ones.
    CaseUnsummed,
    /// The checksum of a checkpoint leaves out the groups.
    GroupsUnsummed,
}

/// All of them.
#[cfg(any(test, feature = "sim"))]
pub const ALL: [Bug; 40] = [
    Bug::ReplyBeforeSync,
    Bug::NoDirectorySync,
    Bug::SyncRetried,
    Bug::CutInTheMiddle,
    Bug::StaleRecordTaken,
    Bug::FloorPassesUnacked,
    Bug::CreditTwice,
    Bug::LostWakeUp,
    Bug::DeadLetterApart,
    Bug::AttemptsInMemory,
    Bug::HashOrder,
    Bug::IdReused,
    Bug::AckBeforeCommit,
    Bug::CheckpointUnsynced,
    Bug::LeaseKept,
    Bug::AckMovesNothing,
    Bug::MemoryUnbounded,
    Bug::DeadLetterEarly,
    Bug::RefusedStored,
    Bug::GroupForgotten,
    Bug::ReplyOutOfTurn,
    Bug::LastRecordCut,
    Bug::IntervalForgotten,
    Bug::TailBelieved,
    Bug::SentAgain,
    Bug::RestLost,
    Bug::PiecesAsOne,
    Bug::PausedForEver,
    Bug::RoomIgnored,
    Bug::NeededTrimmed,
    Bug::RemovedTooSoon,
    Bug::TextLost,
    Bug::FollowerForgotten,
    Bug::HistoryShort,
    Bug::RetryRefused,
    Bug::TrimmedTooMuch,
    Bug::ShortageFatal,
    Bug::FollowsTooSoon,
    Bug::CaseUnsummed,
    Bug::GroupsUnsummed,
];

/// Reads its name.
#[cfg(any(test, feature = "sim"))]
impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Bug, String> {
        let names: Vec<String> = ALL.iter().map(|bug| format!("{bug:?}")).collect();
        let found = names.iter().position(|known| known == name);
        found.map(|at| ALL[at]).ok_or_else(|| format!("it is none of {}", names.join(", ")))
    }
}

#[cfg(any(test, feature = "sim"))]
mod here {
    use std::cell::{Cell, RefCell};

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static KEPT: RefCell<Vec<(String, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
    }

    /// Plants a bug for this thread, or none.
    pub(crate) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
        KEPT.take();
    }

    /// Whether the bug is planted.
    pub(crate) fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Keeps commands for a later batch, for [`Bug::DeadLetterApart`].
    pub(crate) fn keep(topic: &str, commands: Vec<u8>) {
        KEPT.with_borrow_mut(|kept| kept.push((topic.to_owned(), commands)));
    }

    /// The first in the order of a hash map, for [`Bug::HashOrder`].
    pub(crate) fn any<T: Copy + Eq + std::hash::Hash>(all: Vec<T>) -> T {
        let set: std::collections::HashSet<T> = all.into_iter().collect();
        *set.iter().next().expect("there is one")
    }

    /// The line up to its groups, for [`Bug::GroupsUnsummed`].
    pub(crate) fn without_groups(line: &[u8]) -> &[u8] {
        &line[..memchr::memmem::find(line, b"\"groups\"").unwrap_or(line.len())]
    }

    /// The line with small letters in its text, for [`Bug::CaseUnsummed`].
    pub(crate) fn in_small_letters(line: &[u8]) -> Vec<u8> {
        let at = memchr::memmem::find(line, b",\"msg\":").unwrap_or(line.len());
        [&line[..at], &line[at..].to_ascii_lowercase()].concat()
    }

    /// What was kept for such topics.
    pub(crate) fn kept(is_mine: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
        let (mine, others): (Vec<_>, Vec<_>) =
            KEPT.take().into_iter().partition(|(topic, _)| is_mine(topic));
        KEPT.set(others);
        mine.into_iter().map(|(_, commands)| commands).collect()
    }
}

#[cfg(any(test, feature = "sim"))]
pub(crate) use here::plant;
#[cfg(any(test, feature = "sim"))]
pub(crate) use here::{any, has, in_small_letters, keep, kept, without_groups};

/// No bug is planted.
#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

/// Nothing is kept.
#[cfg(not(any(test, feature = "sim")))]
pub(crate) fn keep(_: &str, _: Vec<u8>) {}

/// The first.
#[cfg(not(any(test, feature = "sim")))]
pub(crate) fn any<T: Copy>(all: Vec<T>) -> T {
    all[0]
}

/// All of the line.
#[cfg(not(any(test, feature = "sim")))]
pub(crate) fn without_groups(line: &[u8]) -> &[u8] {
    line
}

/// The line.
#[cfg(not(any(test, feature = "sim")))]
pub(crate) fn in_small_letters(line: &[u8]) -> Vec<u8> {
    line.to_vec()
}

/// Nothing was kept.
#[cfg(not(any(test, feature = "sim")))]
pub(crate) fn kept(_: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `wiber-sim bugs --only Typo` planted nothing, and was content with that.
    #[test]
    fn a_bug_is_read_by_its_name_and_no_other() {
        for bug in ALL {
            assert_eq!(format!("{bug:?}").parse(), Ok(bug));
        }
        let refused = "Typo".parse::<Bug>().unwrap_err();
        assert!(refused.contains("HashOrder"), "{refused}");
    }
}
