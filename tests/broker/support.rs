//! A real broker process on a free port and a temporary directory, and a person with `nc`.

#![expect(clippy::disallowed_methods, reason = "a real process is waited for in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running `wiber broker`.
pub(crate) struct Broker {
    pub(crate) addr: SocketAddr,
    pub(crate) started: String,
    pub(crate) child: Child,
    pub(crate) dir: PathBuf,
    pub(crate) log: PathBuf,
}

/// How to start one.
pub(crate) struct Setup {
    dir: PathBuf,
    env: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn new(dir: &Path) -> Self {
        // Small segments: a test's directory is made in a millisecond.
        Self { dir: dir.to_owned(), env: Vec::new() }
            .set("STORAGE__WAL_SEGMENT", "1MiB")
            .set("STORAGE__MIN_FREE", "1MiB")
    }

    /// Sets `WIBER_<key>`.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.env.push((format!("WIBER_{key}"), value.to_owned()));
        self
    }

    pub(crate) fn command(&self) -> Command {
        // The binary that cargo has built for the tests, unless another one is named.
        let built = || env!("CARGO_BIN_EXE_wiber").into();
        let mut command = Command::new(std::env::var_os("WIBER_TEST_BINARY").unwrap_or_else(built));
        command
            .arg("broker")
            .current_dir(self.dir.parent().unwrap())
            .env_clear()
            .env("WIBER_PORT", "0")
            .env("WIBER_DATA_DIR", &self.dir)
            .envs(self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self) -> Broker {
        self.start_by(self.command())
    }

    /// Starts it by another command, such as a shell that sets limits first.
    pub(crate) fn start_by(&self, command: Command) -> Broker {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        self.run(command, log.into())
    }

    /// Starts it with its log sent elsewhere.
    pub(crate) fn start_to(&self, stderr: Stdio) -> Broker {
        self.run(self.command(), stderr)
    }

    fn log(&self) -> PathBuf {
        self.dir.with_extension("log.txt")
    }

    fn run(&self, mut command: Command, stderr: Stdio) -> Broker {
        let log = self.log();
        let mut child =
            command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("broker starts");
        let mut started = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut started).unwrap();
        let addr = started
            .split_once("listening on ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| {
                panic!("no start-up line: {started:?}; {}", std::fs::read_to_string(&log).unwrap())
            });
        Broker { addr, started: started.trim_end().to_owned(), child, dir: self.dir.clone(), log }
    }
}

impl Broker {
    /// A broker with short times in a new directory.
    pub(crate) fn quick(dir: &Path) -> Self {
        quick(dir).start()
    }

    pub(crate) fn connect(&self) -> Nc {
        let nc = Nc::dial(self.addr);
        let mut nc = nc;
        nc.expect("OK connected");
        nc
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log has a line with `words`.
    pub(crate) fn wait_logged(&self, words: &str) {
        wait_for(|| self.logged().contains(words), || format!("{words:?} in: {}", self.logged()));
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The file descriptors that it has open.
    pub(crate) fn descriptors(&self) -> Vec<u64> {
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        dir.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    /// What those are, but for the write-ahead log's: when it has prepared its next segment is its own
    /// business.
    pub(crate) fn open_files(&self) -> Vec<PathBuf> {
        let link = |fd| std::fs::read_link(format!("/proc/{}/fd/{fd}", self.child.id())).ok();
        let links = self.descriptors().into_iter().filter_map(link);
        links.filter(|link| !link.starts_with(self.dir.join(".wiber/wal"))).collect()
    }

    /// The lines of a file of the data directory.
    pub(crate) fn file(&self, name: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Times short enough to wait for: ack timeout 300 ms, retries after 50, 100 and 200 ms.
pub(crate) fn quick(dir: &Path) -> Setup {
    Setup::new(dir)
        .set("DELIVERY__ACK_TIMEOUT", "300ms")
        .set("DELIVERY__BACKOFF", "50ms,100ms,200ms")
}

/// Waits until `ready`, and fails with what `what` says when it never comes.
pub(crate) fn wait_for(mut ready: impl FnMut() -> bool, what: impl Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < end, "waited in vain for {}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A person with `nc`: sends lines, reads lines.
pub(crate) struct Nc {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Nc {
    pub(crate) fn dial(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).unwrap())
    }

    /// One that has room for little that it has not read yet.
    pub(crate) fn dial_narrow(addr: SocketAddr) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&addr.into()).unwrap();
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::with_capacity(1 << 16, stream.try_clone().unwrap());
        Self { stream, reader }
    }

    /// Sends a line.
    pub(crate) fn send(&mut self, line: &str) {
        self.raw(format!("{line}\n").as_bytes());
    }

    /// Sends bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next line, without its end; `None` when the broker closed.
    pub(crate) fn next(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let got = self.reader.read_until(b'\n', &mut line).expect("a line in time");
        if got == 0 {
            return None;
        }
        assert_eq!(line.pop(), Some(b'\n'), "a whole line");
        Some(String::from_utf8(line).expect("UTF-8"))
    }

    /// The next line.
    pub(crate) fn line(&mut self) -> String {
        self.next().expect("a line, but the connection was closed")
    }

    /// The next line is `line`.
    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// Sends a line and returns the next one.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.line()
    }

    /// Publishes; returns id and offset.
    pub(crate) fn publish(&mut self, topic: &str, message: &str) -> (String, u64) {
        published(&self.ask(&format!("PUB {topic} {message}")))
    }

    /// The next line is a `MSG` of the topic.
    pub(crate) fn message(&mut self, topic: &str) -> Msg {
        Msg::parse("MSG", topic, &self.line())
    }

    /// Whether the broker closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.reader.read(&mut byte), Ok(0) | Err(_))
    }

    /// Whether nothing comes for so long. Only to see that something does not happen.
    pub(crate) fn is_quiet(&mut self, time: Duration) -> bool {
        if !self.reader.buffer().is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(time)).unwrap();
        let quiet = self.reader.fill_buf().is_err();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        quiet
    }
}

/// `OK published <id> <offset>`.
#[track_caller]
pub(crate) fn published(line: &str) -> (String, u64) {
    let words: Vec<_> = line.split(' ').collect();
    assert!(words.len() == 4 && words[..2] == ["OK", "published"], "{line}");
    (words[2].to_owned(), words[3].parse().unwrap())
}

/// A message line.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Msg {
    pub(crate) id: String,
    pub(crate) offset: u64,
    pub(crate) ts: String,
    pub(crate) body: String,
}

impl Msg {
    #[track_caller]
    pub(crate) fn parse(verb: &str, topic: &str, line: &str) -> Msg {
        let mut words = line.splitn(6, ' ');
        assert_eq!(words.next(), Some(verb), "{line}");
        assert_eq!(words.next(), Some(topic), "{line}");
        let mut word = || words.next().unwrap_or_else(|| panic!("{line}")).to_owned();
        Msg { id: word(), offset: word().parse().unwrap(), ts: word(), body: word() }
    }
}

/// A data directory in a temporary one.
pub(crate) fn data_dir() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    (temp, dir)
}
