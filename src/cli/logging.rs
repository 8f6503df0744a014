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
    let filter =
        EnvFilter::try_new(directives(&log.level)).map_err(|error| failed(error.to_string()))?;
    // A log that can't be written costs its lines, and nothing else: what can't be said there can't be
    // complained about there either, and trying to would end the thread that has something to say.
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let started = match log.format {
        LogFormat::Human => {
            builder.compact().with_ansi(colours(&io::stderr())).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| failed(error.to_string()))
}

/// Levels for some modules leave the others as they are: by themselves they would turn the rest off, and
/// nobody would be told of a failure there.
fn directives(level: &str) -> String {
    let is_for_all = |directive: &str| !directive.contains('=');
    if level.split(',').any(is_for_all) { level.to_owned() } else { format!("info,{level}") }
}
