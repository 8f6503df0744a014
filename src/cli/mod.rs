//! The command line: `wiber broker|pub|sub|history|ping|bench|config|check`.
//!
//! ```text
//!   arguments ─▶ clap ─▶ settings (flags, variables, file) ─▶ one file a subcommand ─▶ Exit
//! ```
//!
//! * Everything but `broker`, `config`, `bench` and `check` uses the public client of this crate and
//!   nothing else of it; `history --data-dir` uses the reader of logs, and `check` the checker.
//! * Results go to standard output, everything that is said about them to standard error.
//! * Every way to end has its number in [`Exit`]; every failure says what to do in a hint.
//! * A reader of the output that goes away (`wiber sub chat | head -1`) is no failure. Nothing here
//!   prints by macro, since those panic then.

mod bench;
mod broker;
mod check;
mod config;
mod exit;
mod history;
mod lines;
mod logging;
mod output;
mod ping;
mod progress;
mod publish;
mod settings;
mod signals;
mod subscribe;

use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

pub use exit::Exit;
use exit::Failure;
use signals::{Interrupt, Signals};

const EXAMPLES: &str = "\
Examples:
  wiber broker                            start a broker on 127.0.0.1:8888
  wiber sub chat                          in a second terminal: show what comes
  wiber pub chat \"Hello, world!\"          in a third: publish a message
  wiber sub chat --group workers          share the messages among a group
  seq 1000 | wiber pub chat -             publish a message for each line
  wiber history chat 5                    the last five messages
  wiber check                             verify the data, also beside a broker

Exit codes:
  0 ok · 1 internal error · 2 usage · 3 cannot connect · 4 cannot listen
  5 data directory not usable · 7 refused · 8 try again · 9 outcome unknown
  10 damaged data · 130 interrupted";

/// A durable message broker that a person can read.
#[derive(Parser, Debug)]
#[command(name = "wiber", version, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Broker(broker::Args),
    Pub(publish::Args),
    Sub(subscribe::Args),
    History(history::Args),
    Ping(ping::Args),
    Bench(Box<bench::Args>),
    Config(config::Args),
    Check(check::Args),
}

/// Runs the `wiber` command with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => {
            // Help, the version or a usage error; if nobody reads it, nobody misses it.
            drop(refused.print());
            return if refused.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    match run(cli.command) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => failure.report().into(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Broker(args) => broker::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Check(args) => interruptible(|| check::run(&args)),
        Command::History(args) if args.data_dir.is_some() => {
            interruptible(|| history::run_offline(&args))
        }
        Command::Pub(args) => as_client(|interrupt| publish::run(args, interrupt)),
        Command::Sub(args) => as_client(|interrupt| subscribe::run(args, interrupt)),
        Command::History(args) => as_client(|interrupt| history::run(args, interrupt)),
        Command::Ping(args) => as_client(|interrupt| ping::run(args, interrupt)),
    }
}

/// Runs a client command on a runtime of its own, with Ctrl-C caught.
fn as_client<F>(command: impl FnOnce(Interrupt) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = runtime(Builder::new_multi_thread().worker_threads(2))?;
    let result = runtime.block_on(async { command(Interrupt::catch()?).await });
    runtime.shutdown_background();
    result
}

/// Runs a command that reads files, which a signal ends where it stands: there is nothing to take leave of.
fn interruptible(command: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let runtime = runtime(Builder::new_multi_thread().worker_threads(1))?;
    let mut signals = {
        let _in_runtime = runtime.enter();
        Signals::catch()?
    };
    runtime.spawn(async move {
        signals.next().await;
        std::process::exit(Exit::Interrupted.code().into());
    });
    let result = command();
    runtime.shutdown_background();
    result
}

fn runtime(builder: &mut Builder) -> Result<Runtime, Failure> {
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("failed to start: {error}")))
}
