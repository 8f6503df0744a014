//! A session's socket: reads, writes and waits for it, and carries letters and jobs.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::broker::bell::Bell;
use crate::broker::letter::Letter;
use crate::broker::outbox::{Outbox, Wire};
use crate::broker::registry::Broker;
use crate::ids::ConnId;
use crate::limits::{MAILBOX_BYTES_MAX, READ_BYTES_MAX};
use crate::time::{Moment, Now};

use super::awake::Awake;
use super::core::{Core, Settings};
use super::crowd;
use super::read::{ReadDone, ReadJob, Reading};
use super::seats::{Seat, Seats};

/// What the first read of a connection asks for, in bytes.
const READ_BYTES_MIN: usize = 4 << 10;

/// A buffer up to this size is kept for the next connection, in bytes.
const SPARE_BYTES_MAX: usize = 16 << 10;

thread_local! {
    /// A buffer that no connection of this thread has.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// Most slices of one write.
const SLICES_MAX: usize = 16;

/// A letter that waits for room in its shard's mailbox. By itself: whoever is idle keeps no memory for
/// waiting.
type Posting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// After so many commands the others of the thread have their turn, if the peer always sends more: that is a
/// millisecond's work, or a few.
const TURN_COMMANDS_MAX: usize = 4096;

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
    /// Room for messages that come in part.
    pub seats: Arc<Seats>,
    /// Becomes true when the server stops.
    pub draining: watch::Receiver<bool>,
    /// There is more than one processor, so that a session may wait for its peer awake.
    pub waits_awake: bool,
}

/// Serves a connection on the thread of this bell, until it is closed.
pub fn run(
    stream: TcpStream,
    peer: String,
    conn: ConnId,
    context: Context,
    bell: Arc<Bell>,
) -> impl Future<Output = ()> {
    let (stream, writing) = stream.into_split();
    let socket = Arc::new(Socket(writing));
    let outbox = Arc::new(Outbox::new(bell, Arc::clone(&socket) as Arc<dyn Wire>));
    let consumer = Arc::from(format!("c{conn}@{peer}"));
    let now = Moment::read();
    let settings = Arc::clone(&context.settings);
    let core = Core::new(conn, consumer, settings, Arc::clone(&outbox), now);
    let mut task = Task {
        stream,
        socket,
        core,
        outbox,
        broker: context.broker,
        draining: context.draining,
        buffer: BytesMut::new(),
        pieces: Vec::new(),
        jobs: JoinSet::new(),
        timer: None,
        read_bytes: READ_BYTES_MIN,
        seats: context.seats,
        seat: None,
        is_ended: false,
        is_draining: false,
        is_held: false,
        has_visited: false,
        taken: 0,
        awake: Awake::new(context.waits_awake, now),
        peer,
    };
    // A block that has the task for itself: an async function would have it twice in its state.
    async move {
        if let Err(error) = task.serve().await {
            tracing::debug!(event = "connection_lost", conn = conn.0, peer = task.peer, "{error}");
        }
        for (shard, letter) in task.core.closed() {
            task.broker.post(shard, letter);
        }
        let lingers = task.lingers();
        task.drop_part();
        (task.seat, task.buffer) = (None, BytesMut::new());
        if lingers {
            Box::pin(linger(&mut task.stream, &task.socket)).await;
        }
    }
}

/// Reads what a peer sends behind its `QUIT`, or while the broker stops. To close with bytes unread resets
/// the connection, and a peer then loses the answers that it has not read yet.
async fn linger(stream: &mut OwnedReadHalf, socket: &Socket) {
    let rest = async {
        rustix::net::shutdown(socket.0.as_ref(), rustix::net::Shutdown::Write)?;
        let mut some = stream.take(LINGER_BYTES_MAX);
        if tokio::io::copy(&mut some, &mut tokio::io::sink()).await? == LINGER_BYTES_MAX {
            // It sends without an end; it may read meanwhile.
            std::future::pending::<()>().await;
        }
        Ok::<_, io::Error>(())
    };
    // However it ends, the connection is closed: the peer had its time.
    drop(tokio::time::timeout(LINGER, rest).await);
}

/// The writing side of a socket.
#[derive(Debug)]
struct Socket(OwnedWriteHalf);

impl Wire for Socket {
    fn send(&self, bytes: &[u8]) -> usize {
        self.0.try_write(bytes).unwrap_or(0)
    }
}

struct Task {
    stream: OwnedReadHalf,
    socket: Arc<Socket>,
    core: Core,
    outbox: Arc<Outbox>,
    broker: Arc<Broker>,
    draining: watch::Receiver<bool>,
    buffer: BytesMut,
    pieces: Vec<crate::broker::letter::Piece>,
    jobs: JoinSet<(Reading, ReadJob, ReadDone)>,
    /// Runs while the consumer may turn out to be dead.
    timer: Option<Pin<Box<Sleep>>>,
    /// How much the next read asks for: as much as comes.
    read_bytes: usize,
    seats: Arc<Seats>,
    /// What has come of a message is more than there is room for.
    seat: Option<Box<Seat>>,
    /// The peer sends no more.
    is_ended: bool,
    is_draining: bool,
    /// Commands are in the buffer that were not taken yet: too much was outstanding or unsent.
    is_held: bool,
    /// A letter was brought to its shard in person, and this thread had to wait for the disk.
    has_visited: bool,
    /// Commands taken since others had this thread.
    taken: usize,
    /// Whether to wait for the peer awake.
    awake: Awake,
    peer: String,
}

impl Task {
    async fn serve(&mut self) -> io::Result<()> {
        let mut draining = self.draining.clone();
        let mut drained = pin!(draining.wait_for(|is_draining| *is_draining));
        // It has the task's waker from now on: that is all that is wanted of it.
        poll_fn(|cx| Poll::Ready(drained.as_mut().poll(cx).is_ready())).await;
        loop {
            self.take_pieces();
            self.input().await;
            if self.has_visited {
                self.take_pieces();
            }
            self.output()?;
            if !self.is_held || !self.core.wants_input() {
                if self.core.is_finished() {
                    return Ok(());
                }
                self.wait().await?;
            }
            if std::mem::take(&mut self.has_visited) || self.taken >= TURN_COMMANDS_MAX {
                // It goes on at once; whoever had to wait meanwhile comes first.
                self.taken = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether the connection is to be read for a while before it is closed. When the broker stops that is
    /// only for those who are just sending: the others are many, and close theirs when they like.
    fn lingers(&self) -> bool {
        let has_unread = || rustix::io::ioctl_fionread(self.socket.0.as_ref()).unwrap_or(1) > 0;
        !self.is_ended && (!self.is_draining || !self.buffer.is_empty() || has_unread())
    }

    fn take_pieces(&mut self) {
        let taken = self.outbox.take(&mut self.pieces);
        for (shard, letter) in self.core.sent(taken.sent) {
            self.broker.post(shard, letter);
        }
        for piece in self.pieces.drain(..) {
            self.core.piece(piece);
        }
        self.core.more(&taken.due);
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
        self.taken += input.commands;
        if input.is_http {
            tracing::warn!(
                event = "http_refused",
                peer = self.peer,
                "a connection that speaks HTTP was closed; this is not an HTTP port"
            );
        }
        if self.core.joins_behind_history() {
            // A group would have its turn before this sleeps.
            self.outbox.grant(self.core.room());
        }
        for (shard, letter) in input.letters {
            let bytes = letter.bytes.len();
            if let Some(posting) = self.bring(shard, letter) {
                self.core.rest(self.buffer.capacity() + bytes);
                posting.await;
            }
        }
        self.is_held = !input.is_drained && !self.buffer.is_empty();
        if self.is_ended && (input.is_drained || self.buffer.is_empty()) {
            self.drop_part();
            self.core.finish();
        }
        if self.buffer.is_empty() {
            self.return_buffer();
        }
    }

    /// What is left in the buffer is no whole command, and its rest will never come.
    fn drop_part(&mut self) {
        self.broker.count_moved(self.buffer.len());
        self.buffer.clear();
    }

    /// An idle connection keeps no buffer: the next one of its thread that reads has it.
    fn return_buffer(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        if buffer.try_reclaim(READ_BYTES_MIN) && buffer.capacity() <= SPARE_BYTES_MAX {
            SPARE.set(buffer);
        }
    }

    /// Brings a letter to its shard, in person if that is at rest, else by post. What comes back waits
    /// for room in the mailbox and posts it then. This is how a publisher is slowed down when the broker
    /// is behind: its socket is not read meanwhile.
    fn bring(&mut self, shard: u32, letter: Letter) -> Option<Posting> {
        let Some(mut letter) = self.broker.enter(shard, letter, self.core.direct()) else {
            self.has_visited = true;
            self.awake.answered(Moment::read());
            return None;
        };
        let room = Arc::clone(self.broker.mailbox(shard).room());
        let bytes = letter.bytes.len().clamp(1, MAILBOX_BYTES_MAX);
        let bytes = u32::try_from(bytes).expect("a mailbox is below 4 GiB");
        if let Ok(permit) = Arc::clone(&room).try_acquire_many_owned(bytes) {
            letter.permit = Some(permit);
            self.broker.post(shard, letter);
            return None;
        }
        let broker = Arc::clone(&self.broker);
        Some(Box::pin(async move {
            // The room is never closed.
            letter.permit = room.acquire_many_owned(bytes).await.ok();
            broker.post(shard, letter);
        }))
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.core.out().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.core.out().slices(&mut slices);
            match self.socket.0.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    for (shard, letter) in self.core.taken(sent, Moment::read) {
                        self.broker.post(shard, letter);
                    }
                    self.broker.count_moved(sent);
                    if let Some(seat) = &mut self.seat {
                        seat.moved(sent);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Waits until there is something to do; awake at first, if the peer is likely to be back soon.
    async fn wait(&mut self) -> io::Result<()> {
        while self.awake.until().is_some_and(|until| Moment::read() < until) {
            if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(self.poll_wait(cx))).await {
                return result;
            }
            // All others of the thread have their turn, and the runtime looks at its sockets.
            tokio::task::yield_now().await;
        }
        poll_fn(|cx| self.poll_wait(cx)).await
    }

    /// Ready when there is something to read, to write or to look at.
    fn poll_wait(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        let is_seated = self.seat.as_ref().is_some_and(|seat| seat.is_taken());
        self.core.rest(if is_seated { 0 } else { self.buffer.capacity() });
        let (direct, is_sated) = (self.core.direct(), self.core.is_sated());
        let room = self.core.room();
        let mut is_woken = self.outbox.sleep(cx, direct, is_sated, room).is_ready();
        is_woken |= self.poll_input(cx)?.is_ready();
        if !self.core.out().is_empty() {
            is_woken |= self.socket.0.as_ref().poll_write_ready(cx)?.is_ready();
        }
        while let Poll::Ready(Some(done)) = self.jobs.poll_join_next(cx) {
            let (reading, job, done) = done.map_err(io::Error::other)?;
            // What others sent meanwhile came before what was read.
            self.take_pieces();
            self.core.read(reading, job, done);
            is_woken = true;
        }
        is_woken |= self.poll_timer(cx).is_ready();
        if !self.is_draining && *self.draining.borrow() {
            self.is_draining = true;
            self.core.finish();
            is_woken = true;
        }
        if is_woken {
            return Poll::Ready(Ok(()));
        }
        // Others have this thread now.
        (self.has_visited, self.taken) = (false, 0);
        Poll::Pending
    }

    /// Ready when a consumer was silent for too long. The timer runs for as long as was left when it
    /// was set; whoever is heard meanwhile has more time when it comes.
    fn poll_timer(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        loop {
            let Some(wake_at) = self.core.wake_at() else {
                self.timer = None;
                return Poll::Pending;
            };
            let now = Now::read();
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(wake_at.since(now.moment))));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
            let letters = self.core.wake(now);
            if !letters.is_empty() {
                for (shard, letter) in letters {
                    self.broker.post(shard, letter);
                }
                return Poll::Ready(());
            }
        }
    }

    /// Reads, if more is wanted and there is room for it. Whoever has none waits for a seat, and whoever
    /// has one and gets too little has to give it up.
    fn poll_input(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        if self.is_ended || !self.core.wants_input() {
            return self.poll_deaf(cx).map(Err);
        }
        if self.is_held {
            // There are whole commands, and they can be taken now.
            return Poll::Ready(Ok(()));
        }
        let hint = self.core.read_hint(self.read_bytes);
        if let Some(bytes) = self.core.read_max(hint, self.buffer.len()) {
            self.seat = None;
            return self.poll_read(cx, bytes);
        }
        let seat = self.seat.get_or_insert_with(|| Box::new(Seat::new(&self.seats)));
        ready!(seat.poll_taken(cx));
        let before = self.buffer.len();
        let result = self.poll_read(cx, hint);
        let Some(seat) = &mut self.seat else { return result };
        seat.moved(self.buffer.len() - before);
        if result.is_pending() {
            ready!(seat.poll_overdue(cx));
            self.seat = None;
            // What others sent meanwhile came before this answer.
            self.take_pieces();
            self.core.give_up(&self.buffer);
            self.drop_part();
            self.return_buffer();
            return Poll::Ready(Ok(()));
        }
        result
    }

    /// Nothing is read. Ready when that is so because the peer reads nothing or too little, and others
    /// wait for the room that it has for a message.
    fn poll_deaf(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Error> {
        if self.core.is_closing() {
            self.drop_part();
        }
        let needs_none = self.core.read_max(0, self.buffer.len()).is_some();
        self.seat.take_if(|seat| needs_none || !seat.is_taken());
        let Some(seat) = &mut self.seat else { return Poll::Pending };
        if self.core.out().is_empty() {
            // The broker itself is behind.
            return Poll::Pending;
        }
        ready!(seat.poll_overdue(cx));
        Poll::Ready(io::Error::other("it read too little while others waited for its memory"))
    }

    /// Reads what has come. A connection on which nothing comes has no buffer.
    fn poll_read(&mut self, cx: &mut task::Context<'_>, bytes: usize) -> Poll<io::Result<()>> {
        if self.stream.as_ref().poll_read_ready(cx)?.is_pending() {
            return Poll::Pending;
        }
        if self.buffer.capacity() == 0 {
            self.buffer = SPARE.take();
        }
        self.buffer.reserve(bytes);
        // A read that does not fill the buffer tells the runtime that there is no more.
        let Poll::Ready(got) = pin!(self.stream.read_buf(&mut self.buffer)).poll(cx)? else {
            if self.buffer.is_empty() {
                self.return_buffer();
            }
            return Poll::Pending;
        };
        if got == 0 {
            self.is_ended = true;
            return Poll::Ready(Ok(()));
        }
        let next = if got >= bytes { bytes * 2 } else { got };
        self.read_bytes = next.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let now = Moment::read();
        self.awake.heard(now);
        crowd::heard(got, now);
        for (shard, letter) in self.core.heard(now) {
            self.broker.post(shard, letter);
        }
        Poll::Ready(Ok(()))
    }
}
