//! Many commands on one connection, answered in their order.
//!
//! ```text
//!   callers ── push: line and waiter, under a short lock ──▶ State ◀── swap the buffer ── Task ⇄ socket
//!      ▲                                                       │
//!      └───────── answers, in order, many at a time ◀──────────┘
//! ```
//!
//! * Callers append their line to one buffer; the task writes it in large pieces, and parses the
//!   answers of a read before it takes the lock once for all of them.
//! * Bounded: a caller waits while `window` commands are unanswered or the buffer is full.
//! * When the connection is lost, a publish whose line had been written whole gets
//!   [`ClientError::OutcomeUnknown`]. One whose LF was not written is no command to a broker, so
//!   it was not carried out and goes to the next connection, unless its owner wants nothing to be
//!   sent behind one that failed ([`Pipe::stop_when_lost`]). `PING` may be sent twice.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memrchr;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::connection::{Connection, Lines, unexpected};
use super::options::{Backoff, Options};
use super::publisher::Results;
use super::{ClientError, Published};
use crate::proto::{Kind, Request, ServerLine};

/// Most bytes that wait to be written; a single line may be longer.
const OUT_BYTES_MAX: usize = 1 << 20;

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A publish, by its own future.
    Publish(oneshot::Sender<Result<Published, ClientError>>),
    /// One of many publishes of a [`super::Publisher`].
    Bulk,
    /// A `PING`.
    Ping(oneshot::Sender<Result<(), ClientError>>),
    /// A `QUIT`.
    Quit(oneshot::Sender<Result<(), ClientError>>),
}

#[derive(Debug)]
struct Pending {
    /// Where its line ends, in bytes since the connection began.
    end: u64,
    waiter: Waiter,
}

#[derive(Debug)]
struct State {
    /// Lines that the task has not taken yet.
    out: Vec<u8>,
    /// Where `out` ends, in bytes since the connection began.
    out_end: u64,
    pending: VecDeque<Pending>,
    /// The task has nothing to write and sleeps.
    idle: bool,
    /// With a connection on which one failed, all that follow fail too.
    stops_when_lost: bool,
    /// Why nothing more is taken: the task is gone, or it has stopped.
    over: Option<ClientError>,
    results: Results,
}

impl State {
    /// A connection was lost or could not be had: whether that is the end, since one has failed.
    fn stops(&mut self, why: &ClientError) -> bool {
        let stops = self.stops_when_lost && self.results.has_failed();
        if stops {
            self.over.get_or_insert_with(|| why.clone());
        }
        stops
    }
}

/// What callers and the task share.
#[derive(Debug)]
struct Shared {
    window: usize,
    state: Mutex<State>,
    /// There is something to write.
    work: Notify,
    /// There is room to push; each who is woken wakes the next while there still is.
    room: Notify,
    /// There are new results.
    results: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callers' end of a connection. The connection ends when it is dropped.
#[derive(Debug)]
pub(super) struct Pipe {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pipe {
    pub(super) fn new(connection: Connection, options: Arc<Options>) -> Pipe {
        let state = State {
            out: Vec::new(),
            out_end: 0,
            pending: VecDeque::new(),
            idle: false,
            stops_when_lost: false,
            over: None,
            results: Results::new(options.window),
        };
        let shared = Arc::new(Shared {
            window: options.window.max(1),
            state: Mutex::new(state),
            work: Notify::new(),
            room: Notify::new(),
            results: Notify::new(),
        });
        let task = Task {
            shared: Arc::clone(&shared),
            backoff: Backoff::new(options.reconnect),
            options,
            writing: Vec::new(),
            written: 0,
            writing_start: 0,
        };
        Pipe { shared, task: tokio::spawn(task.run(connection)) }
    }

    /// Appends a line and who waits for its answer, as soon as there is room.
    pub(super) async fn push(
        &self,
        write: impl Fn(&mut Vec<u8>),
        waiter: Waiter,
    ) -> Result<(), ClientError> {
        let Some(mut waiter) = self.try_push(&write, waiter)? else { return Ok(()) };
        loop {
            let mut room = pin!(self.shared.room.notified());
            // From here on no wake-up is lost, so looking once more is enough.
            room.as_mut().enable();
            match self.try_push(&write, waiter)? {
                None => return Ok(()),
                Some(back) => waiter = back,
            }
            room.await;
            match self.try_push(&write, waiter)? {
                None => {
                    self.shared.room.notify_one();
                    return Ok(());
                }
                Some(back) => waiter = back,
            }
        }
    }

    /// Gives `waiter` back if there is no room.
    fn try_push(
        &self,
        write: impl Fn(&mut Vec<u8>),
        waiter: Waiter,
    ) -> Result<Option<Waiter>, ClientError> {
        let mut state = self.shared.lock();
        if let Some(why) = &state.over {
            return Err(why.clone());
        }
        if state.pending.len() >= self.shared.window || state.out.len() >= OUT_BYTES_MAX {
            return Ok(Some(waiter));
        }
        let before = state.out.len();
        write(&mut state.out);
        state.out_end += (state.out.len() - before) as u64;
        let end = state.out_end;
        state.results.begun(&waiter);
        state.pending.push_back(Pending { end, waiter });
        let wake = std::mem::take(&mut state.idle);
        drop(state);
        if wake {
            self.shared.work.notify_one();
        }
        Ok(None)
    }

    /// Once a command has failed with its connection, none behind it is sent on another.
    pub(super) fn stop_when_lost(&self) {
        self.shared.lock().stops_when_lost = true;
    }

    /// Looks at the results of bulk publishes.
    pub(super) fn results<T>(&self, look: impl FnOnce(&mut Results) -> T) -> T {
        look(&mut self.shared.lock().results)
    }

    /// Waits until `look` finds what it looks for in the results of bulk publishes.
    pub(super) async fn until<T>(&self, mut look: impl FnMut(&mut Results) -> Option<T>) -> T {
        loop {
            let mut news = pin!(self.shared.results.notified());
            news.as_mut().enable();
            if let Some(found) = self.results(&mut look) {
                return found;
            }
            news.await;
        }
    }
}

/// What the broker said to one command.
enum Answer {
    Published(Published),
    Done,
    Refused(ClientError),
}

/// How serving a connection ended.
enum End {
    Quit,
    Lost(ClientError),
}

struct Task {
    shared: Arc<Shared>,
    options: Arc<Options>,
    backoff: Backoff,
    /// Whole lines, of which the first `written` bytes are with the kernel.
    writing: Vec<u8>,
    written: usize,
    /// Where `writing` begins, in bytes since the connection began.
    writing_start: u64,
}

impl Drop for Task {
    /// However the task ends, nobody waits for it any more.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over.get_or_insert_with(ClientError::ended);
        let pending = std::mem::take(&mut state.pending);
        pending.into_iter().for_each(|p| state.results.answer(p.waiter, Err(ClientError::ended())));
        drop(state);
        self.shared.room.notify_waiters();
        self.shared.results.notify_waiters();
    }
}

impl Task {
    async fn run(mut self, mut connection: Connection) {
        loop {
            let lost = match self.serve(&mut connection).await {
                End::Quit => return,
                End::Lost(why) => why,
            };
            drop(connection);
            self.lost(&lost);
            connection = self.next_connection(lost).await;
        }
    }

    async fn serve(&mut self, connection: &mut Connection) -> End {
        let (mut reader, mut writer) = connection.stream.split();
        loop {
            if self.written == self.writing.len() {
                self.refill();
            }
            let unwritten = self.written < self.writing.len();
            tokio::select! {
                read = connection.lines.read_from(&mut reader) => {
                    match read.and_then(|()| self.answers(&mut connection.lines)) {
                        Ok(false) => {}
                        Ok(true) => return End::Quit,
                        Err(why) => return End::Lost(why),
                    }
                }
                wrote = writer.write(&self.writing[self.written..]), if unwritten => match wrote {
                    Ok(bytes) => self.written += bytes,
                    Err(why) => return End::Lost(ClientError::disconnected(why)),
                },
                () = self.shared.work.notified(), if !unwritten => {}
            }
        }
    }

    /// Takes what callers have appended.
    fn refill(&mut self) {
        self.writing_start += self.writing.len() as u64;
        self.writing.clear();
        self.written = 0;
        let mut state = self.shared.lock();
        std::mem::swap(&mut state.out, &mut self.writing);
        state.idle = self.writing.is_empty();
        drop(state);
        self.shared.room.notify_one();
    }

    /// Hands out the answers that have come; true after the one to a `QUIT`.
    fn answers(&mut self, lines: &mut Lines) -> Result<bool, ClientError> {
        let (mut answers, mut broken) = (Vec::new(), None);
        while broken.is_none() {
            match lines.next() {
                Ok(Some(line)) => answers.extend(Answer::parse(&line)),
                Ok(None) => break,
                Err(why) => broken = Some(why),
            }
        }
        let written_end = self.writing_start + self.written as u64;
        let (mut quit, mut good) = (false, false);
        let mut state = self.shared.lock();
        for answer in answers {
            let asked = |pending: &mut Pending| pending.end <= written_end;
            let Some(pending) = state.pending.pop_front_if(asked) else {
                broken = Some(ClientError::Protocol("an answer to no command".to_owned()));
                break;
            };
            good = true;
            quit |= matches!(pending.waiter, Waiter::Quit(_));
            let answer = match answer {
                Answer::Published(published) => Ok(Some(published)),
                Answer::Done => Ok(None),
                Answer::Refused(error) => Err(error),
            };
            state.results.answer(pending.waiter, answer);
        }
        drop(state);
        if good {
            self.backoff.reset();
        }
        self.shared.room.notify_one();
        self.shared.results.notify_waiters();
        broken.map_or(Ok(quit), Err)
    }

    /// Sorts what is unanswered when a connection is lost: what was written whole has an unknown
    /// outcome or may be sent twice, the rest waits for the next connection, or is told that it was
    /// not sent.
    fn lost(&mut self, why: &ClientError) {
        let written_end = self.writing_start + self.written as u64;
        let cut = memrchr(b'\n', &self.writing[..self.written]).map_or(0, |at| at + 1);
        let mut state = self.shared.lock();
        let (mut again, mut kept) = (Vec::new(), VecDeque::new());
        let pending = std::mem::take(&mut state.pending);
        let (written, unwritten): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|pending| pending.end <= written_end);
        for pending in written {
            match pending.waiter {
                Waiter::Ping(_) => {
                    Request::Ping.write_to(&mut again);
                    kept.push_back(Pending { end: again.len() as u64, waiter: pending.waiter });
                }
                Waiter::Quit(_) => state.results.answer(pending.waiter, Ok(None)),
                Waiter::Publish(_) | Waiter::Bulk => {
                    state.results.answer(pending.waiter, Err(ClientError::OutcomeUnknown));
                }
            }
        }
        if state.stops(why) {
            unwritten.into_iter().for_each(|p| state.results.answer(p.waiter, Err(why.clone())));
        } else {
            let (dropped, added) = (self.writing_start + cut as u64, again.len() as u64);
            let moved = |p: Pending| Pending { end: p.end - dropped + added, ..p };
            kept.extend(unwritten.into_iter().map(moved));
            again.extend_from_slice(&self.writing[cut..]);
            again.extend_from_slice(&state.out);
        }
        state.out_end = again.len() as u64;
        state.out = again;
        state.pending = kept;
        drop(state);
        self.writing.clear();
        (self.written, self.writing_start) = (0, 0);
        self.shared.room.notify_one();
        self.shared.results.notify_waiters();
    }

    /// A new connection, once there is something to do on it.
    async fn next_connection(&mut self, mut lost: ClientError) -> Connection {
        loop {
            self.something_to_do().await;
            match Connection::reopen(&self.options, &mut self.backoff, lost).await {
                Ok(connection) => return connection,
                Err(why) => {
                    self.fail_all(&why);
                    self.backoff.reset();
                    lost = why;
                }
            }
        }
    }

    async fn something_to_do(&self) {
        loop {
            {
                let mut state = self.shared.lock();
                // Where there is no connection, there is none to end.
                if state.pending.iter().all(|p| matches!(p.waiter, Waiter::Quit(_))) {
                    let quits = std::mem::take(&mut state.pending);
                    quits.into_iter().for_each(|p| state.results.answer(p.waiter, Ok(None)));
                    state.out.clear();
                    state.out_end = 0;
                    state.idle = true;
                } else {
                    return;
                }
            }
            self.shared.work.notified().await;
        }
    }

    /// No connection can be had: what waits for one was not sent, and is told why.
    fn fail_all(&self, why: &ClientError) {
        let mut state = self.shared.lock();
        let pending = std::mem::take(&mut state.pending);
        pending.into_iter().for_each(|p| state.results.answer(p.waiter, Err(why.clone())));
        state.stops(why);
        state.out.clear();
        state.out_end = 0;
        drop(state);
        self.shared.room.notify_one();
        self.shared.results.notify_waiters();
    }
}

impl Answer {
    /// `None` for a line that answers nothing, such as a `MSG`.
    fn parse(line: &[u8]) -> Option<Answer> {
        let kind = ServerLine::parse(line).kind;
        if let Some((id, offset)) = kind.published() {
            return Some(Answer::Published(Published { id: id.to_owned(), offset }));
        }
        match kind {
            Kind::Ok(_) => Some(Answer::Done),
            Kind::Err { code, text } => Some(Answer::Refused(ClientError::from_answer(code, text))),
            Kind::Msg(_) | Kind::History(_) | Kind::Other => None,
        }
    }
}

/// What a publish is told whose answer is an `OK` of another kind.
pub(super) fn not_published() -> ClientError {
    unexpected("OK published <id> <offset>", b"another OK")
}

#[cfg(test)]
#[path = "pipe_tests.rs"]
mod tests;
