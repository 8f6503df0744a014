//! `wiber bench`: how fast a broker is on this machine.
//!
//! ```text
//!   plan ─▶ target (a broker of its own) ─▶ engine ─┬─ publish   closed loops, or answers to the …
//!                                                   ├─ pace      … sender at a fixed rate
//!                                                   ├─ consume   subscribers, members of groups
//!                                    or catchup ────┤
//!                                                   └─ process   what the broker uses meanwhile
//!                                                          ▼
//!                                              report: a table, or JSON
//! ```
//!
//! * Every answer is checked, and every message at every consumer: a number of a broker that loses
//!   something is none. What is wrong ends the run with a failure.
//! * No coordinated omission: at a fixed rate, a time counts from when the message was to be sent.
//!   In a closed loop (the broker sets the pace) it counts from when it was sent.
//! * It does not use the client of this crate, since it is the broker that is to be measured:
//!   prepared bytes go out, and lines are looked at where they lie.

mod args;
mod aside;
mod catchup;
mod consume;
mod cores;
mod defaults;
mod device;
mod disk;
mod echo;
mod engine;
mod load;
mod messages;
mod pace;
mod plan;
mod process;
mod progress;
mod publish;
mod report;
mod target;
mod times;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use super::exit::{Exit, Failure};
use super::output::Out;
use super::signals::{Interrupt, Signals};
use crate::server;
use args::{CatchupFlags, DiskFlags, LoadFlags, TargetFlags, TourFlags};
use aside::aside;
use disk::DiskTimes;
use plan::Plan;
use process::Process;
use report::Report;
use target::{Settings, Target};

const EXAMPLES: &str = "\
Examples:
  wiber bench                          a tour: every kind of run for a second
  wiber bench pub --window 1           one run: one message at a time
  wiber bench group --rate 20000       at a fixed rate
  wiber bench mixed --json | jq .broker
  wiber bench pub --help               all that a run can be told

Starts a broker for each run, in a directory below this one, and removes it
afterwards. Every answer and every message is checked: what is lost or doubled
is a failure.";

const PUB: &str = "\
Examples:
  wiber bench pub                      1 connection, 1000 messages on their way
  wiber bench pub --window 1           one message at a time
  wiber bench pub -c 100 -w 1          a hundred do that
  wiber bench pub --rate 50000         at a fixed rate
  wiber bench pub --size 1KiB --fsync never
  wiber bench pub --addr broker:8888   a broker that runs; its topic stays there";

const SUB: &str = "\
Examples:
  wiber bench sub                      1 publisher, 1 subscriber
  wiber bench sub --subscribers 4 --topics 2 --connections 2";

const GROUP: &str = "\
Examples:
  wiber bench group                    1 publisher, a group of 4
  wiber bench group --groups 3 --members 10 --prefetch 100
  wiber bench group --rate 20000";

const LATENCY: &str = "\
Examples:
  wiber bench latency                  1000 messages a second, 1 subscriber
  wiber bench latency --subscribers 0 --groups 1
  wiber bench latency --rate 100000 --connections 10

Times count from when a message was to be sent, so that what a slow moment holds
up counts too. How late this command itself was is part of them, and shown as
the sender's.";

const FANOUT: &str = "\
Examples:
  wiber bench fanout                   1 publisher, 100 subscribers
  wiber bench fanout --subscribers 1000 --rate 100";

const CATCHUP: &str = "\
Examples:
  wiber bench catchup                  500000 messages: HISTORY, then a group
  wiber bench catchup --messages 5_000_000 --members 16";

const MIXED: &str = "\
Examples:
  wiber bench mixed                    8 publishers, 4 topics
  wiber bench mixed --topics 20 --connections 40 --groups 2 --duration 1m

Each topic has a subscriber and a group.";

const DISK: &str = "\
Examples:
  wiber bench disk                     4 KiB at a time, each synced
  wiber bench disk --data-dir /srv/wiber";

/// Measure how fast a broker is on this machine
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    run: Option<Kind>,
    #[command(flatten)]
    tour: TourFlags,
    #[command(flatten)]
    target: TargetFlags,
}

#[derive(clap::Subcommand, Debug)]
enum Kind {
    /// Publish, and nothing else
    #[command(after_help = PUB, mut_args = defaults::of(&plan::PUB))]
    Pub(Flags),
    /// Publish to a plain subscriber
    #[command(after_help = SUB, mut_args = defaults::of(&plan::SUB))]
    Sub(Flags),
    /// Publish to a group, whose members acknowledge
    #[command(after_help = GROUP, mut_args = defaults::of(&plan::GROUP))]
    Group(Flags),
    /// Publish at a fixed rate, and see how long messages take
    #[command(after_help = LATENCY, mut_args = defaults::of(&plan::LATENCY))]
    Latency(Flags),
    /// Publish to many subscribers
    #[command(after_help = FANOUT, mut_args = defaults::of(&plan::FANOUT))]
    Fanout(Flags),
    /// Read what is there already: the history, and a group's backlog
    #[command(after_help = CATCHUP)]
    Catchup {
        #[command(flatten)]
        load: CatchupFlags,
        #[command(flatten)]
        target: TargetFlags,
    },
    /// Several topics, publishers, subscribers and groups at once
    #[command(after_help = MIXED, mut_args = defaults::of(&plan::MIXED))]
    Mixed(Flags),
    /// What a durable write, an echo and shared memory cost without a broker
    #[command(after_help = DISK)]
    Disk(DiskFlags),
}

#[derive(clap::Args, Debug)]
struct Flags {
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    target: TargetFlags,
}

/// How long the disk is measured before a run, for each way of writing.
const DISK_TIME: Duration = Duration::from_millis(100);

/// `wiber bench`
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // Each connection needs a descriptor here as well as in the broker.
    server::raise_open_files();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = super::runtime(builder.worker_threads(args.threads().clamp(1, 1024)))?;
    let result = runtime.block_on(async {
        // Caught before anything is there that would have to be removed, until nothing is.
        let mut interrupt = Interrupt::by(signals()?);
        tokio::select! {
            biased;
            () = interrupt.wait() => Err(Failure::quiet(Exit::Interrupted)),
            done = work(args) => done,
        }
    });
    runtime.shutdown_background();
    result
}

/// The signals that end it.
fn signals() -> Result<Signals, Failure> {
    let mut signals = Signals::catch()?;
    if !Process::own().ignores_hangup() {
        signals.heed_hangup()?;
    }
    Ok(signals)
}

impl Args {
    /// Threads that make the load.
    fn threads(&self) -> usize {
        match &self.run {
            None => self.target.threads,
            Some(Kind::Disk(_)) => 1,
            Some(Kind::Catchup { target, .. }) => target.threads,
            Some(
                Kind::Pub(flags)
                | Kind::Sub(flags)
                | Kind::Group(flags)
                | Kind::Latency(flags)
                | Kind::Fanout(flags)
                | Kind::Mixed(flags),
            ) => flags.target.threads,
        }
    }
}

async fn work(args: &Args) -> Result<(), Failure> {
    let (preset, flags) = match &args.run {
        None => return tour(&args.tour, &args.target).await,
        Some(Kind::Disk(flags)) => return disk::run(flags).await,
        Some(Kind::Catchup { load, target }) => return one(&plan::catchup(load)?, target).await,
        Some(Kind::Pub(flags)) => (plan::PUB, flags),
        Some(Kind::Sub(flags)) => (plan::SUB, flags),
        Some(Kind::Group(flags)) => (plan::GROUP, flags),
        Some(Kind::Latency(flags)) => (plan::LATENCY, flags),
        Some(Kind::Fanout(flags)) => (plan::FANOUT, flags),
        Some(Kind::Mixed(flags)) => (plan::MIXED, flags),
    };
    one(&preset.with(&flags.load)?, &flags.target).await
}

/// Every kind of run, one after the other, in one table.
async fn tour(tour: &TourFlags, flags: &TargetFlags) -> Result<(), Failure> {
    let settings = Settings::of(flags)?;
    let disk = measure_disk(flags).await?;
    let mut out = Out::new();
    if !flags.json {
        let settings = settings.iter().flat_map(Settings::words);
        let words = ["a tour of all runs".to_owned()].into_iter().chain(settings);
        out.line(words.collect::<Vec<_>>().join(" · ").as_bytes());
        if let Some(disk) = &disk {
            out.line(disk.describe().as_bytes());
        }
        out.line(b"");
        report::print_tour_head(&mut out);
    }
    for plan in plan::tour(tour.duration)? {
        // What is known by now is shown while the next one runs.
        out.flush()?;
        let report = measured(&plan, flags, settings.as_ref()).await?;
        if flags.json {
            out.json(&report.json(settings.as_ref(), disk.as_ref()));
        } else {
            report.print_in_tour(&mut out);
        }
    }
    out.flush()
}

/// One run and its table.
async fn one(plan: &Plan, flags: &TargetFlags) -> Result<(), Failure> {
    let settings = Settings::of(flags)?;
    let disk = measure_disk(flags).await?;
    let report = measured(plan, flags, settings.as_ref()).await?;
    let mut out = Out::new();
    if flags.json {
        out.json(&report.json(settings.as_ref(), disk.as_ref()));
    } else {
        report.print(&mut out, settings.as_ref(), disk.as_ref());
    }
    out.flush()
}

/// The disk that the broker is on; not known of a broker that was there before.
async fn measure_disk(flags: &TargetFlags) -> Result<Option<DiskTimes>, Failure> {
    let here = flags.addr.is_none().then_some(PathBuf::from("."));
    let Some(dir) = flags.data_dir.clone().or(here) else { return Ok(None) };
    aside(move |stop| disk::measure(&dir, DISK_TIME, stop)).await.map(Some)
}

/// Does one run, on a broker of its own if none was named.
async fn measured(
    plan: &Plan,
    flags: &TargetFlags,
    settings: Option<&Settings>,
) -> Result<Report, Failure> {
    let target = Target::new(flags, settings, plan.size).await?;
    match plan.messages {
        Some(messages) => catchup::run(plan, messages, &target).await,
        None => engine::run(plan, &target).await,
    }
}
