//! The broker that is loaded: one that is there, or one of our own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::args::TargetFlags;
use super::consume::HEARTBEAT;
use super::device::Device;
use super::process::{Process, Usage};
use crate::cli::exit::{Exit, Failure};
use crate::cli::settings;
use crate::config::Delivery;

/// What decides the numbers of a broker of our own, of what it runs by. The flags say so, else what
/// any broker started here goes by; it is told again, so that what is shown is what it runs by.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) fsync: String,
    pub(super) prefetch: u32,
    /// Its longest message, unless those of a run are longer.
    pub(super) message: usize,
    /// See [`again_after`].
    pub(super) again_after: Duration,
}

/// How soon after it was published a message may come to a group again, though the broker does as it
/// should: it was not acknowledged in time, or its member was silent since the last heartbeat.
fn again_after(delivery: &Delivery) -> Duration {
    delivery.ack_timeout.min(delivery.dead_after.saturating_sub(HEARTBEAT))
}

/// There is no flag of a broker for these.
const PREFETCH: &str = "WIBER_DELIVERY__PREFETCH";
const MESSAGE: &str = "WIBER_LIMITS__MESSAGE";

impl Settings {
    /// Not known of a broker that was there before.
    pub(super) fn of(flags: &TargetFlags) -> Result<Option<Settings>, Failure> {
        if flags.addr.is_some() {
            return Ok(None);
        }
        let prefetch = flags.prefetch.map(|prefetch| (PREFETCH, prefetch.to_string()));
        let config = settings::of_broker(flags.fsync.as_deref(), prefetch)?;
        let fsync = config.storage.fsync.to_string();
        let (prefetch, message) = (config.delivery.prefetch, config.limits.message);
        let again_after = again_after(&config.delivery);
        Ok(Some(Settings { fsync, prefetch, message, again_after }))
    }

    pub(super) fn words(&self) -> [String; 2] {
        [format!("fsync {}", self.fsync), format!("prefetch {}", self.prefetch)]
    }
}

/// The broker that is loaded. One of our own is stopped and removed when this is dropped.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) addr: String,
    /// Its process, if it is known.
    pub(super) process: Option<Process>,
    /// Its disk, if it is known.
    pub(super) disk: Option<Device>,
    /// See [`again_after`]; not known of a broker that was there before.
    pub(super) again_after: Option<Duration>,
    #[expect(dead_code, reason = "it ends when this is dropped")]
    own: Option<Own>,
}

/// Fields are dropped in order: the directory goes when nobody writes to it any more.
#[derive(Debug)]
struct Own {
    child: Child,
    _folder: TempDir,
}

impl Drop for Own {
    fn drop(&mut self) {
        // Its data are not wanted, so it need not stop in order. It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What is used up, by whom, at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) broker: Option<Usage>,
    pub(super) client: Option<Usage>,
    pub(super) written: Option<u64>,
}

impl Target {
    /// What has been used by now. What is not known is left out.
    pub(super) fn read(&self) -> Reading {
        Reading {
            broker: self.process.as_ref().and_then(Process::usage),
            client: Process::own().usage(),
            written: self.disk.as_ref().and_then(Device::written),
        }
    }

    /// The broker that the flags name, or a new one that runs by the settings and takes messages of
    /// this size.
    pub(super) async fn new(
        flags: &TargetFlags,
        settings: Option<&Settings>,
        size: usize,
    ) -> Result<Target, Failure> {
        if let Some(addr) = &flags.addr {
            let process = flags.pid.map(Process::of);
            let disk = flags.data_dir.as_deref().and_then(Device::of);
            let addr = addr.clone();
            return Ok(Target { addr, process, disk, again_after: None, own: None });
        }
        let settings = settings.expect("`Settings::of` has them of a broker of our own");
        Self::start(flags, settings, size).await
    }

    async fn start(
        flags: &TargetFlags,
        settings: &Settings,
        size: usize,
    ) -> Result<Target, Failure> {
        let dir = flags.data_dir.as_deref().unwrap_or(Path::new("."));
        let folder = tempfile::Builder::new().prefix("wiber-bench-").tempdir_in(dir);
        let folder = folder.map_err(|error| {
            let text =
                format!("failed to make a directory for a broker in {}: {error}", dir.display());
            Failure::new(Exit::DataDirUnusable, text)
                .hint("name a directory that this user can write to by --data-dir")
        })?;
        let failed = |why: String| {
            Failure::new(Exit::Internal, format!("failed to start a broker to load: {why}"))
        };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(["broker", "--host", "127.0.0.1", "--port", "0", "--log-level", "warn"]);
        // However this process ends, the broker does not outlive it.
        command.arg("--stop-with-stdin");
        command.arg("--data-dir").arg(folder.path());
        command.args(["--fsync", &settings.fsync]);
        command.env(PREFETCH, settings.prefetch.to_string());
        command.env(MESSAGE, settings.message.max(size).to_string());
        // What a terminal sends to all who were started together is for us alone: who goes first is
        // not left to chance.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let process = Some(Process::of(child.id()));
        let mut own = Own { child, _folder: folder };
        let stdout = own.child.stdout.take().expect("it was asked to be piped");
        let first_line = move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_bytes| line)
        };
        // It ends with the broker, also if nobody waits any more.
        let line = tokio::task::spawn_blocking(first_line).await;
        let line = line.unwrap_or_else(|panicked| Err(panicked.into()));
        let line = line.map_err(|error| failed(error.to_string()))?;
        let Some(addr) = listening_on(&line) else {
            // It has said why on standard error, which is ours.
            let why = "it ended before it listened; its own words are above".to_owned();
            return Err(failed(why));
        };
        let disk = Device::of(dir);
        let (addr, again_after) = (addr.to_string(), Some(settings.again_after));
        Ok(Target { addr, process, disk, again_after, own: Some(own) })
    }
}

/// The address in a broker's start-up line.
fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(" listening on ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_come_again_as_soon_as_the_settings_let_it() {
        let seconds = Duration::from_secs;
        for (ack_timeout, dead_after, expected) in [(30, 30, 20), (5, 30, 5), (30, 5, 0)] {
            let (ack_timeout, dead_after) = (seconds(ack_timeout), seconds(dead_after));
            let (backoff, max_retries, prefetch) = (Vec::new(), 3, 5);
            let delivery = Delivery { ack_timeout, dead_after, max_retries, backoff, prefetch };
            assert_eq!(again_after(&delivery), seconds(expected), "{delivery:?}");
        }
    }

    #[test]
    fn the_start_up_line_says_where() {
        let line = "wiber 0.1.0 listening on 127.0.0.1:4242 · data ./data · fsync always\n";
        assert_eq!(listening_on(line), Some("127.0.0.1:4242".parse().unwrap()));
        assert_eq!(listening_on(""), None);
    }
}
