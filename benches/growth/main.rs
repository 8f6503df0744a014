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
//! Each line is a broker of its own. Its processor time for each message is what to compare within a
//! table; the rate is what the machine had to give at that moment, with the load on it too.

#![expect(clippy::print_stdout, reason = "what it measures is printed")]
#![expect(clippy::disallowed_methods, reason = "real processes are measured in real time")]

mod broker;
mod client;
mod scenarios;

use std::process::ExitCode;

use scenarios::SCENARIOS;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_large = args.iter().any(|arg| arg == "--large");
    let wanted: Vec<&String> = args.iter().filter(|arg| *arg != "--large").collect();
    let names = SCENARIOS.map(|(name, _, _)| name);
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        println!("there is no {unknown}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the machine has two threads to spare");
    for (name, title, run) in SCENARIOS {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            println!("\n{title}");
            runtime.block_on(run(is_large));
        }
    }
    ExitCode::SUCCESS
}
