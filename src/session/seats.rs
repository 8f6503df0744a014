//! Seats for those whose messages come in part: room for a whole message each.
//!
//! A message is held until its end has come, and when all sessions hold much there is less room for each
//! than a message may need. If everybody kept what came and waited for more, no message would ever be
//! whole. So some have a seat, and with it as much room as the largest message; the others do not read
//! their sockets until one is free, in the order in which they came. Whose peer sends too little meanwhile
//! has to give the seat up, and its message, so that peers that are gone keep nobody waiting for long. See
//! `docs/decisions/0009-sessions-share.md`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Memory for messages that come in part and have a seat, in bytes: a buffer that grows is up to twice
/// as large as what is in it.
const SEATED_BYTES: usize = 64 << 20;

/// In this time so much has to come while others wait for a seat, in bytes.
const PATIENCE: Duration = Duration::from_secs(5);
const ENOUGH_BYTES: usize = 32 << 10;

/// How often who waits looks whether there is room without a seat.
const LOOK: Duration = Duration::from_secs(1);

/// All seats.
#[derive(Debug)]
pub struct Seats {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    patience: Duration,
}

impl Seats {
    /// As many as there is memory for, with messages of up to so many bytes: at least one.
    pub fn new(message_bytes_max: usize) -> Self {
        Self::with((SEATED_BYTES / 2 / message_bytes_max.max(1)).max(1), PATIENCE)
    }

    /// So many, for each of which [`ENOUGH_BYTES`] have to come in so much time.
    pub(crate) fn with(count: usize, patience: Duration) -> Self {
        let count = count.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(count)), waiting: AtomicUsize::new(0), patience }
    }

    /// How many are free.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// How many wait for one.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A seat, or a place in the queue for one. Dropping it gives it up.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    state: State,
    /// Rings when it is time to look: whether there is room without a seat, or how much has come.
    timer: Pin<Box<Sleep>>,
}

enum State {
    Waiting(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>),
    Taken {
        _seat: Option<OwnedSemaphorePermit>,
        /// What has come, and been taken by the peer, since the timer was set, in bytes.
        came: usize,
    },
}

impl Seat {
    /// The last place in the queue.
    pub(crate) fn new(seats: &Arc<Seats>) -> Self {
        let (free, place) = (Arc::clone(&seats.free), InQueue::new(seats));
        let seat = Box::pin(async move {
            let _place = place;
            // It is never closed.
            free.acquire_owned().await.ok()
        });
        Self {
            seats: Arc::clone(seats),
            state: State::Waiting(seat),
            timer: Box::pin(tokio::time::sleep(LOOK)),
        }
    }

    /// Whether it is taken: with it comes room for a whole message.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.state, State::Taken { .. })
    }

    /// Ready as soon as it is taken. Wakes the task as well when it is time to look whether there is room
    /// without it.
    pub(crate) fn poll_taken(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        if let State::Waiting(seat) = &mut self.state {
            let Poll::Ready(seat) = seat.as_mut().poll(cx) else {
                let _has_rung = self.poll_timer(cx, LOOK);
                return Poll::Pending;
            };
            self.state = State::Taken { _seat: seat, came: 0 };
            self.timer.set(tokio::time::sleep(self.seats.patience));
        }
        Poll::Ready(())
    }

    /// So many bytes more have come, or been taken by the peer while nothing was read.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let State::Taken { came, .. } = &mut self.state {
            *came += bytes;
        }
    }

    /// Ready when too little has come while others wait.
    pub(super) fn poll_overdue(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        ready!(self.poll_timer(cx, self.seats.patience));
        if self.is_enough() || self.seats.waiting() == 0 { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Whether enough has come since the last look.
    fn is_enough(&mut self) -> bool {
        match &mut self.state {
            State::Waiting(_) => true,
            State::Taken { came, .. } => std::mem::take(came) >= ENOUGH_BYTES,
        }
    }

    /// Ready when it rings; it is set again then, and wakes the task when it rings the next time.
    fn poll_timer(&mut self, cx: &mut task::Context<'_>, time: Duration) -> Poll<()> {
        ready!(self.timer.as_mut().poll(cx));
        self.timer.set(tokio::time::sleep(time));
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(())
    }
}

/// One of those who wait.
struct InQueue(Arc<Seats>);

impl InQueue {
    fn new(seats: &Arc<Seats>) -> Self {
        seats.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(seats))
    }
}

impl Drop for InQueue {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn taken(seats: &Arc<Seats>) -> Seat {
        let mut seat = Seat::new(seats);
        poll_fn(|cx| seat.poll_taken(cx)).await;
        assert!(seat.is_taken());
        seat
    }

    #[test]
    fn there_are_as_many_as_there_is_memory_for_and_always_one() {
        let count = |message| Seats::new(message).free();
        assert_eq!((count(1 << 20), count(16 << 20), count(1 << 30)), (32, 2, 1));
        assert!(count(0) > 1_000_000);
    }

    #[tokio::test]
    async fn a_seat_that_is_given_up_is_the_next_ones() {
        let seats = Arc::new(Seats::with(1, Duration::from_secs(1000)));
        let first = taken(&seats).await;
        let mut second = Seat::new(&seats);
        let gone = Seat::new(&seats);
        assert_eq!((seats.free(), seats.waiting()), (0, 2));
        let pending = poll_fn(|cx| Poll::Ready(second.poll_taken(cx).is_pending())).await;
        assert!(pending && !second.is_taken());
        drop((first, gone));
        poll_fn(|cx| second.poll_taken(cx)).await;
        assert_eq!((seats.free(), seats.waiting()), (0, 0));
        drop(second);
        assert_eq!(seats.free(), 1);
    }

    #[tokio::test]
    async fn enough_has_to_come_each_time() {
        let seats = Arc::new(Seats::with(1, Duration::from_secs(1000)));
        let mut seat = taken(&seats).await;
        seat.moved(ENOUGH_BYTES - 1);
        assert!(!seat.is_enough());
        seat.moved(ENOUGH_BYTES - 1);
        seat.moved(1);
        assert!(seat.is_enough());
        assert!(!seat.is_enough());
    }

    #[tokio::test]
    async fn who_gets_too_little_is_overdue_as_soon_as_others_wait() {
        let seats = Arc::new(Seats::with(1, Duration::from_nanos(1)));
        let mut seat = taken(&seats).await;
        for _ in 0..100 {
            let overdue = poll_fn(|cx| Poll::Ready(seat.poll_overdue(cx).is_ready())).await;
            assert!(!overdue, "nobody waits");
            tokio::task::yield_now().await;
        }
        let _waiting = Seat::new(&seats);
        poll_fn(|cx| seat.poll_overdue(cx)).await;
    }
}
