//! A session's socket: reads, writes and waits for it, and carries letters and jobs.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::broker::letter::{Letter, Outbox};
use crate::broker::registry::Broker;
use crate::ids::ConnId;
use crate::limits::READ_BYTES_MAX;
use crate::time::Now;

use super::core::{Core, Reading, Settings};
use super::read::{ReadDone, ReadJob};

/// What the first read of a connection asks for, in bytes.
const READ_BYTES_MIN: usize = 4 << 10;

/// Most slices of one write.
const SLICES_MAX: usize = 16;

/// How long a closed connection is still read, and how much.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 16 << 20;

/// What a session needs of its server.
#[derive(Clone, Debug)]
pub struct Context {
    /// The broker.
    pub broker: Arc<Broker>,
    /// What all sessions have in common.
    pub settings: Arc<Settings>,
    /// Becomes true when the server stops.
    pub draining: watch::Receiver<bool>,
}

/// Serves a connection until it is closed.
pub async fn run(stream: TcpStream, peer: String, conn: ConnId, context: Context) {
    let outbox = Arc::new(Outbox::default());
    let consumer = Arc::from(format!("c{conn}@{peer}"));
    let core = Core::new(
        conn,
        consumer,
        Arc::clone(&context.settings),
        Arc::clone(&outbox),
        Now::read().moment,
    );
    let mut task = Task {
        stream,
        core,
        outbox,
        broker: context.broker,
        draining: context.draining,
        buffer: BytesMut::new(),
        pieces: Vec::new(),
        jobs: JoinSet::new(),
        read_bytes: READ_BYTES_MIN,
        is_ended: false,
        is_draining: false,
        is_held: false,
        peer,
    };
    if let Err(error) = task.serve().await {
        tracing::debug!(event = "connection_lost", %conn, peer = task.peer, "{error}");
    }
    for (shard, letter) in task.core.closed() {
        task.broker.post(shard, letter);
    }
    if !task.is_ended && !task.is_draining {
        linger(task.stream).await;
    }
}

/// Reads what a peer sends behind its `QUIT`. To close with bytes unread resets the connection, and
/// a peer then loses the answers that it has not read yet.
async fn linger(mut stream: TcpStream) {
    let rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // However it ends, the connection is closed: the peer had its time.
    drop(tokio::time::timeout(LINGER, rest).await);
}

struct Task {
    stream: TcpStream,
    core: Core,
    outbox: Arc<Outbox>,
    broker: Arc<Broker>,
    draining: watch::Receiver<bool>,
    buffer: BytesMut,
    pieces: Vec<crate::broker::letter::Piece>,
    jobs: JoinSet<(Reading, ReadJob, ReadDone)>,
    /// How much the next read asks for: as much as comes.
    read_bytes: usize,
    /// The peer sends no more.
    is_ended: bool,
    is_draining: bool,
    /// Commands are in the buffer that were not taken yet: too much was outstanding or unsent.
    is_held: bool,
    peer: String,
}

impl Task {
    async fn serve(&mut self) -> io::Result<()> {
        loop {
            self.outbox.take(&mut self.pieces);
            for piece in self.pieces.drain(..) {
                self.core.piece(piece);
            }
            self.input().await;
            self.output()?;
            if self.is_held && self.core.wants_input() {
                continue;
            }
            if self.core.is_finished() {
                return Ok(());
            }
            self.wait().await?;
        }
    }

    /// Fills the output from subscriptions and histories and writes it, until there is nothing or
    /// the socket takes no more.
    fn output(&mut self) -> io::Result<()> {
        loop {
            for (reading, mut job) in self.core.pull() {
                self.jobs.spawn_blocking(move || {
                    let done = job.run();
                    (reading, job, done)
                });
            }
            self.write()?;
            if !self.core.wants_pull() {
                return Ok(());
            }
        }
    }

    /// Takes the commands that are in the buffer, as far as answers may be outstanding.
    async fn input(&mut self) {
        self.is_held = !self.buffer.is_empty();
        if !self.core.wants_input() {
            return;
        }
        self.is_held = false;
        if self.buffer.is_empty() {
            if self.is_ended {
                self.core.finish();
            }
            return;
        }
        let input = self.core.input(&mut self.buffer);
        if input.is_http {
            tracing::warn!(
                event = "http_refused",
                peer = self.peer,
                "a connection that speaks HTTP was closed; this is not an HTTP port"
            );
        }
        for (shard, letter) in input.letters {
            self.post(shard, letter).await;
        }
        self.is_held = !input.is_drained && !self.buffer.is_empty();
        if self.is_ended && (input.is_drained || self.buffer.is_empty()) {
            // What is left is no whole command, and its rest will never come.
            self.buffer.clear();
            self.core.finish();
        }
        if self.buffer.is_empty() {
            // An idle connection keeps no buffer.
            self.buffer = BytesMut::new();
        }
    }

    /// Waits for room in the mailbox, which is how a publisher is slowed down when the broker is
    /// behind: its socket is not read meanwhile.
    async fn post(&self, shard: u32, mut letter: Letter) {
        let room = Arc::clone(self.broker.mailbox(shard).room());
        let bytes = u32::try_from(letter.bytes.len().max(1)).expect("a buffer is below 4 GiB");
        // The room is never closed.
        letter.permit = room.acquire_many_owned(bytes).await.ok();
        self.broker.post(shard, letter);
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.core.out().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.core.out().slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.core.out().advance(sent),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn wait(&mut self) -> io::Result<()> {
        let reads = !self.is_ended && self.core.wants_input();
        let writes = !self.core.out().is_empty();
        let interest = match (reads, writes) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let wake_at = self.core.wake_at();
        let stream = &self.stream;
        let ready = async {
            match interest {
                Some(interest) => stream.ready(interest).await,
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match wake_at {
                Some(at) => tokio::time::sleep(at.since(Now::read().moment)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ready = ready => {
                if ready?.is_readable() && reads {
                    self.read().await?;
                }
            }
            () = self.outbox.notified() => {}
            Some(done) = self.jobs.join_next() => {
                let (reading, job, done) = done.map_err(io::Error::other)?;
                self.core.read(reading, job, done);
            }
            () = timer => {
                for (shard, letter) in self.core.wake(Now::read()) {
                    self.broker.post(shard, letter);
                }
            }
            _ = self.draining.changed(), if !self.is_draining => {
                self.is_draining = true;
                self.core.finish();
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> io::Result<()> {
        self.buffer.reserve(self.core.read_hint().max(self.read_bytes));
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(0) => self.is_ended = true,
            Ok(got) => {
                let is_full = got >= self.read_bytes;
                let bytes = if is_full { self.read_bytes * 2 } else { got };
                self.read_bytes = bytes.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
                for (shard, letter) in self.core.heard(Now::read().moment) {
                    self.broker.post(shard, letter);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                }
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}
