//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Measures Wiber beside Redis, Valkey, NATS, beanstalkd and RabbitMQ on this machine.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  cargo run --release --manifest-path benches/compare/Cargo.toml
  … -- --only redis,nats --work pub-1,drain --rounds 1
  … -- --quick"
)]
pub(crate) struct Args {
    /// How often everything is measured; the tables have medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// Seconds that a run is measured
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub(crate) seconds: f64,

    /// Messages to store and work off, at most: slow peers get fewer
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) messages: u64,

    /// Peers to measure beside Wiber: redis, valkey, nats, beanstalkd, rabbitmq
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Works to measure: pub-1, pub-1000, pub-16x100, pub-64x1, pub-1k, queue, drain, replay,
    /// fan-1, fan-10, fan-100, latency, memory, start
    #[arg(long, value_name = "WORK", value_delimiter = ',')]
    pub(crate) work: Vec<String>,

    /// One short round with few messages: shows that everything works, not how fast
    #[arg(long)]
    pub(crate) quick: bool,

    /// The release binary to measure; without it, it is built
    #[arg(long, value_name = "PATH")]
    pub(crate) wiber: Option<PathBuf>,

    /// Install the peers that are missing; done anyway where that needs no password
    #[arg(long)]
    pub(crate) install: bool,

    /// Install nothing: what is missing is not measured
    #[arg(long, conflicts_with = "install")]
    pub(crate) no_install: bool,

    /// Where to put the scratch folder; its disk is what is measured
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,

    /// Make the document and the plots from the last full results again, and measure nothing
    #[arg(long, conflicts_with_all = ["only", "work", "quick"])]
    pub(crate) report_only: bool,
}

impl Args {
    /// Whether this is less than what the document is about.
    pub(crate) fn is_partial(&self) -> bool {
        self.quick || !self.only.is_empty() || !self.work.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They replaced the document by one in which nothing is measured.
    #[test]
    fn no_rounds_are_refused() {
        let rounds = |n| Args::try_parse_from(["wiber-compare", "--rounds", n]);
        assert!(rounds("0").unwrap_err().to_string().contains("--rounds"));
        assert_eq!(rounds("1").unwrap().rounds, 1);
    }
}
