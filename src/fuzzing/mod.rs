//! What a fuzzer runs: one function for each thing that reads bytes which nobody vouches for.
//!
//! ```text
//!   fuzz/fuzz_targets/<name>.rs   libFuzzer, for as long as one likes ─┐
//!   tests of this module          fuzz/corpus/<name>/*, and a few      ├──▶ Target::run(bytes)
//!                                 thousand variations of it, seeded ───┘    panics if anything is wrong
//! ```
//!
//! * A target is a pure function of its bytes: files are simulated, time stands still, and what
//!   looks like chance is drawn from the bytes themselves. A finding is one file, and replaying it
//!   is a test.
//! * A target knows what has to hold, not only that nothing may panic: the same commands however
//!   they are cut into reads, a recovery that changes nothing when it is done again, an answer for
//!   every command. Each file says what.
//! * Checksums are mended where the bytes ask for it, or no input would ever get behind one.
//!
//! Compiled for tests, and with the feature `fuzzing` for the crate in `fuzz/`.

mod checkpoint;
mod client_lines;
mod config;
mod script;
mod topic_log_recovery;
mod wal_recovery;

#[cfg(test)]
mod tests;

use script::Script;

/// Something that reads bytes which nobody vouches for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its corpus, and of the fuzzer's binary.
    pub name: &'static str,
    /// Feeds it the bytes; panics if what has to hold does not.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "client_lines", run: client_lines::run },
    Target { name: "wal_recovery", run: wal_recovery::run },
    Target { name: "topic_log_recovery", run: topic_log_recovery::run },
    Target { name: "checkpoint", run: checkpoint::run },
    Target { name: "config", run: config::run },
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, and if what has to hold does not.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of this name").run)(bytes);
}
