//! `wiber broker`

use std::io::{self, Write as _};

use tokio::runtime::Builder;

use super::exit::{Exit, Failure};
use super::settings::{self, BrokerFlags};
use super::signals::Signals;
use super::{logging, runtime};
use crate::broker::lock_file::Holder;
use crate::broker::open::OpenError;
use crate::config::{Config, LogFormat, show_duration};
use crate::disk;
use crate::limits::HEARTBEAT;
use crate::memory;
use crate::server::{Server, StartError, Started};

const EXAMPLES: &str = "\
Examples:
  wiber broker                                      on 127.0.0.1:8888, data in ./data
  wiber broker --host 0.0.0.0 --data-dir /srv/wiber
  wiber broker --port 0                             a free port; the start-up line says which
  WIBER_DELIVERY__ACK_TIMEOUT=5s wiber broker       any setting by variable

`wiber config show` prints the effective settings. SIGTERM or Ctrl-C stops in order; a second
one at once. `--help` lists every setting.";

/// Start a broker
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", settings::help()))]
pub(super) struct Args {
    #[command(flatten)]
    flags: BrokerFlags,
    /// Stop in order when standard input ends: with the program that started it, however that ends
    #[arg(long)]
    stop_with_stdin: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (config, _) = args.flags.load()?;
    logging::start(&config.log)?;
    warn_of(&config);
    memory::keep_little();
    let runtime = runtime(&mut Builder::new_current_thread())?;
    let result = runtime.block_on(serve(&config, args.stop_with_stdin));
    // After a failure nothing is waited for: what is on disk is what the next start goes by.
    runtime.shutdown_background();
    result
}

/// Says which settings are likely to do what nobody wants.
fn warn_of(config: &Config) {
    let dead_after = config.delivery.dead_after;
    if dead_after < 2 * HEARTBEAT {
        let (dead_after, heartbeat) = (show_duration(dead_after), show_duration(HEARTBEAT));
        tracing::warn!(
            event = "dead_after_short",
            dead_after,
            heartbeat,
            "delivery.dead_after is {dead_after}: under two heartbeats, which clients send every \
             {heartbeat}, members that are well are taken for dead while they are idle"
        );
    }
}

async fn serve(config: &Config, stops_with_stdin: bool) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    if stops_with_stdin {
        signals.heed_stdin()?;
    }
    let mut server = tokio::select! {
        started = Server::start(config) => started.map_err(|error| not_started(config, &error))?,
        signal = signals.next() => {
            tracing::info!(event = "start_cut_short", signal, "told to stop before it had started");
            return Err(Failure::quiet(Exit::Interrupted));
        }
    };
    announce(server.started(), config.log.format);
    tokio::select! {
        signal = signals.next() => {
            tracing::info!(event = "stopping", signal, "stopping in order; once more stops at once");
        }
        fatal = server.failed() => {
            tracing::error!(event = "failed", "{fatal}");
            let text = format!("failed to go on: {fatal}");
            return Err(Failure::new(Exit::Internal, text)
                .hint("what was acknowledged is on disk; find the cause, then start it again"));
        }
    }
    tokio::select! {
        stopped = server.stop() => match stopped {
            Ok(()) => {
                tracing::info!(event = "stopped", "stopped in order");
                Ok(())
            }
            Err(fatal) => {
                tracing::error!(event = "failed", "{fatal}");
                let text = format!("failed to stop in order: {fatal}");
                Err(Failure::new(Exit::Internal, text).hint("the next start will recover"))
            }
        },
        signal = signals.next() => {
            tracing::warn!(event = "stopped_at_once", signal, "the next start will recover");
            Err(Failure::quiet(Exit::Interrupted))
        }
    }
}

/// The start-up line, for people and for who started us; it is out before the first client is in.
/// The log for people does not repeat it, since it goes to the same terminal.
fn announce(started: &Started, format: LogFormat) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{started}").and_then(|()| stdout.flush()) {
        tracing::warn!(event = "no_stdout", "failed to write the start-up line: {error}");
    }
    let Started { addr, data_dir, fsync, .. } = started;
    let data_dir = data_dir.display();
    match format {
        LogFormat::Human => {
            tracing::debug!(event = "started", %addr, %data_dir, %fsync, "{started}");
        }
        LogFormat::Json => tracing::info!(event = "started", %addr, %data_dir, %fsync, "{started}"),
    }
}

fn not_started(config: &Config, error: &StartError) -> Failure {
    let failed = |exit| Failure::new(exit, error.to_string());
    match error {
        StartError::Listen { source, .. } => failed(Exit::CannotListen).hint(match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there; choose another port by --port, or 0 for a free one"
            }
            io::ErrorKind::PermissionDenied => {
                "ports under 1024 are the system's; choose another by --port"
            }
            _ => "--host has to be an address or a name of this machine",
        }),
        StartError::Open(error) => not_opened(config, error),
        StartError::System(_) => failed(Exit::Internal),
    }
}

fn not_opened(config: &Config, error: &OpenError) -> Failure {
    let failed = |exit| Failure::new(exit, error.to_string());
    let dir = config.storage.data_dir.display();
    if error.is_damage() {
        return failed(Exit::Damage)
            .hint("nothing was changed; see \"Damaged data\" in docs/operations.md");
    }
    if let Some(shortage) = error.system().filter(|error| disk::is_shortage(error)) {
        return failed(Exit::TryAgain).hint(if disk::is_no_space(shortage) {
            "make room on the disk; nothing is lost, and the next start goes on from there"
        } else {
            "allow more open files (`ulimit -n`), of which wiber needs one for each connection and topic"
        });
    }
    match error {
        OpenError::Locked { holder, .. } => failed(Exit::DataDirUnusable).hint(match holder {
            Holder::Broker => "stop that broker, or choose another directory by --data-dir",
            _ => "wait until it is done, or end it",
        }),
        OpenError::FoldsCase { .. } => failed(Exit::DataDirUnusable)
            .hint("choose a directory on another file system by --data-dir"),
        OpenError::Folder { .. } => {
            failed(Exit::DataDirUnusable).hint("move it to another place, or give it another name")
        }
        OpenError::Newer { .. } => failed(Exit::DataDirUnusable),
        _ => failed(Exit::DataDirUnusable)
            .hint(format!("{dir} has to be a directory that this user can write to")),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// A supervisor that is told not to try again after exit code 5 left the broker down when there was room
    /// again.
    #[test]
    fn what_may_be_there_later_is_no_unusable_directory() {
        for (errno, exit, hint) in [
            (Errno::NOSPC, Exit::TryAgain, "make room on the disk"),
            (Errno::DQUOT, Exit::TryAgain, "make room on the disk"),
            (Errno::MFILE, Exit::TryAgain, "`ulimit -n`"),
            (Errno::ACCESS, Exit::DataDirUnusable, "this user can write to"),
        ] {
            let error = OpenError::Unusable { path: "chat.log".into(), source: errno.into() };
            let failure = not_started(&Config::default(), &StartError::Open(error));
            assert!(format!("{failure:?}").contains(hint), "{failure:?}");
            assert_eq!(failure.report(), exit, "{errno:?}");
        }
    }
}
