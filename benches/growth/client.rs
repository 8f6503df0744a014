//! Connections that publish, consume or do nothing, over the text protocol.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

/// A connection that was greeted.
pub(crate) struct Client {
    pub(crate) lines: BufReader<OwnedReadHalf>,
    pub(crate) out: OwnedWriteHalf,
}

impl Client {
    pub(crate) async fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the broker takes connections");
        stream.set_nodelay(true).expect("a socket has this option");
        let (lines, out) = stream.into_split();
        // Thousands of them are open at a time.
        let mut client = Self { lines: BufReader::with_capacity(1024, lines), out };
        client.expect("OK connected").await;
        client
    }

    pub(crate) async fn send(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.out.write_all(line.as_bytes()).await.expect("the broker reads");
    }

    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        let got = self.lines.read_line(&mut line).await.expect("the broker answers");
        assert!(got > 0, "the broker closed a connection");
        line
    }

    pub(crate) async fn expect(&mut self, start: &str) {
        let line = self.line().await;
        assert!(line.starts_with(start), "{line} instead of {start}");
    }
}

/// Publishes `count` messages of `size` bytes to `topics` topics in turn, as fast as they are taken,
/// and waits for all answers. The lines are made before: what is measured shares its processors with
/// this.
pub(crate) async fn publish(addr: SocketAddr, topics: u64, count: u64, size: usize) {
    let Client { lines, mut out } = Client::new(addr).await;
    let message = "x".repeat(size);
    let all: Vec<String> = (0..topics).map(|topic| format!("PUB t{topic} {message}\n")).collect();
    // It ends with this, when the whole is told to end.
    let mut write = JoinSet::new();
    write.spawn(async move {
        let mut bytes = Vec::with_capacity((64 << 10) + size);
        let mut left = usize::try_from(count).expect("it is no more than memory holds");
        for line in all.iter().cycle() {
            bytes.extend_from_slice(line.as_bytes());
            left -= 1;
            if bytes.len() >= 64 << 10 || left == 0 {
                out.write_all(&bytes).await.expect("the broker reads");
                bytes.clear();
            }
            if left == 0 {
                break;
            }
        }
        out
    });
    answers(lines, count).await;
    drop(write.join_next().await.expect("it was spawned").expect("it does not panic"));
}

/// Reads so many lines, of which none is an error.
pub(crate) async fn answers(lines: BufReader<OwnedReadHalf>, count: u64) {
    count_lines(lines, &AtomicU64::new(0), count).await;
}

/// Reads lines, of which none is an error, until the counter is there.
async fn count_lines(mut lines: BufReader<OwnedReadHalf>, counter: &AtomicU64, count: u64) {
    let mut block = vec![0; 256 << 10];
    let mut is_start = true;
    while counter.load(Ordering::Relaxed) < count {
        let len = lines.read(&mut block).await.expect("the broker answers");
        assert!(len > 0, "the broker closed a connection");
        count_block(&block[..len], &mut is_start, counter);
    }
}

/// Counts the ends of lines in what was read.
fn count_block(block: &[u8], is_start: &mut bool, counter: &AtomicU64) {
    assert!(!*is_start || block[0] != b'E', "a command was refused");
    let mut got = 0;
    for end in memchr::memchr_iter(b'\n', block) {
        assert!(block.get(end + 1) != Some(&b'E'), "a command was refused");
        got += 1;
    }
    counter.fetch_add(got, Ordering::Relaxed);
    *is_start = block.last() == Some(&b'\n');
}

/// A connection that sends the same lines without a pause, and counts those of the answers, until it is
/// dropped. By threads that block: they share the processors with what is measured, and a runtime wants
/// twice as much of those.
pub(crate) struct Flood {
    stream: std::net::TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    pub(crate) fn new(addr: SocketAddr, request: String, counter: Arc<AtomicU64>) -> Self {
        let stream = std::net::TcpStream::connect(addr).expect("the broker takes connections");
        let clone = || stream.try_clone().expect("a socket has a second handle");
        let (mut writer, mut reader) = (clone(), clone());
        // Its end is that of the connection.
        let write = move || while writer.write_all(request.as_bytes()).is_ok() {};
        let read = move || {
            let mut block = vec![0; 256 << 10];
            let mut is_start = true;
            while let Ok(len @ 1..) = reader.read(&mut block) {
                count_block(&block[..len], &mut is_start, &counter);
            }
        };
        let threads = vec![std::thread::spawn(write), std::thread::spawn(read)];
        Self { stream, threads }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // If the broker was first, there is nothing to close.
        self.stream.shutdown(Shutdown::Both).ok();
        for thread in self.threads.drain(..) {
            thread.join().expect("no command was refused");
        }
    }
}

/// Takes part in a group of each of the first `topics` topics until it ends, and acknowledges all it gets;
/// counts in `handled`.
pub(crate) async fn member(
    addr: SocketAddr,
    topics: u64,
    group: String,
    handled: Arc<AtomicU64>,
) -> Client {
    let mut client = Client::new(addr).await;
    for topic in 0..topics {
        client.send(&format!("SUB t{topic} {group}")).await;
        client.expect("OK subscribed").await;
    }
    let Client { mut lines, mut out } = client;
    tokio::spawn(async move {
        let (mut line, mut acks) = (Vec::new(), Vec::new());
        while lines.read_until(b'\n', &mut line).await.is_ok_and(|got| got > 0) {
            if line.starts_with(b"MSG ") {
                let id = line.split(|byte| *byte == b' ').nth(2).expect("it has an id");
                acks.extend_from_slice(b"ACK ");
                acks.extend_from_slice(id);
                acks.push(b'\n');
            } else {
                assert!(line.starts_with(b"OK ack"), "{}", String::from_utf8_lossy(&line));
                handled.fetch_add(1, Ordering::Relaxed);
            }
            line.clear();
            if lines.buffer().is_empty() && !acks.is_empty() {
                // The broker ends before its members do.
                if out.write_all(&acks).await.is_err() {
                    return;
                }
                acks.clear();
            }
        }
    });
    Client::new(addr).await
}
