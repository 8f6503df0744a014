//! The broker's log: to standard error, for people or for machines.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::exit::{Exit, Failure, colours};
use crate::config::{Log, LogFormat};

/// Sends everything that is traced from here on to standard error.
pub(super) fn start(log: &Log) -> Result<(), Failure> {
    let failed =
        |why: String| Failure::new(Exit::Internal, format!("failed to start the log: {why}"));
    let filter = EnvFilter::try_new(&log.level).map_err(|error| failed(error.to_string()))?;
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Human => {
            builder.compact().with_ansi(colours(&io::stderr())).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| failed(error.to_string()))
}
