//! The way from shards to one session: [`Outbox`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::ids::Offset;
use crate::log::LogShared;
use crate::planted::{self, Bug};

use super::bell::Bell;
use super::letter::{Bookmark, Piece};
use super::lock;

/// The way from shards to one session: pieces in order, and "there is more to read" for plain
/// subscribers. What can wait in it is bounded by what the session asked for, by its credit and by its
/// room. The default one wakes nobody, and has room for all: it is for those who look by themselves.
///
/// A session that sleeps with nothing unsent lets others write to its socket for it
/// ([`Outbox::sleep`]): what fits is then sent by the thread that has it, and the session hears of it
/// when it wakes for something else. That saves waking a thread for every answer and every delivery.
#[derive(Debug)]
pub struct Outbox {
    bell: Arc<Bell>,
    waiting: Mutex<Waiting>,
    /// So many more bytes of pushes may come. Changed under the lock.
    room: AtomicUsize,
    closed: AtomicBool,
}

impl Default for Outbox {
    fn default() -> Self {
        let room = AtomicUsize::new(usize::MAX);
        Self {
            bell: Arc::default(),
            waiting: Mutex::default(),
            room,
            closed: AtomicBool::default(),
        }
    }
}

/// What a session has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// So many bytes of pushes. With none, groups hold back what they have for it.
    pub bytes: usize,
    /// That is enough for what was held back.
    pub is_ample: bool,
}

/// A session's socket, for those who have something for it while it sleeps.
pub trait Wire: std::fmt::Debug + Send + Sync {
    /// Sends as many of these bytes as go without waiting; says how many. A broken connection takes
    /// none: its session will find out.
    fn send(&self, bytes: &[u8]) -> usize;
}

/// More than this is sent by the session's own thread, in bytes: whoever has answers for many sends
/// the short ones in the time that it takes to wake somebody, and should not stay over long ones.
const DIRECT_BYTES_MAX: usize = 2 << 10;

/// Letters in a row, by number, whose answers come next on a connection.
pub type Letters = std::ops::Range<u64>;

/// What others sent while a session slept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// So many letters were answered, in their order.
    pub letters: usize,
    /// With so many lines.
    pub lines: usize,
    /// Groups held something back, and there is room for it now.
    pub is_drained: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: Vec<Piece>,
    is_nudged: bool,
    /// The session would not do anything about a nudge before it wakes for another reason.
    is_deaf: bool,
    /// The session, if it sleeps.
    waker: Option<Waker>,
    wire: Option<Arc<dyn Wire>>,
    /// While the wire may be used: the letters whose answers may come next on it.
    direct: Option<Letters>,
    /// A group holds something back for want of room.
    is_awaited: bool,
    sent: Sent,
    /// Subscriptions of which there is more, each once.
    due: Vec<Arc<Bookmark>>,
}

/// What a session finds in its outbox, besides the pieces.
#[derive(Debug)]
pub struct Taken {
    /// What was sent before them.
    pub sent: Sent,
    /// Subscriptions of which there may be more since the last time.
    pub due: Vec<Arc<Bookmark>>,
}

impl Outbox {
    /// The way to a session on the thread of this bell.
    pub fn new(bell: Arc<Bell>, wire: Arc<dyn Wire>) -> Self {
        let waiting = Mutex::new(Waiting { wire: Some(wire), ..Waiting::default() });
        Self { bell, waiting, ..Self::default() }
    }

    /// How many bytes of pushes may come behind so many that were not posted yet. If none, the session
    /// is to say when there is room ([`Sent::is_drained`]).
    pub fn room_behind(&self, unposted: usize) -> usize {
        if planted::has(Bug::RoomIgnored) {
            return usize::MAX;
        }
        let room = || self.room.load(Ordering::Relaxed).saturating_sub(unposted);
        if room() > 0 {
            return room();
        }
        let mut waiting = lock(&self.waiting);
        let room = room();
        waiting.is_awaited |= room == 0;
        room
    }

    /// Puts a piece in, and wakes the session for it. With `may_send` it is sent at once if the session
    /// sleeps and lets it be done, as far as it goes.
    pub fn post(&self, piece: Piece, may_send: bool) {
        let mut waiting = lock(&self.waiting);
        let left = if may_send { waiting.send(piece) } else { Some(piece) };
        let Some(left) = left else { return };
        let room = self.room.load(Ordering::Relaxed);
        self.room.store(room.saturating_sub(left.pushed()), Ordering::Relaxed);
        waiting.pieces.push(left);
        // What comes after it comes behind it.
        waiting.direct = None;
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(|waker| self.bell.wake(waker));
    }

    /// A log that the session follows has more. With `may_send` that is sent at once if the session
    /// sleeps and lets it be done, and has said that it follows; else the session is woken, and looks itself.
    pub fn tell(&self, log: &LogShared, bookmark: &Arc<Bookmark>, may_send: bool) {
        let mut waiting = lock(&self.waiting);
        let next = waiting.direct.as_ref().map(|_| bookmark.get());
        if next.is_some_and(|next| next > log.end()) {
            // It has all there is, or will look when what it reads has come.
            return;
        }
        // The answer to the `SUB` may still wait behind that of a `HISTORY`.
        let is_told = bookmark.number().is_some() || planted::has(Bug::FollowsTooSoon);
        let may_send = may_send && is_told;
        if let Some((lines, next)) = next.filter(|_| may_send).and_then(|at| rest(log, at)) {
            if !planted::has(Bug::SentAgain) {
                bookmark.set(next);
            }
            let Some(left) = waiting.send(Piece::Push(lines)) else { return };
            waiting.pieces.push(left);
        } else {
            if !bookmark.is_due.swap(true, Ordering::Relaxed) {
                waiting.due.push(Arc::clone(bookmark));
            }
            if waiting.is_deaf {
                return;
            }
            waiting.is_nudged = true;
        }
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(|waker| self.bell.wake(waker));
    }

    /// Takes all pieces; what was sent before them is said, and of which subscriptions there is more. From
    /// now on nobody but the session uses its wire, and nobody wakes it until it sleeps again, for which
    /// it looks at what has come.
    pub fn take(&self, into: &mut Vec<Piece>) -> Taken {
        let mut waiting = lock(&self.waiting);
        (waiting.direct, waiting.is_deaf, waiting.waker) = (None, false, None);
        into.append(&mut waiting.pieces);
        let due = std::mem::take(&mut waiting.due);
        if !planted::has(Bug::FollowerForgotten) {
            due.iter().for_each(|bookmark| bookmark.is_due.store(false, Ordering::Relaxed));
        }
        Taken { sent: std::mem::take(&mut waiting.sent), due }
    }

    /// Whether others may use the wire.
    pub fn is_lent(&self) -> bool {
        lock(&self.waiting).direct.is_some()
    }

    /// Ready if there are pieces, there was a nudge since this was ready last, or there is room again.
    /// If not, and `direct` is something, the wire may be used by others until [`Outbox::take`]: for
    /// pushes, and for the answers to those letters in their order. With `is_deaf` a nudge is nothing
    /// to it until then.
    pub fn sleep(
        &self,
        cx: &Context<'_>,
        direct: Option<Letters>,
        is_deaf: bool,
        room: Room,
    ) -> Poll<()> {
        let mut waiting = lock(&self.waiting);
        self.set_room(&mut waiting, room);
        let is_awake = !waiting.pieces.is_empty() || waiting.sent.is_drained;
        if std::mem::take(&mut waiting.is_nudged) || is_awake {
            return Poll::Ready(());
        }
        waiting.lend(direct);
        waiting.is_deaf = is_deaf;
        if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// For a session that does nothing until it calls [`Outbox::take`], and needs nobody to wake it: as
    /// [`Outbox::sleep`].
    pub fn lend(&self, direct: Option<Letters>) {
        let mut waiting = lock(&self.waiting);
        if waiting.pieces.is_empty() {
            waiting.lend(direct);
        }
    }

    /// Says what the session has room for, if it does not sleep.
    pub fn grant(&self, room: Room) {
        self.set_room(&mut lock(&self.waiting), room);
    }

    /// The pushes that wait.
    #[cfg(any(test, feature = "sim"))]
    pub fn pushes(&self) -> Vec<u8> {
        let waiting = lock(&self.waiting);
        let lines = |piece: &Piece| match piece {
            Piece::Push(lines) => lines.clone(),
            Piece::Reply { .. } => Vec::new(),
        };
        waiting.pieces.iter().flat_map(lines).collect()
    }

    /// The session's room, but for what is in the pieces.
    fn set_room(&self, waiting: &mut Waiting, room: Room) {
        let pushed: usize = waiting.pieces.iter().map(Piece::pushed).sum();
        self.room.store(room.bytes.saturating_sub(pushed), Ordering::Relaxed);
        if room.is_ample && pushed == 0 && std::mem::take(&mut waiting.is_awaited) {
            waiting.sent.is_drained = !planted::has(Bug::PausedForEver);
        }
    }

    /// Gives it a wire.
    #[cfg(any(test, feature = "sim"))]
    pub fn with_wire(wire: Arc<dyn Wire>) -> Self {
        Self::new(Arc::default(), wire)
    }

    /// The session is gone: nothing that arrives from now on will be read.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut waiting = lock(&self.waiting);
        (waiting.wire, waiting.direct) = (None, None);
    }

    /// Whether the session is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// The lines from `at` to the end of a log, if they are at hand and few, and what comes behind them.
fn rest(log: &LogShared, at: Offset) -> Option<(Vec<u8>, Offset)> {
    let (lines, next) = log.tail().since(at)?;
    let is_all = next > log.end() && lines.len() <= DIRECT_BYTES_MAX;
    is_all.then(|| (lines.to_vec(), next))
}

impl Waiting {
    /// Lets others use the wire. What they sent and the session has not heard of was sent for the
    /// same letters.
    fn lend(&mut self, direct: Option<Letters>) {
        let sent = self.sent.letters as u64;
        self.direct = direct.map(|letters| (letters.start + sent).min(letters.end)..letters.end);
    }

    /// Sends a piece whose turn it is, as far as it goes; gives back what is left.
    fn send(&mut self, piece: Piece) -> Option<Piece> {
        let (Some(letters), Some(wire)) = (&mut self.direct, &self.wire) else {
            return Some(piece);
        };
        let (mut lines, is_reply) = match piece {
            Piece::Reply { seq, lines, then: None }
                if seq == letters.start
                    && !letters.is_empty()
                    && lines.len() <= DIRECT_BYTES_MAX =>
            {
                (lines, true)
            }
            Piece::Push(lines) if lines.len() <= DIRECT_BYTES_MAX => (lines, false),
            other => {
                self.direct = None;
                return Some(other);
            }
        };
        if is_reply {
            letters.start += 1;
            self.sent.letters += 1;
            self.sent.lines += memchr::memchr_iter(b'\n', &lines).count();
        }
        let sent = wire.send(&lines);
        if sent == lines.len() || planted::has(Bug::RestLost) {
            return None;
        }
        self.direct = None;
        lines.drain(..sent);
        Some(Piece::Push(lines))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::TopicName;
    use crate::log::{Chunk, LogSettings, NewRecord, TailBudget, TopicLog};

    /// Takes so many bytes in all.
    #[derive(Debug)]
    struct Short(Mutex<(Vec<u8>, usize)>);

    impl Wire for Short {
        fn send(&self, bytes: &[u8]) -> usize {
            let (sent, room) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room - sent.len());
            sent.extend_from_slice(&bytes[..count]);
            count
        }
    }

    fn outbox(room: usize) -> (Outbox, Arc<Short>) {
        let wire = Arc::new(Short(Mutex::new((Vec::new(), room))));
        (Outbox::with_wire(Arc::clone(&wire) as Arc<dyn Wire>), wire)
    }

    fn sent(wire: &Short) -> String {
        String::from_utf8(wire.0.lock().unwrap().0.clone()).unwrap()
    }

    fn reply(seq: u64, lines: &str) -> Piece {
        Piece::Reply { seq, lines: lines.into(), then: None }
    }

    const AMPLE: Room = Room { bytes: 1000, is_ample: true };

    fn left(outbox: &Outbox) -> (Sent, String) {
        let mut pieces = Vec::new();
        let sent = outbox.take(&mut pieces).sent;
        (sent, format!("{pieces:?}"))
    }

    #[test]
    fn whoever_has_answers_sends_them_while_the_session_sleeps() {
        let (outbox, wire) = outbox(1000);
        outbox.post(Piece::Push(b"early\n".to_vec()), true);
        assert_eq!(sent(&wire), "", "it is awake");
        left(&outbox);
        outbox.lend(Some(5..7));
        outbox.post(Piece::Push(b"push\n".to_vec()), true);
        outbox.post(reply(5, "a\nb\n"), true);
        outbox.post(reply(6, "c\n"), true);
        assert_eq!(sent(&wire), "push\na\nb\nc\n");
        // It looks at something else and sleeps again, without having heard.
        outbox.lend(Some(5..7));
        outbox.post(reply(7, "d\n"), true);
        assert_eq!(sent(&wire), "push\na\nb\nc\n", "no such letter was expected");
        let (known, pieces) = left(&outbox);
        assert_eq!(known, Sent { letters: 2, lines: 3, is_drained: false });
        outbox.lend(Some(8..9));
        outbox.post(reply(8, "e\n"), false);
        assert_eq!(sent(&wire), "push\na\nb\nc\n", "there is more to do");
        assert!(pieces.contains("seq: 7"), "{pieces}");
    }

    #[test]
    fn what_there_is_no_room_for_is_asked_for_when_there_is() {
        let (outbox, _) = outbox(0);
        let cx = Context::from_waker(Waker::noop());
        let room = |bytes, is_ample| Room { bytes, is_ample };
        assert!(outbox.sleep(&cx, None, false, room(10, true)).is_pending());
        assert_eq!(outbox.room_behind(9), 1);
        outbox.post(Piece::Push(b"1234567\n".to_vec()), true);
        outbox.post(reply(1, "an answer takes no room\n"), true);
        assert_eq!(outbox.room_behind(0), 2);
        assert_eq!(outbox.room_behind(2), 0);
        assert!(outbox.sleep(&cx, None, false, room(10, true)).is_ready());
        assert_eq!(outbox.room_behind(2), 0, "what waits is not in the session's room");
        assert_eq!(left(&outbox).0, Sent::default(), "it is still to be sent");
        // Half of it was sent, which is not worth it yet.
        assert!(outbox.sleep(&cx, None, false, room(4, false)).is_pending());
        assert!(outbox.sleep(&cx, None, false, room(10, true)).is_ready());
        let drained = Sent { is_drained: true, ..Sent::default() };
        assert_eq!(left(&outbox).0, drained);
        assert!(outbox.sleep(&cx, None, false, room(10, true)).is_pending(), "it is said once");
        assert_eq!(left(&outbox).0, Sent::default());
    }

    struct Sleeper;

    impl std::task::Wake for Sleeper {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn nobody_can_wake_a_session_that_is_awake() {
        let (outbox, sleeper) = (Outbox::default(), Arc::new(Sleeper));
        let waker = Waker::from(Arc::clone(&sleeper));
        let cx = Context::from_waker(&waker);
        assert!(outbox.sleep(&cx, None, false, AMPLE).is_pending());
        assert_eq!(Arc::strong_count(&sleeper), 3, "the outbox has a waker");
        outbox.take(&mut Vec::new());
        assert_eq!(Arc::strong_count(&sleeper), 2, "it has none");
        outbox.post(Piece::Push(b"x\n".to_vec()), true);
        assert!(outbox.sleep(&cx, None, false, AMPLE).is_ready(), "it looks before it sleeps");
    }

    #[test]
    fn nothing_overtakes_what_has_to_wait() {
        let (outbox, wire) = outbox(7);
        outbox.lend(Some(1..4));
        outbox.post(reply(2, "2\n"), true);
        outbox.post(reply(1, "1\n"), true);
        assert_eq!(sent(&wire), "", "the first letter is not answered yet");
        left(&outbox);
        outbox.lend(Some(1..4));
        outbox.post(reply(1, "one\n"), true);
        outbox.post(reply(2, "two\n"), true);
        outbox.post(reply(3, "three\n"), true);
        assert_eq!(sent(&wire), "one\ntwo", "no more goes in");
        outbox.post(Piece::Push(b"p\n".to_vec()), true);
        let (known, pieces) = left(&outbox);
        assert_eq!(
            known,
            Sent { letters: 2, lines: 2, is_drained: false },
            "whose rest is in the pieces"
        );
        let (rest, three) = (pieces.find("Push([10])"), pieces.find("seq: 3"));
        assert!(rest < three && rest.is_some(), "{pieces}");
        outbox.lend(Some(4..5));
        outbox.close();
        outbox.post(reply(4, "four\n"), true);
        assert_eq!(sent(&wire), "one\ntwo", "the session is gone");
    }

    /// A log, and a way to append a line to it.
    fn followed() -> (Arc<LogShared>, impl FnMut(&str)) {
        let disk: Arc<dyn crate::disk::Disk> = Arc::new(crate::disk::sim::SimDisk::new());
        let settings = LogSettings { segment_bytes: 1 << 30 };
        let topic = TopicName::parse(b"chat").unwrap();
        let tail = Arc::new(TailBudget::new(1 << 20));
        let mut log = TopicLog::create(disk, "/".as_ref(), topic, settings, tail);
        let append = {
            let shared = log.shared();
            move |line: &str| {
                let ts = crate::time::Timestamp::default();
                let offset = log.append(&NewRecord { ts, id: None, message: b"", extra: "" });
                let ends = vec![u32::try_from(line.len()).unwrap()];
                let lines = Bytes::copy_from_slice(line.as_bytes());
                shared.tail().push(Chunk::new(offset, lines, ends));
                log.flush().unwrap();
                shared.clone()
            }
        };
        let mut append = append;
        let shared = append("0\n");
        (shared, move |line: &str| drop(append(line)))
    }

    #[test]
    fn a_follower_who_sleeps_at_the_end_is_sent_what_is_new() {
        let ((log, mut append), (outbox, wire)) = (followed(), outbox(7));
        let cx = Context::from_waker(Waker::noop());
        let bookmark = Arc::new(Bookmark::new(Offset::FIRST));
        bookmark.set_number(0);
        outbox.tell(&log, &bookmark, true);
        assert_eq!((sent(&wire).as_str(), bookmark.get().get()), ("", 1), "it is awake");
        left(&outbox);
        outbox.lend(Some(1..2));
        outbox.tell(&log, &bookmark, false);
        assert_eq!((sent(&wire).as_str(), bookmark.get().get()), ("", 1), "there is more to do");
        outbox.tell(&log, &bookmark, true);
        assert_eq!((sent(&wire).as_str(), bookmark.get().get()), ("0\n", 2));
        outbox.tell(&log, &bookmark, true);
        assert_eq!(sent(&wire), "0\n", "it has all");
        // Two at once are not one chunk: the session does it.
        append("1\n");
        append("2\n");
        outbox.tell(&log, &bookmark, true);
        assert_eq!((sent(&wire).as_str(), bookmark.get().get()), ("0\n", 2));
        assert!(outbox.sleep(&cx, None, false, AMPLE).is_ready(), "for that");
        bookmark.set(Offset::new(4));
        left(&outbox);
        outbox.lend(Some(1..2));
        append("three\n");
        outbox.tell(&log, &bookmark, true);
        append("4\n");
        outbox.tell(&log, &bookmark, true);
        outbox.post(reply(1, "one\n"), true);
        let (known, pieces) = left(&outbox);
        assert_eq!((sent(&wire).as_str(), known), ("0\nthree", Sent::default()));
        assert!(pieces.starts_with("[Push([10]), Reply"), "the rest comes first: {pieces}");
        assert_eq!(bookmark.get().get(), 5, "the session goes on with the fourth");
        assert!(outbox.sleep(&cx, None, false, AMPLE).is_ready(), "for that");
        bookmark.set(Bookmark::AWAY);
        outbox.lend(Some(2..2));
        outbox.tell(&log, &bookmark, true);
        assert!(
            outbox.sleep(&cx, None, false, AMPLE).is_pending(),
            "it reads, and looks when it has"
        );
    }

    /// A `SUB` behind a `HISTORY`: messages came before `OK subscribed`.
    #[test]
    fn a_follower_who_has_not_been_told_so_looks_itself() {
        let ((log, _), (outbox, wire)) = (followed(), outbox(7));
        let cx = Context::from_waker(Waker::noop());
        let bookmark = Arc::new(Bookmark::new(Offset::FIRST));
        outbox.lend(Some(1..2));
        outbox.tell(&log, &bookmark, true);
        assert_eq!((sent(&wire).as_str(), bookmark.get().get()), ("", 1));
        assert!(outbox.sleep(&cx, None, false, AMPLE).is_ready());
        assert_eq!(outbox.take(&mut Vec::new()).due.len(), 1);
        bookmark.set_number(0);
        outbox.lend(Some(1..2));
        outbox.tell(&log, &bookmark, true);
        assert_eq!((sent(&wire).as_str(), bookmark.get().get()), ("0\n", 2));
    }

    #[test]
    fn a_nudge_wakes_only_who_would_do_something() {
        let ((log, _), outbox) = (followed(), Outbox::default());
        let bookmark = Arc::new(Bookmark::new(Offset::FIRST));
        let nudge = || outbox.tell(&log, &bookmark, true);
        let cx = Context::from_waker(Waker::noop());
        assert!(outbox.sleep(&cx, None, true, AMPLE).is_pending());
        nudge();
        assert!(outbox.sleep(&cx, None, false, AMPLE).is_pending(), "it was deaf to that one");
        nudge();
        assert!(outbox.sleep(&cx, None, false, AMPLE).is_ready());
        assert!(outbox.sleep(&cx, None, true, AMPLE).is_pending());
        let due = || outbox.take(&mut Vec::new()).due;
        let is_it = |due: &[Arc<Bookmark>]| due.iter().all(|it| Arc::ptr_eq(it, &bookmark));
        let told = due();
        assert!(told.len() == 1 && is_it(&told), "both, and once: {told:?}");
        nudge();
        assert!(
            outbox.sleep(&cx, None, true, AMPLE).is_ready(),
            "it was awake, and had not looked yet"
        );
        assert_eq!((due().len(), due().len()), (1, 0));
        assert!(outbox.sleep(&cx, None, true, AMPLE).is_pending());
        nudge();
        assert_eq!(due().len(), 1, "what it was deaf to it finds when it looks");
    }
}
