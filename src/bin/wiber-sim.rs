//! Tortures Wiber in a simulation, and says what became of it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};

use wiber::sim::{Bug, Options, bugs, run};
use wiber::time::Moment;

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
        only: Option<Bug>,
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
        (None, Some(Command::Bugs { seeds, only })) => plant(seeds, only),
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

/// Seeds, drawn by as many threads as there are processors.
struct Draw {
    next: AtomicU64,
    from: u64,
    until: u64,
    deadline: Option<Moment>,
}

impl Draw {
    fn seed(&self) -> Option<u64> {
        let seed = self.from + self.next.fetch_add(1, Ordering::Relaxed);
        let is_over = match self.deadline {
            Some(deadline) => Moment::read() >= deadline,
            None => seed >= self.until,
        };
        (!is_over).then_some(seed)
    }
}

/// What good runs add up to.
#[derive(Default)]
struct Sums {
    seeds: u64,
    lives: u64,
    published: usize,
    acked: usize,
    repeated: usize,
    trims: usize,
    lost: usize,
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn many(from: u64, seeds: u64, time: Option<u64>, steps: usize) -> ExitCode {
    let begun = Moment::read();
    let deadline = time.map(|seconds| begun + Duration::from_secs(seconds));
    let draw = Draw { next: AtomicU64::new(0), from, until: from + seeds, deadline };
    let (sums, failed) = (Mutex::new(Sums::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while failed.lock().expect("nobody panics with it").is_none()
                    && let Some(seed) = draw.seed()
                {
                    match run(&Options { steps, ..Options::seed(seed) }) {
                        Ok(report) => {
                            let mut sums = sums.lock().expect("nobody panics with it");
                            sums.seeds += 1;
                            sums.lives += report.lives;
                            sums.published += report.published;
                            sums.acked += report.acked;
                            sums.repeated += report.repeated;
                            sums.trims += report.trims;
                            sums.lost += report.lost;
                        }
                        Err(failure) => {
                            *failed.lock().expect("nobody panics with it") = Some(failure);
                        }
                    }
                }
            });
        }
    });
    if let Some(failure) = failed.into_inner().expect("nobody panics with it") {
        eprintln!("{failure}");
        eprintln!("replay it with: wiber-sim --seed {} --steps {steps}", failure.seed);
        return ExitCode::FAILURE;
    }
    let Sums { seeds, lives, published, acked, repeated, trims, lost } =
        sums.into_inner().expect("nobody panics with it");
    let seconds = Moment::read().since(begun).as_secs_f64();
    println!(
        "{seeds} seeds: {lives} lives, {published} messages published, {repeated} of them sent again, \
         {acked} acknowledged, {trims} times the oldest no longer kept, {lost} lost that fsync = interval or never may lose, nothing else, in \
         {seconds:.0} s"
    );
    ExitCode::SUCCESS
}

fn plant(seeds: u64, only: Option<Bug>) -> ExitCode {
    let wanted = |bug: &&Bug| only.is_none_or(|only| only == **bug);
    let todo: Vec<Bug> = bugs::ALL.iter().filter(wanted).copied().collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while let Some(bug) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let caught = bugs::catch(*bug, seeds);
                    done.lock().expect("nobody panics with it").push(caught);
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics with it");
    done.sort_by_key(|caught| bugs::ALL.iter().position(|bug| *bug == caught.bug));
    println!("{:<20} {:>5}  seen by", "planted", "seeds");
    for caught in &done {
        let name = format!("{:?}", caught.bug);
        let by = match &caught.by {
            Some(failure) => format!("{}: {}", failure.oracle, failure.what),
            None => {
                let other = caught.other.as_ref().map_or("nobody", |other| other.oracle);
                format!("{other}, and not by {}", bugs::oracle(caught.bug))
            }
        };
        let line: String =
            format!("{name:<20} {:>5}  {by}", caught.seeds).chars().take(80).collect();
        println!("{line}");
    }
    let is_all = done.iter().all(|caught| caught.by.is_some());
    if is_all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
