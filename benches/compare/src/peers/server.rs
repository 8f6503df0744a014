//! A broker that runs: started, asked whether it is ready, stopped, killed.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::start::{Start, start};
use super::{Found, Peer, Setup, Watchdog};
use crate::machine;
use crate::protocol::Protocol;

/// How long a server may take to be ready, with all it has stored.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a server may take to stop in order.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// Waits for a line before it becomes the server: by then the watchdog knows of it.
const WRAPPER: &str = r#"read -r go || exit 1
if [ -n "$BESIDE" ]; then $BESIDE & fi
unset BESIDE
exec "$@" </dev/null"#;

/// A running broker. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    watchdog: Watchdog,
    started: Instant,
    start: Start,
    log: PathBuf,
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Box<dyn Protocol>,
}

impl Server {
    /// Starts it on an empty folder and makes the topic.
    pub(crate) fn fresh(
        setup: &Setup,
        found: &Found,
        dir: &Path,
        watchdog: &Watchdog,
    ) -> Result<Self> {
        match fs::remove_dir_all(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("failed to remove old data"),
        }
        let mut server = Self::spawn(setup, found, dir, watchdog)?;
        server.wait_until(|protocol, addr| protocol.create(addr).map(|()| true))?;
        Ok(server)
    }

    /// Starts it on what is there, and waits until it has so many messages. How long that took.
    pub(crate) fn again(
        setup: &Setup,
        found: &Found,
        dir: &Path,
        watchdog: &Watchdog,
        messages: u64,
    ) -> Result<(Self, Duration)> {
        let mut server = Self::spawn(setup, found, dir, watchdog)?;
        let mut held = None;
        let ready = server.wait_until(|protocol, addr| {
            held = protocol.held(addr)?;
            Ok(held == Some(messages))
        });
        if let (Err(_), Some(held)) = (&ready, held) {
            bail!("{held} messages of {messages} are there after a start");
        }
        Ok((server, ready?))
    }

    fn spawn(setup: &Setup, found: &Found, dir: &Path, watchdog: &Watchdog) -> Result<Self> {
        let program = found.program(setup.peer).context("its program was not found")?;
        let start = start(setup, program, dir)?;
        let log = dir.join("server.log");
        let output = File::create(&log).context("failed to make a log")?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WRAPPER, setup.id]).args(&start.words).current_dir(dir);
        if setup.peer == Peer::Wiber {
            let ours = std::env::vars_os().map(|(name, _)| name);
            for name in ours.filter(|name| name.to_string_lossy().starts_with("WIBER_")) {
                command.env_remove(name);
            }
        }
        command.env("BESIDE", &start.beside).envs(start.variables.iter().cloned());
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let mut child = command.process_group(0).spawn().context("failed to start /bin/sh")?;
        let go = child.stdin.take();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, start.port.unwrap_or(0)));
        let (watchdog, protocol) = (watchdog.clone(), setup.protocol());
        let started = Instant::now();
        let server = Self { child, watchdog, started, start, log, addr, protocol };
        server.watchdog.watch(server.child.id())?;
        go.context("there is no pipe")?.write_all(b"go\n").context("failed to start a server")?;
        Ok(server)
    }

    /// Waits until this holds. How long that took since the start.
    fn wait_until(
        &mut self,
        mut is_ready: impl FnMut(&dyn Protocol, SocketAddr) -> Result<bool>,
    ) -> Result<Duration> {
        let mut last = None;
        while self.started.elapsed() < READY_WITHIN {
            if self.child.try_wait()?.is_some() {
                bail!("the server ended: {}", self.last_words());
            }
            if self.addr.port() == 0 {
                self.read_addr();
            } else {
                match is_ready(&*self.protocol, self.addr) {
                    Ok(true) => return Ok(self.started.elapsed()),
                    Ok(false) => {}
                    Err(error) => last = Some(error),
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        let last = last.map(|error| format!("{error:#}")).unwrap_or_default();
        bail!("the server was not ready in {READY_WITHIN:?}: {last} {}", self.last_words())
    }

    /// Takes the address from a start-up line, once it is there.
    fn read_addr(&mut self) {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let line = text.lines().find_map(|line| line.split_once(" listening on "));
        let word = line.and_then(|(_, rest)| rest.split_whitespace().next());
        if let Some(addr) = word.and_then(|word| word.parse().ok()) {
            self.addr = addr;
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Bytes of memory of the server and all that it started.
    pub(crate) fn memory(&self) -> Result<u64> {
        machine::memory_of_group(self.child.id())
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = match &self.start.pid_file {
            Some(path) => fs::read_to_string(path).context("no process id")?.trim().parse()?,
            None => i32::try_from(self.child.id())?,
        };
        let pid = Pid::from_raw(pid).context("no process id")?;
        kill_process(pid, Signal::TERM).context("failed to stop a server")?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > STOP_WITHIN {
                bail!("the server did not stop in {STOP_WITHIN:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Kills it, and all that it started.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = self.child.id();
        if let Some(group) = i32::try_from(id).ok().and_then(Pid::from_raw) {
            // Nobody may be left in it.
            kill_process_group(group, Signal::KILL).ok();
        }
        drop(self.child.wait());
        // Without a watchdog there is nobody who could kill the wrong one.
        drop(self.watchdog.forget(id));
    }
}
