//! One sitting: every work with every broker, in turn, round after round.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::Args;
use crate::machine::{Limits, Machine, Ticks, ask_for_memory, cache_line};
use crate::peers::{Found, Peer, SETUPS, Setup, Watchdog, can_install, find, install};
use crate::results::{ROWS, Results, Run, WAITING};
use crate::say;
use crate::works::{Bench, Figures, Work};

/// A run is done over when more than this share of the processors was stolen meanwhile.
const STOLEN_MAX: f64 = 0.05;

/// How long the time of a cache line is measured before each run.
const CACHE_LINE: Duration = Duration::from_millis(50);

/// How often it is done over at most.
const REPEATS_MAX: u32 = 2;

/// Measures everything that the flags ask for. `file` has the results when all is
/// done, and until then a file beside it has those of each work that is.
pub(crate) fn measure(args: &Args, root: &Path, target: &Path, file: &Path) -> Result<Results> {
    let peers = peers(&args.only)?;
    let works = works(&args.work)?;
    let wiber = match &args.wiber {
        Some(path) => path.canonicalize().with_context(|| format!("{}", path.display()))?,
        None => build(root)?,
    };
    let found = found(args, &peers, &wiber, &target.join("peers"));
    allow_many_files();
    let place = args.scratch.as_deref().unwrap_or(target);
    let scratch = tempfile::Builder::new().prefix("scratch-").tempdir_in(place)?;
    let watchdog = Watchdog::start(scratch.path())?;
    // The watchdog removes it, whatever happens.
    let scratch = scratch.keep();
    // It may be built again while this runs.
    let copy = scratch.join("program");
    std::fs::copy(&wiber, &copy).context("failed to copy the binary")?;
    let found = found.with_wiber(copy);
    let (rounds, seconds, messages) =
        if args.quick { (1, 0.3, 20_000) } else { (args.rounds, args.seconds, args.messages) };
    let version = |peer: &Peer| Some((peer.id().to_owned(), found.version(*peer)?.to_owned()));
    let results = Results {
        date: today(),
        machine: Machine::read(&scratch),
        versions: peers.iter().filter_map(version).collect(),
        rounds,
        seconds,
        messages,
        ..Results::default()
    };
    let setups: Vec<&'static Setup> = SETUPS
        .iter()
        .filter(|setup| peers.contains(&setup.peer) && found.program(setup.peer).is_some())
        .collect();
    let time = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    let bench = Bench { found, watchdog, scratch, time, messages };
    Session { bench, setups, works, results, file: file.to_owned() }.run()
}

/// Wiber, and those that were asked for.
fn peers(only: &[String]) -> Result<Vec<Peer>> {
    let ids = Peer::ALL.map(Peer::id);
    if let Some(other) = only.iter().find(|name| !ids.contains(&name.as_str())) {
        bail!("--only: {other} is none of {}", ids.join(", "));
    }
    let is_wanted = |peer: &Peer| {
        *peer == Peer::Wiber || only.is_empty() || only.iter().any(|name| name == peer.id())
    };
    Ok(Peer::ALL.into_iter().filter(is_wanted).collect())
}

/// The works that measure what was asked for.
fn works(names: &[String]) -> Result<Vec<(&'static str, Work)>> {
    let rows = || ROWS.iter().chain([&WAITING]);
    for name in names {
        let mut known: Vec<&str> = rows().map(|row| row.name).collect();
        known.dedup();
        ensure!(known.contains(&name.as_str()), "--work: {name} is none of {}", known.join(", "));
    }
    let is_wanted = |work: &str| {
        let mut names = names.iter();
        names.len() == 0 || names.any(|n| rows().any(|row| row.name == n && row.work == work))
    };
    Ok(Work::ALL.into_iter().filter(|(name, _)| is_wanted(name)).collect())
}

/// Builds the release binary, as its users do.
fn build(root: &Path) -> Result<PathBuf> {
    say("building wiber");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked", "--bin", "wiber"]).current_dir(root);
    // Cargo sets these for what it runs, which is this crate.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_TARGET_DIR");
    ensure!(command.status().context("failed to run cargo")?.success(), "wiber was not built");
    Ok(root.join("target/release/wiber"))
}

fn found(args: &Args, peers: &[Peer], wiber: &Path, environment: &Path) -> Found {
    let mut found = find(Some(wiber), environment);
    let is_missing = peers.iter().any(|peer| found.program(*peer).is_none());
    if is_missing && !args.no_install && (args.install || can_install()) {
        install(peers, &found, environment, &say);
        found = find(Some(wiber), environment);
    }
    for peer in peers.iter().filter(|peer| found.program(**peer).is_none()) {
        say(&format!("{} was not found and is not measured", peer.name()));
    }
    found
}

/// Idle connections are many, on both sides.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it can't be raised, the work that needs it fails and says so.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok();
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

struct Session {
    bench: Bench,
    setups: Vec<&'static Setup>,
    works: Vec<(&'static str, Work)>,
    results: Results,
    file: PathBuf,
}

impl Session {
    fn run(mut self) -> Result<Results> {
        let pairs = |(_, work): &(_, Work)| {
            self.setups.iter().filter(|setup| work.suits(setup)).count() as u64
        };
        let length = u64::from(self.results.rounds) * self.works.iter().map(pairs).sum::<u64>();
        let bar = bar(length);
        for round in 1..=self.results.rounds {
            bar.set_message("the machine by itself");
            let limits = Limits::measure(&self.bench.scratch, self.bench.time / 2)?;
            self.results.limits.push(limits);
            for (name, work) in self.works.clone() {
                // Not always the same one first.
                self.setups.rotate_left(1);
                for setup in self.setups.clone() {
                    if work.suits(setup) {
                        bar.set_message(format!("round {round}, {name}, {}", setup.name()));
                        let run = self.once(round, name, work, setup);
                        bar.suspend(|| show(&run));
                        self.results.runs.push(run);
                        bar.inc(1);
                    }
                }
                self.results.save_part(&self.file)?;
            }
        }
        self.results.save(&self.file)?;
        bar.finish_and_clear();
        Ok(self.results)
    }

    /// Does it, and does it over if others had the processors.
    fn once(&self, round: u32, name: &str, work: Work, setup: &Setup) -> Run {
        let mut best: Option<Run> = None;
        for repeats in 0..=REPEATS_MAX {
            ask_for_memory();
            let cache_line = cache_line(CACHE_LINE);
            let before = Ticks::read();
            let result = self.bench.run(work, setup);
            let stolen = Ticks::read().stolen_since(before);
            let (figures, error) = match result {
                Ok(figures) => (figures, None),
                Err(error) => (Figures::new(), Some(format!("{error:#}"))),
            };
            let has_failed = error.is_some();
            let (work, setup) = (name.to_owned(), setup.id.to_owned());
            let run = Run { round, work, setup, figures, stolen, cache_line, repeats, error };
            if has_failed {
                return run;
            }
            if best.as_ref().is_none_or(|best| run.stolen < best.stolen) {
                best = Some(run);
            }
            if stolen <= STOLEN_MAX {
                break;
            }
        }
        best.expect("it was done at least once")
    }
}

fn bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {elapsed} {msg}")
        .expect("the template is well-formed");
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A line for each run.
fn show(run: &Run) {
    let figures = ROWS.iter().filter(|row| row.work == run.work).filter_map(|row| {
        let figure = run.figures.get(row.figure)?;
        let name = if row.figure == "rate" { "" } else { row.figure };
        Some(format!("{name} {}", row.unit.write(*figure)).trim().to_owned())
    });
    let text = match &run.error {
        Some(error) => format!("FAILED: {error}"),
        None => figures.collect::<Vec<_>>().join(", "),
    };
    let stolen = if run.stolen > STOLEN_MAX { " (much stolen)" } else { "" };
    say(&format!("{} {:10} {:16} {text}{stolen}", run.round, run.work, run.setup));
}
