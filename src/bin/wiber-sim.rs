//! Tortures Wiber in a simulation, and says what became of it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use wiber::sim::{Options, bugs, run};
use wiber::time::Now;

/// The whole broker in one thread, from one seed: crashes, power cuts, failing and full disks.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    wiber-sim --seed 42             replay one run, and print what happens in it\n  \
    wiber-sim run --seeds 300       300 runs\n  \
    wiber-sim run --time 3600       as many runs as there are in an hour\n  \
    wiber-sim bugs                  plant mistakes, and see each of them caught"
)]
struct Args {
    /// Replay this run and print its trace.
    #[arg(long)]
    seed: Option<u64>,
    /// Steps with faults in each run.
    #[arg(long, default_value_t = 40_000, global = true)]
    steps: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds.
    Run {
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 300)]
        seeds: u64,
        /// Stop after so many seconds; with this, --seeds is no bound.
        #[arg(long)]
        time: Option<u64>,
    },
    /// Plant mistakes and show what catches each of them.
    Bugs {
        /// Only this one.
        #[arg(long)]
        only: Option<String>,
        /// Most seeds for each.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    // What fails says so itself.
    std::panic::set_hook(Box::new(|_| {}));
    match (args.seed, args.command) {
        (Some(seed), _) => {
            replay(Options { is_printed: true, steps: args.steps, ..Options::seed(seed) })
        }
        (None, Some(Command::Bugs { seeds, only })) => plant(seeds, only.as_deref()),
        (None, Some(Command::Run { from, seeds, time })) => many(from, seeds, time, args.steps),
        (None, None) => many(0, 300, None, args.steps),
    }
}

fn replay(options: Options) -> ExitCode {
    match run(&options) {
        Ok(report) => {
            println!(
                "seed {}: good; {} lives, {} published, {} acknowledged, trace {:016x} of {} lines",
                options.seed,
                report.lives,
                report.published,
                report.acked,
                report.hash,
                report.lines
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn many(from: u64, seeds: u64, time: Option<u64>, steps: usize) -> ExitCode {
    let begun = Now::read().moment;
    let is_over = |done: u64| match time {
        Some(seconds) => Now::read().moment.since(begun) >= Duration::from_secs(seconds),
        None => done == seeds,
    };
    let (mut done, mut lives, mut published, mut acked) = (0, 0, 0, 0);
    while !is_over(done) {
        let options = Options { steps, ..Options::seed(from + done) };
        match run(&options) {
            Ok(report) => {
                lives += report.lives;
                published += report.published;
                acked += report.acked;
            }
            Err(failure) => {
                eprintln!("{failure}");
                eprintln!("replay it with: wiber-sim --seed {} --steps {steps}", options.seed);
                return ExitCode::FAILURE;
            }
        }
        done += 1;
    }
    let seconds = Now::read().moment.since(begun).as_secs_f64();
    println!(
        "{done} seeds: {lives} lives, {published} messages published, {acked} acknowledged, \
         nothing lost, in {seconds:.0} s"
    );
    ExitCode::SUCCESS
}

fn plant(seeds: u64, only: Option<&str>) -> ExitCode {
    let mut missed = 0;
    println!("{:<20} {:>5}  caught by", "planted", "seed");
    for bug in bugs::ALL {
        if only.is_some_and(|only| only != format!("{bug:?}")) {
            continue;
        }
        let caught = bugs::catch(bug, seeds);
        let name = format!("{bug:?}");
        match caught.by {
            Some(failure) => {
                let what: String = failure.what.chars().take(60).collect();
                println!("{name:<20} {:>5}  {}: {what}", caught.seeds, failure.oracle);
            }
            None => {
                missed += 1;
                println!("{name:<20} {:>5}  nothing: it was not noticed", "-");
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
