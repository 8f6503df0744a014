//! Whether the broker's cost stays the same as what it holds grows: topics, groups, members,
//! connections, what waits, what is stored, the size of a message.
//!
//! ```sh
//! cargo build --release
//! cargo run --release --example growth                      # all of it, some minutes
//! cargo run --release --example growth -- topics members    # some of it
//! cargo run --release --example growth -- --large           # with 10 million messages
//! ```
//!
//! Each line is a broker of its own, with the defaults but for `delivery.prefetch` and the limit of
//! connections, and ends with this program, however that ends. Its processor time for each message is
//! what to compare within a table; the rate is what the machine had to give at that moment, with the
//! load on it too.

#![expect(clippy::print_stdout, reason = "what it measures is printed")]
#![expect(clippy::disallowed_methods, reason = "real processes are measured in real time")]

mod broker;
mod client;
mod scenarios;

use std::process::ExitCode;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use scenarios::SCENARIOS;

/// Files that the scenarios with the most connections have open here.
const FILES: u64 = 10_100;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_large = args.iter().any(|arg| arg == "--large");
    let wanted: Vec<&String> = args.iter().filter(|arg| *arg != "--large").collect();
    let names = SCENARIOS.map(|(name, _, _)| name);
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        println!("there is no {unknown}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    allow_many_files();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the machine has two threads to spare");
    let all = async {
        for (name, title, run) in SCENARIOS {
            if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
                println!("\n{title}");
                run(is_large).await;
            }
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = all => ExitCode::SUCCESS,
            // The broker goes with what measured it, and its directory too.
            () = told_to_end() => {
                println!("told to end before it was done");
                ExitCode::FAILURE
            }
        }
    })
}

/// Ten thousand connections are a file each.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is possible then is looked at.
    setrlimit(Resource::Nofile, limit).ok();
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < FILES) {
        println!("the system allows {files} open files, and {FILES} may be needed: see ulimit -Hn");
    }
}

/// Ctrl-C, SIGTERM or SIGHUP.
async fn told_to_end() {
    let catch = |kind| signal(kind).expect("signals can be caught");
    let mut interrupt = catch(SignalKind::interrupt());
    let mut terminate = catch(SignalKind::terminate());
    let mut hangup = catch(SignalKind::hangup());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
