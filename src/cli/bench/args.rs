//! What `wiber bench` can be told.

use std::path::PathBuf;
use std::time::Duration;

use crate::config;
use crate::limits::MESSAGE_BYTES_CEILING;

/// How much load, of which form. What is not given is the preset of the kind of run; its help shows
/// that.
#[derive(clap::Args, Clone, Default, Debug)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadFlags {
    /// Connections that publish
    #[arg(long, short, value_name = "N", value_parser = number::<usize>)]
    pub(super) connections: Option<usize>,
    /// Messages on their way on each of them, unanswered; not with --rate
    #[arg(long, short, value_name = "N", value_parser = number::<u32>)]
    pub(super) window: Option<u32>,
    /// Bytes of a message
    #[arg(long, short, value_name = "BYTES", value_parser = size)]
    pub(super) size: Option<usize>,
    /// Publish so many messages a second in all, whatever the broker does; above 100000, those of
    /// 200 µs in one write
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(super) rate: Option<u64>,
    /// How long to measure, such as 5s
    #[arg(long, short, value_name = "TIME", value_parser = duration)]
    pub(super) duration: Option<Duration>,
    /// How long to load before that, unmeasured
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) warmup: Option<Duration>,
    /// Topics to publish to; each connection has its share, in turn
    #[arg(long, value_name = "N", value_parser = number::<usize>)]
    pub(super) topics: Option<usize>,
    /// Plain subscribers of each topic
    #[arg(long, value_name = "N", value_parser = number::<usize>)]
    pub(super) subscribers: Option<usize>,
    /// Consumer groups of each topic
    #[arg(long, value_name = "N", value_parser = number::<usize>)]
    pub(super) groups: Option<usize>,
    /// Members of each group; each acknowledges every message it gets
    #[arg(long, value_name = "N", value_parser = number::<usize>)]
    pub(super) members: Option<usize>,
    /// Publish no further than so many messages ahead of the slowest consumer; not with --rate
    #[arg(long, value_name = "N", value_parser = number::<u64>)]
    pub(super) backlog: Option<u64>,
}

/// How much there is to catch up on.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub(super) struct CatchupFlags {
    /// Messages that are there before anyone reads
    #[arg(long, value_name = "N", default_value = "500000", value_parser = number::<u64>)]
    pub(super) messages: u64,
    /// Bytes of a message
    #[arg(long, short, value_name = "BYTES", default_value = "100", value_parser = size)]
    pub(super) size: usize,
    /// Messages on their way while they are published
    #[arg(long, short, value_name = "N", default_value = "1000", value_parser = number::<u32>)]
    pub(super) window: u32,
    /// Members of the group that catches up
    #[arg(long, value_name = "N", default_value = "4", value_parser = number::<usize>)]
    pub(super) members: usize,
}

/// How long the tour takes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct TourFlags {
    /// How long to measure each run of the tour
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(super) duration: Duration,
}

/// Which broker is loaded.
#[derive(clap::Args, Clone, Default, Debug)]
#[command(next_help_heading = "Broker")]
pub(super) struct TargetFlags {
    /// Load the broker there [default: start one, and remove it afterwards]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) addr: Option<String>,
    /// Its process, to show its CPU time and memory
    #[arg(long, requires = "addr")]
    pub(super) pid: Option<u32>,
    /// Where the started broker's directory is made, and the disk measured [default: .]; with --addr:
    /// a directory on that broker's disk, which is then measured too
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// When a message counts as stored: always, interval:200ms or never
    /// [default: WIBER_STORAGE__FSYNC, the settings file, always]
    #[arg(long, value_name = "WHEN", conflicts_with = "addr")]
    pub(super) fsync: Option<String>,
    /// Most messages that a member holds unacknowledged
    /// [default: WIBER_DELIVERY__PREFETCH, the settings file, 5]
    #[arg(long, value_name = "N", conflicts_with = "addr")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) prefetch: Option<u32>,
    /// Threads that make the load
    #[arg(long, value_name = "N", default_value = "2", value_parser = number::<usize>)]
    pub(super) threads: usize,
    /// Print an object for each run instead of tables
    #[arg(long)]
    pub(super) json: bool,
}

/// Where the disk is measured, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct DiskFlags {
    /// A directory of the file system to measure [default: .]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// How long to measure each
    #[arg(long, short, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(super) duration: Duration,
    /// Print an object instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = config::number(text).and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| "not a number, such as 1000 or 1_000".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| "a duration has a unit: 500ms, 5s, 1m".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = config::size(text).and_then(|bytes| usize::try_from(bytes).ok());
    let in_range = bytes.filter(|bytes| (1..=MESSAGE_BYTES_CEILING).contains(bytes));
    in_range.ok_or_else(|| "bytes from 1 to 16MiB, such as 100 or 1KiB".to_owned())
}
