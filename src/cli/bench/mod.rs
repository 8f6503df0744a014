//! `wiber bench`: how fast a broker is on this machine.
//!
//! ```text
//!   plan ─▶ target (a broker of its own) ─▶ engine ─┬─ publish   closed loops, or answers to the …
//!                                                   ├─ pace      … sender at a fixed rate
//!                                                   ├─ consume   subscribers, members of groups
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
mod consume;
mod disk;
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

use std::path::Path;
use std::time::Duration;

use super::exit::{Exit, Failure};
use super::output::Out;
use super::signals::Interrupt;
use args::{DiskFlags, LoadFlags, TargetFlags};
use disk::DiskTimes;
use plan::Plan;
use report::Report;
use target::Target;

const EXAMPLES: &str = "\
Examples:
  wiber bench                          a tour: every kind of run for a second
  wiber bench pub                      one publisher, 1000 messages on their way
  wiber bench pub --window 1           one message at a time";

/// Measure how fast a broker is on this machine
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    run: Option<Kind>,
    #[command(flatten)]
    target: TargetFlags,
}

#[derive(clap::Subcommand, Debug)]
enum Kind {
    /// Publish
    Pub(Flags),
    /// Publish to a plain subscriber
    Sub(Flags),
    /// Publish to a group, whose members acknowledge
    Group(Flags),
    /// Publish at a fixed rate, and see how long messages take
    Latency(Flags),
    /// Publish to many subscribers
    Fanout(Flags),
    /// Several topics, publishers, subscribers and groups at once
    Mixed(Flags),
    /// What a durable write costs on this machine, without a broker
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
const DISK_TIME: Duration = Duration::from_millis(200);

/// `wiber bench`
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let (preset, flags) = match args.run {
        Some(Kind::Disk(flags)) => return disk::run(&flags),
        Some(Kind::Pub(flags)) => (plan::PUB, flags),
        Some(Kind::Sub(flags)) => (plan::SUB, flags),
        Some(Kind::Group(flags)) => (plan::GROUP, flags),
        Some(Kind::Latency(flags)) => (plan::LATENCY, flags),
        Some(Kind::Fanout(flags)) => (plan::FANOUT, flags),
        Some(Kind::Mixed(flags)) => (plan::MIXED, flags),
        None => return Ok(()),
    };
    let plan = preset.with(&flags.load)?;
    one(&plan, &flags.target)
}

/// One run and its table.
fn one(plan: &Plan, flags: &TargetFlags) -> Result<(), Failure> {
    let disk = measure_disk(flags)?;
    let report = measured(plan, flags)?;
    let mut out = Out::new();
    if flags.json {
        out.json(&report.json(fsync(flags), disk.as_ref()));
    } else {
        report.print(&mut out, fsync(flags), disk.as_ref());
    }
    out.flush()
}

/// How safe a published message is; not known of a broker that was there before.
fn fsync(flags: &TargetFlags) -> Option<&str> {
    flags.addr.is_none().then(|| flags.fsync.as_deref().unwrap_or("always"))
}

/// The disk that the broker is on; not known of a broker that was there before.
fn measure_disk(flags: &TargetFlags) -> Result<Option<DiskTimes>, Failure> {
    let here = flags.addr.is_none().then_some(Path::new("."));
    let dir = flags.data_dir.as_deref().or(here);
    dir.map(|dir| disk::measure(dir, DISK_TIME)).transpose()
}

/// Does one run, on a broker of its own if none was named.
fn measured(plan: &Plan, flags: &TargetFlags) -> Result<Report, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = super::runtime(builder.worker_threads(flags.threads.max(1)))?;
    let result = runtime.block_on(async {
        let mut interrupt = Interrupt::catch()?;
        let target = Target::new(flags)?;
        tokio::select! {
            report = engine::run(plan, &target) => report,
            () = interrupt.wait() => Err(Failure::quiet(Exit::Interrupted)),
        }
    });
    runtime.shutdown_background();
    result
}
