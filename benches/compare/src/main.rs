//! Measures Wiber beside other message brokers.
//!
//! ```text
//! args → peers (find, install) → for each round, work and setup: a new server
//!        works, stored: what is done with it ── load: sockets and threads ── protocol: bytes
//!        results (a file in parts, work by work) → report: the terminal, the document, the plots
//! ```
//!
//! The brokers run in turn, one at a time, so that what the machine does meanwhile hits all of them
//! alike. It measures no broker over a network and none with several nodes.

mod args;
mod figures;
mod load;
mod machine;
mod peers;
mod protocol;
mod report;
mod results;
mod session;
mod stored;
mod works;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use args::Args;
use results::Results;

/// This crate's folder, in the repository.
const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Whether every run came to its end.
///
/// Only a full run replaces the document. What is measured in part stays in a folder of its own.
fn run(args: &Args) -> Result<bool> {
    let root = Path::new(HERE).ancestors().nth(2).context("this crate has moved")?;
    let target = Path::new(HERE).join("target/compare");
    let partial = target.join("partial");
    std::fs::create_dir_all(&partial)
        .with_context(|| format!("failed to make {}", partial.display()))?;
    let (file, docs) = if args.is_partial() {
        (partial.join("results.json"), partial)
    } else {
        (target.join("results.json"), root.join("docs"))
    };
    let results = if args.report_only {
        Results::load(&file)?
    } else {
        session::measure(args, root, &target, &file)?
    };
    report::terminal(&results);
    let (document, plots) = report::write(&results, &docs)?;
    say(&format!("wrote {} and {plots} plots", document.display()));
    Ok(results.runs.iter().all(|run| run.error.is_none()))
}

/// A line for who runs this.
#[expect(clippy::print_stderr, reason = "this is the command line")]
fn say(line: &str) {
    eprintln!("{line}");
}
