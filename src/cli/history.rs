//! `wiber history`

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{Exit, Failure};
use super::output::Out;
use super::settings::ClientFlags;
use super::signals::Interrupt;
use crate::client::Client;
use crate::ids::TopicName;

const EXAMPLES: &str = "\
Examples:
  wiber history chat                      the last ten messages
  wiber history chat 1000 --json | jq -r .msg
  wiber history jobs.dlq 5                dead letters, each a line of JSON
  wiber history chat --data-dir ./data    from the files, while no broker runs";

/// How long to look for a broker that went away.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Print the last messages of a topic
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The topic
    #[arg(value_parser = super::subscribe::topic)]
    topic: TopicName,
    /// How many
    #[arg(default_value_t = 10)]
    n: u64,
    /// A JSON object for each message
    #[arg(long)]
    json: bool,
    /// Read the files of this data directory, while no broker serves it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["host", "port", "addr"])]
    pub(super) data_dir: Option<PathBuf>,
    #[command(flatten)]
    broker: ClientFlags,
}

pub(super) async fn run(args: Args, mut interrupt: Interrupt) -> Result<(), Failure> {
    let mut options = args.broker.options()?;
    options.reconnect.give_up_after = Some(RECONNECT_PATIENCE);
    tokio::select! {
        printed = print(&args, options) => printed,
        () = interrupt.wait() => Err(Failure::quiet(Exit::Interrupted)),
    }
}

async fn print(args: &Args, options: crate::client::Options) -> Result<(), Failure> {
    let what = format!("read the history of {}", args.topic);
    let failed = |error| Failure::client(&what, error);
    let client = Client::connect(options).await.map_err(failed)?;
    let mut history = client.history_stream(&args.topic, args.n).await.map_err(failed)?;
    let mut out = Out::new();
    while let Some(message) = history.next().await.map_err(failed)? {
        out.message(&message, false, args.json);
        if out.is_full() {
            out.flush()?;
        }
    }
    out.flush()
}

/// Straight from the files.
pub(super) fn run_offline(args: &Args) -> Result<(), Failure> {
    let dir = args.data_dir.as_deref().unwrap_or(Path::new("./data"));
    // The one place to put `log::Reader::offline`, when it is there.
    let text = format!("failed to read {}: this version can't without a broker", dir.display());
    Err(Failure::new(Exit::Internal, text).hint("start a broker there and leave out --data-dir"))
}
