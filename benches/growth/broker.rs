//! A broker to be measured, and what the system says of it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use tempfile::TempDir;

/// The process. It is killed when this is dropped: its data are not wanted.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A broker with a directory of its own, which goes with it: fields are dropped in order.
pub(crate) struct Broker {
    process: Process,
    dir: TempDir,
    pub(crate) addr: SocketAddr,
    /// From the command to the line that says that it listens, in milliseconds.
    pub(crate) start_ms: u128,
}

impl Broker {
    /// A new one; `prefetch` is how many messages a member may hold.
    pub(crate) fn new(prefetch: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("wiber-growth-").tempdir_in(".");
        Self::start(dir.expect("this directory can be written to"), prefetch)
    }

    fn start(dir: TempDir, prefetch: u32) -> Self {
        // `target/release/examples/growth` lies below where the command lies.
        let example = std::env::current_exe().expect("a process knows its file");
        let wiber: PathBuf = example.ancestors().nth(2).expect("cargo put it there").join("wiber");
        let mut command = Command::new(&wiber);
        // Its defaults are measured: no settings file lies in its own directory, and no variable is left.
        command.current_dir(dir.path());
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("WIBER_")) {
            command.env_remove(name);
        }
        command.args(["broker", "--port", "0", "--log-level", "warn", "--data-dir", "data"]);
        command.env("WIBER_DELIVERY__PREFETCH", prefetch.to_string());
        command.env("WIBER_LIMITS__CONNECTIONS", "10100");
        // However this process ends, the broker does not outlive it.
        command.arg("--stop-with-stdin").stdin(Stdio::piped()).stdout(Stdio::piped());
        let begin = Instant::now();
        let hint = "build the command first: cargo build --release";
        let mut process = Process(command.spawn().expect(hint));
        let mut line = String::new();
        let stdout = process.0.stdout.take().expect("it was asked to be piped");
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        let addr = line.split_once(" listening on ").and_then(|(_, rest)| rest.split(' ').next());
        let addr = addr.and_then(|addr| addr.parse().ok()).expect("the start-up line says where");
        Self { process, dir, addr, start_ms: begin.elapsed().as_millis() }
    }

    /// Stops it in order, or kills it, and starts another on the same directory.
    pub(crate) fn again(self, is_killed: bool, prefetch: u32) -> Self {
        let Self { mut process, dir, .. } = self;
        let child = &mut process.0;
        if is_killed {
            child.kill().expect("it runs");
        }
        // Standard input is closed before: that stops it in order. A signal as well would be the second.
        let status = child.wait().expect("it is ours to wait for");
        assert!(is_killed || status.success(), "the broker did not stop in order: {status}");
        Self::start(dir, prefetch)
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.0.try_wait().expect("it is ours to ask for")
    }

    fn status(&self, name: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()));
        let text = text.expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says so");
        line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    }

    /// Memory in use, in MiB.
    pub(crate) fn memory(&self) -> f64 {
        self.status("VmRSS:") / 1024.0
    }

    /// The most memory it ever had, in MiB.
    pub(crate) fn memory_max(&self) -> f64 {
        self.status("VmHWM:") / 1024.0
    }

    /// Open files and sockets.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.0.id())).expect("it runs").count()
    }

    /// Processor time of all its threads, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.process.0.id())).expect("it runs");
        let nanos = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        };
        tasks.flatten().filter_map(nanos).sum::<f64>() / 1000.0
    }
}
