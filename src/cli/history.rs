//! `wiber history`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::exit::{Exit, Failure, warn};
use super::output::Out;
use super::settings::ClientFlags;
use super::signals::Interrupt;
use crate::broker::layout::Layout;
use crate::broker::lock_file::{self, Held, Holder, Refused};
use crate::client::{Client, Options};
use crate::disk::Disk;
use crate::disk::os::OsDisk;
use crate::ids::{Offset, TopicName};
use crate::log::{LogError, Reader};
use crate::topic::lines;

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

async fn print(args: &Args, options: Options) -> Result<(), Failure> {
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

/// Straight from the files, in the form in which a broker would send it.
pub(super) fn run_offline(args: &Args) -> Result<(), Failure> {
    let dir = args.data_dir.as_deref().unwrap_or(Path::new("./data"));
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let _held = enter(disk.as_ref(), dir)?;
    let mut reader =
        Reader::offline(Arc::clone(&disk), dir, args.topic.clone()).map_err(|e| failed(&e))?;
    let end = reader.shared().end();
    let first = Offset::new((end.get() + 1).saturating_sub(args.n).max(1));
    reader.seek(first).map_err(|e| failed(&e))?;
    let mut out = Out::new();
    let mut line = Vec::new();
    let mut damaged = 0;
    let mut left = args.n;
    while left > 0 {
        match reader.next() {
            Ok(Some(record)) => {
                line.clear();
                lines::write_history(&mut line, None, &args.topic, &record);
                out.wire_line(&line, args.json);
            }
            Ok(None) => break,
            Err(error @ LogError::Corrupt { .. }) => {
                damaged += 1;
                warn(&error.to_string());
            }
            Err(error) => return Err(failed(&error)),
        }
        left -= 1;
        if out.is_full() {
            out.flush()?;
        }
    }
    out.flush()?;
    if damaged == 0 {
        return Ok(());
    }
    let text = format!("failed to read {damaged} damaged messages of {}", args.topic);
    Err(Failure::new(Exit::Damage, text).hint("the others were printed"))
}

fn failed(error: &LogError) -> Failure {
    let exit = if error.is_damage() { Exit::Damage } else { Exit::DataDirUnusable };
    Failure::new(exit, error.to_string()).hint("check --data-dir, and that you may read its files")
}

/// Keeps a broker from starting meanwhile, and finds out whether one runs. Who may not write to the
/// directory reads without, and so does whoever finds another reader there.
fn enter(disk: &dyn Disk, dir: &Path) -> Result<Option<Held>, Failure> {
    match lock_file::take(disk, &Layout::new(dir), Holder::History) {
        Ok(held) => Ok(Some(held)),
        Err(Refused::Held(holder)) => {
            let text = format!("failed to read {}: {holder}", dir.display());
            let refused = Failure::new(Exit::DataDirUnusable, text);
            match holder {
                Holder::Check | Holder::History => Ok(None),
                Holder::Repair => Err(refused.hint("wait until it is done")),
                Holder::Broker => {
                    Err(refused.hint("ask the broker: leave out --data-dir, and name its --port"))
                }
            }
        }
        // A directory of the prototype, or of someone else.
        Err(Refused::Io(_)) => Ok(None),
    }
}
