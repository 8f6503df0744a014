//! How many instructions the hot paths take, so that a regression shows on a machine whose clock
//! says nothing: counted by valgrind, and held to `benches/baseline.json`.
//!
//! ```sh
//! cargo run --release --example instructions               # compare with the baseline
//! cargo run --release --example instructions -- decode     # one subject
//! cargo run --release --example instructions -- --bless    # make what is counted the baseline
//! ```
//!
//! Each subject is run twice under valgrind, for few messages and for many. The difference is what
//! the additional messages took: starting up and preparing cancel out.
//!
//! Where valgrind is missing, or the baseline is of another processor or compiler, this does not fail:
//! a number that has no like is no regression. It says so in a line that begins with
//! `instructions NOT compared`, which `.ci/run` repeats at its end.

#![expect(clippy::print_stdout, reason = "what it counts is printed")]

mod baseline;
mod count;
mod subjects;

use std::process::ExitCode;

use baseline::{Baseline, Verdict};
use subjects::SUBJECTS;

/// `.ci/run` looks for it.
const NOT_COMPARED: &str = "instructions NOT compared";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [run, name, messages] = args.as_slice()
        && run == count::RUN
    {
        let subject = SUBJECTS.iter().find(|subject| subject.name == name);
        let messages = messages.parse().expect("count() gives a number");
        (subject.expect("count() names a subject").run)(messages);
        return ExitCode::SUCCESS;
    }
    let is_to_bless = args.iter().any(|arg| arg == "--bless");
    let wanted: Vec<_> = args.iter().filter(|arg| *arg != "--bless").collect();
    if let Some(unknown) = wanted.iter().find(|name| !SUBJECTS.iter().any(|s| s.name == **name)) {
        println!("there is no subject {unknown}");
        return ExitCode::FAILURE;
    }
    if let Err(why) = count::probe() {
        println!("{NOT_COMPARED}: {why}");
        return if is_to_bless { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let mut baseline = Baseline::read();
    let judge = baseline.judge();
    if let Err(why) = judge.as_ref()
        && is_to_bless
        && !wanted.is_empty()
    {
        println!("only all of the baseline can be renewed: {why}");
        return ExitCode::FAILURE;
    }
    println!("{:<14} {:>12} {:>12} {:>8}", "instructions", "a message", "baseline", "change");
    let mut is_good = true;
    for subject in SUBJECTS {
        if !wanted.is_empty() && !wanted.iter().any(|name| *name == subject.name) {
            continue;
        }
        let counted = count::per_message(subject.name);
        let Verdict { line, is_regression } = baseline.compare(subject.name, counted);
        println!("{line}");
        is_good &= !is_regression;
        baseline.set(subject.name, counted);
    }
    if is_to_bless {
        baseline.write();
        println!("this is the baseline now");
        return ExitCode::SUCCESS;
    }
    match judge {
        Err(why) => {
            println!("{NOT_COMPARED}: {why}: renew it with --bless");
            println!("→ the table is for information; if this compiler is here to stay:");
            println!("  cargo run --release --example instructions -- --bless");
        }
        Ok(()) if is_good => {}
        Ok(()) => {
            println!("→ look what made it slower; if it is worth it, renew the baseline:");
            println!("  cargo run --release --example instructions -- --bless");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
