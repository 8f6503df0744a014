//! Mistakes planted one after the other, and what catches them.

use super::{Bug, Failure, Options, run};
pub use crate::planted::ALL;

/// What became of a planted mistake.
#[derive(Debug)]
pub struct Caught {
    /// The mistake.
    pub bug: Bug,
    /// How many seeds went well before.
    pub seeds: u64,
    /// What was seen; `None` if it was not caught.
    pub by: Option<Failure>,
}

/// Plants a mistake and runs seeds until one catches it, at most `seeds_max`.
pub fn catch(bug: Bug, seeds_max: u64) -> Caught {
    for seed in 0..seeds_max {
        let options = Options { bug: Some(bug), ..Options::seed(seed) };
        let outcome = run(&options);
        let by = match outcome {
            Err(failure) => Some(failure),
            Ok(report) => differs(&options, report.hash),
        };
        if by.is_some() {
            return Caught { bug, seeds: seed, by };
        }
    }
    Caught { bug, seeds: seeds_max, by: None }
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
