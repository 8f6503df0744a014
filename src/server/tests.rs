//! A whole daemon in this process, with less memory than it needs.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::*;
use crate::session::seats::Seat;
use crate::session::shares::Hold;

/// What a session without a seat may have read, and the buffer for it.
const UNSEATED_BYTES_MAX: usize = 64 << 10;

/// A daemon whose sessions have all of the memory that they share, but for the least.
struct Short {
    server: Server,
    shares: Arc<Shares>,
    seats: Arc<Seats>,
    all: Hold,
    _dir: tempfile::TempDir,
}

impl Short {
    const ALL: usize = 1 << 30;

    async fn start(seats: Seats) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.port = 0;
        config.storage.data_dir = dir.path().to_owned();
        let (shares, seats) = (Arc::<Shares>::default(), Arc::new(seats));
        let mut all = Hold::new(&shares);
        all.set(Self::ALL);
        let given = (Arc::clone(&shares), Arc::clone(&seats));
        let server = Server::start_with(&config, given.0, given.1).await.unwrap();
        Self { server, shares, seats, all, _dir: dir }
    }

    async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.server.started().addr).await.unwrap();
        let mut client = Client(BufReader::new(stream));
        assert_eq!(client.line().await, "OK connected");
        client
    }

    /// Waits until something is so.
    async fn until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        while !is_so(self) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }
}

/// A thousand connections that began a message of 1 MB each took 1.2 GB.
#[tokio::test]
async fn messages_that_come_in_part_are_bounded_and_all_are_whole_in_the_end() {
    let short = Short::start(Seats::with(2, Duration::from_secs(1000))).await;
    let mut clients = Vec::new();
    let message = "x".repeat(900_000);
    for _ in 0..20 {
        let mut client = short.connect().await;
        client.send("PUB t ").await;
        client.send(&message).await;
        clients.push(client);
    }
    let most = Short::ALL + 18 * UNSEATED_BYTES_MAX;
    let is_over = |short: &Short| short.shares.held() > most;
    short.until(|short| short.seats.waiting() == 18 || is_over(short)).await;
    assert!(!is_over(&short), "{} bytes", short.shares.held() - Short::ALL);
    assert_eq!(short.seats.free(), 0);
    for client in &mut clients {
        client.send("\n").await;
    }
    for client in &mut clients {
        let line = client.line().await;
        assert!(line.starts_with("OK published "), "{line}");
    }
    short.until(|short| short.seats.free() == 2).await;
}

#[tokio::test]
async fn a_peer_that_is_gone_in_the_middle_of_a_message_keeps_nobody_waiting_for_ever() {
    let short = Short::start(Seats::with(1, Duration::from_millis(1))).await;
    let (mut gone, mut other) = (short.connect().await, short.connect().await);
    gone.send("@a PUB t ").await;
    gone.send(&"x".repeat(100_000)).await;
    short.until(|short| short.seats.free() == 0).await;
    other.send(&format!("PUB t {}\n", "y".repeat(100_000))).await;
    let line = other.line().await;
    assert!(line.starts_with("OK published ") && line.ends_with(" 1"), "{line}");
    // It was not gone after all: its message is skipped to its end.
    let line = gone.line().await;
    assert!(line.starts_with("@a ERR BUSY the line came too slowly"), "{line}");
    gone.send(&"x".repeat(100_000)).await;
    gone.send("\n@b PUB t z\n").await;
    let line = gone.line().await;
    assert!(line.starts_with("@b OK published ") && line.ends_with(" 2"), "{line}");
}

#[tokio::test]
async fn a_peer_that_reads_nothing_in_the_middle_of_a_message_has_to_go_when_others_wait() {
    let short = Short::start(Seats::with(2, Duration::from_millis(1))).await;
    let (mut deaf, mut other) = (short.connect().await, short.connect().await);
    deaf.send("SUB t g\n").await;
    assert_eq!(deaf.line().await, "OK subscribed t in group g");
    deaf.send(&format!("PUB t {}", "x".repeat(100_000))).await;
    short.until(|short| short.seats.free() == 1).await;
    other.send(&format!("PUB t {}\n", "y".repeat(1_000_000))).await;
    let line = other.line().await;
    assert!(line.starts_with("OK published "), "{line}");
    // The message does not fit into its socket.
    short.until(|short| short.shares.held() > Short::ALL + 300_000).await;
    let mut seats = [Seat::new(&short.seats), Seat::new(&short.seats)];
    for seat in &mut seats {
        poll_fn(|cx| seat.poll_taken(cx)).await;
    }
    let mut rest = Vec::new();
    let end = deaf.0.read_to_end(&mut rest).await;
    assert!(end.is_err() || !rest.ends_with(b"\n"), "it is closed in the middle of the message");
}

#[tokio::test]
async fn who_waits_for_a_seat_goes_on_when_there_is_memory_again() {
    let mut short = Short::start(Seats::with(1, Duration::from_secs(1000))).await;
    let (mut slow, mut other) = (short.connect().await, short.connect().await);
    slow.send(&format!("PUB t {}", "x".repeat(100_000))).await;
    short.until(|short| short.seats.free() == 0).await;
    other.send(&format!("PUB t {}\n", "y".repeat(100_000))).await;
    short.until(|short| short.seats.waiting() == 1).await;
    short.all.set(0);
    let line = other.line().await;
    assert!(line.starts_with("OK published "), "{line}");
    slow.send("\n").await;
    let line = slow.line().await;
    assert!(line.starts_with("OK published "), "{line}");
}

/// A shard waits for what it sent to the log: if the log's thread failed while the broker stopped, the stop
/// once waited without end, and nobody was told why.
#[tokio::test]
async fn a_part_that_fails_ends_a_stop_with_its_reason() {
    let mut short = Short::start(Seats::with(1, Duration::from_secs(1000))).await;
    let (fails, failures) = tokio::sync::mpsc::unbounded_channel();
    short.server.failures = failures;
    fails.send(Fatal::Panicked("wal".to_owned())).unwrap();
    let stopped = short.server.stop().await.unwrap_err();
    assert!(matches!(stopped, Fatal::Panicked(_)), "{stopped}");
}
