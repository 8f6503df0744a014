//! `wiber ping`

use std::time::Duration;

use super::exit::{Exit, Failure};
use super::output::Out;
use super::settings::ClientFlags;
use super::signals::Interrupt;
use crate::client::{Client, Options};

const EXAMPLES: &str = "\
Examples:
  wiber ping                           exit code 0: a broker answers; 3: none does;
                                       8: it does, but has no room for another connection
  wiber ping --addr broker:8888 --timeout 500";

/// Ask a broker whether it is there
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// How long to wait for its answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    timeout: u64,
    #[command(flatten)]
    broker: ClientFlags,
}

pub(super) async fn run(args: Args, mut interrupt: Interrupt) -> Result<(), Failure> {
    let options = options(&args)?;
    let addr = options.addr.clone();
    let ping = async {
        let client = Client::connect(options).await?;
        client.ping().await
    };
    tokio::select! {
        answered = tokio::time::timeout(Duration::from_millis(args.timeout), ping) => {
            match answered {
                Ok(answer) => answer.map_err(|error| Failure::client("ping the broker", error))?,
                Err(_elapsed) => {
                    let text = format!("failed to ping {addr}: no answer in {} ms", args.timeout);
                    return Err(Failure::new(Exit::CannotConnect, text)
                        .hint("the broker has too much to do, or the network is slow; see --timeout"));
                }
            }
        }
        () = interrupt.wait() => return Err(Failure::quiet(Exit::Interrupted)),
    }
    let mut out = Out::new();
    out.line(b"OK pong");
    out.flush()
}

fn options(args: &Args) -> Result<Options, Failure> {
    let mut options = args.broker.options()?;
    options.reconnect.attempts = Some(0);
    // The timeout of all of it is what counts.
    options.connect_timeout = Duration::MAX;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Ping {
        #[command(flatten)]
        args: Args,
    }

    /// A connection was given up after five seconds.
    #[test]
    fn nothing_but_its_own_timeout_ends_it() {
        for timeout in ["12000", "18446744073709551615"] {
            let line = ["ping", "--addr", "127.0.0.1:1", "--timeout", timeout];
            let args = Ping::parse_from(line).args;
            let options = options(&args).unwrap();
            assert!(options.connect_timeout > Duration::from_millis(args.timeout));
        }
    }
}
