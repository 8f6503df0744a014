//! Mistakes planted one after the other, and what sees them: each oracle has one at least that it
//! is there for.

use super::{Bug, Failure, Options, run};
pub use crate::planted::ALL;

/// What became of a planted mistake.
#[derive(Debug)]
pub struct Caught {
    /// The mistake.
    pub bug: Bug,
    /// How many seeds it took.
    pub seeds: u64,
    /// What the oracle saw that is there for it; `None` if that one saw nothing.
    pub by: Option<Failure>,
    /// The first thing that anybody else saw.
    pub other: Option<Failure>,
}

/// The oracle that is there for the mistake, by the name of its file; or the part of a run that is:
/// recovery, rot, liveness, determinism, no fault.
pub fn oracle(bug: Bug) -> &'static str {
    match bug {
        Bug::ReplyBeforeSync | Bug::IntervalForgotten => "published",
        Bug::IdReused | Bug::PiecesAsOne => "dense",
        Bug::NoDirectorySync
        | Bug::SyncRetried
        | Bug::StaleRecordTaken
        | Bug::CheckpointUnsynced
        | Bug::TailBelieved
        | Bug::RemovedTooSoon => "recovery",
        Bug::CutInTheMiddle | Bug::CaseUnsummed | Bug::GroupsUnsummed => "rot",
        Bug::LostWakeUp | Bug::PausedForEver | Bug::FollowerForgotten => "liveness",
        Bug::HashOrder => "determinism",
        Bug::FloorPassesUnacked | Bug::DeadLetterApart => "floor",
        Bug::CreditTwice | Bug::RoomIgnored => "credit",
        Bug::AttemptsInMemory => "attempts",
        Bug::AckBeforeCommit => "acked",
        Bug::LeaseKept => "leases",
        Bug::AckMovesNothing => "ready",
        Bug::MemoryUnbounded => "memory",
        Bug::DeadLetterEarly => "dead_letters",
        Bug::RefusedStored => "stored",
        Bug::GroupForgotten => "groups",
        Bug::NeededTrimmed | Bug::TrimmedTooMuch => "kept",
        Bug::ReplyOutOfTurn
        | Bug::SentAgain
        | Bug::RestLost
        | Bug::TextLost
        | Bug::HistoryShort
        | Bug::FollowsTooSoon
        | Bug::RetryRefused => "replies",
        Bug::LastRecordCut => "prefix",
        Bug::ShortageFatal => "no fault",
    }
}

/// Plants a mistake and runs seeds until the oracle that is there for it sees it, at most
/// `seeds_max`. Others may see it before.
pub fn catch(bug: Bug, seeds_max: u64) -> Caught {
    let mut other = None;
    for seed in 0..seeds_max {
        let options = Options { bug: Some(bug), ..Options::seed(seed) };
        let seen = match run(&options) {
            Err(failure) => Some(failure),
            Ok(report) if oracle(bug) == "determinism" => differs(&options, report.hash),
            Ok(_) => None,
        };
        match seen {
            Some(by) if by.oracle == oracle(bug) => {
                return Caught { bug, seeds: seed + 1, by: Some(by), other };
            }
            seen => other = other.or(seen),
        }
    }
    Caught { bug, seeds: seeds_max, by: None, other }
}

/// The same seed must give the same run.
fn differs(options: &Options, hash: u64) -> Option<Failure> {
    let again = run(options).map(|report| report.hash);
    (again != Ok(hash)).then(|| Failure {
        seed: options.seed,
        oracle: "determinism",
        what: "the same seed gave another trace".to_owned(),
    })
}
