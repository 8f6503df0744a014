//! One run.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::planted;

use super::Bug;
use super::world::{Seen, World};

/// Most steps without faults until everything has to be done.
const CALM_STEPS_MAX: usize = 200_000;

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Steps with faults.
    pub steps: usize,
    /// Whether the trace is printed.
    pub is_printed: bool,
    /// A mistake to plant.
    pub bug: Option<Bug>,
}

impl Options {
    /// The run of this seed.
    pub fn seed(seed: u64) -> Self {
        Self { seed, steps: 40_000, is_printed: false, bug: None }
    }
}

/// What a good run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// The number of its trace: the same run has the same.
    pub hash: u64,
    /// Lines of its trace.
    pub lines: u64,
    /// How often the daemon was started.
    pub lives: u64,
    /// Checkpoints that were made.
    pub checkpoints: u64,
    /// Messages answered `OK published`.
    pub published: usize,
    /// Answered `OK ack_received`.
    pub acked: usize,
    /// Texts that were sent again after a broken connection.
    pub repeated: usize,
    /// How often a topic let go of messages.
    pub trims: usize,
    /// Answered OK, and lost in a power cut as the fsync setting allows.
    pub lost: usize,
}

/// What an oracle saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// The oracle.
    pub oracle: &'static str,
    /// What it saw.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}: {}", self.seed, self.oracle, self.what)
    }
}

/// Runs a seed.
///
/// # Errors
/// The first thing that an oracle saw.
pub fn run(options: &Options) -> Result<Report, Failure> {
    planted::plant(options.bug);
    let lived = catch_unwind(AssertUnwindSafe(|| live(options)));
    planted::plant(None);
    let failure = |(oracle, what)| Failure { seed: options.seed, oracle, what };
    match lived {
        Ok(lived) => lived.map_err(failure),
        Err(panic) => Err(failure(("assertion", message(panic.as_ref())))),
    }
}

fn live(options: &Options) -> Result<Report, Seen> {
    let mut world = World::new(options.seed, options.is_printed);
    for _ in 0..options.steps {
        world.step()?;
    }
    world.is_calm = true;
    world.heal();
    let mut steps = 0;
    while steps % 100 > 0 || world.is_complete().is_err() {
        if steps > CALM_STEPS_MAX {
            let why = world.is_complete().expect_err("it was just not complete");
            return Err(("liveness", why));
        }
        world.step()?;
        steps += 1;
    }
    world.look_closely()?;
    world.stop_in_order()?;
    Ok(Report {
        hash: world.trace.hash(),
        lines: world.trace.lines(),
        lives: world.lives,
        checkpoints: world.checkpoints,
        published: world.ledger.published.len(),
        acked: world.ledger.acked.len(),
        repeated: world.ledger.repeated,
        trims: world.oracles.trims(),
        lost: world.ledger.lost,
    })
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
