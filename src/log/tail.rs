//! Ready wire bytes of recent messages, shared by all who read at the end of a topic.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use crate::ids::Offset;

/// What a chunk costs besides its lines, in bytes.
const CHUNK_OVERHEAD_BYTES: usize = 160;

/// The lines of messages that were appended together.
#[derive(Clone, Debug)]
pub struct Chunk {
    first: Offset,
    lines: Bytes,
    /// Where each line ends.
    ends: Vec<u32>,
}

impl Chunk {
    /// The lines of messages from `first` on; `ends` says where in `lines` each of them ends.
    pub fn new(first: Offset, lines: Bytes, ends: Vec<u32>) -> Self {
        debug_assert_eq!(ends.last().copied().unwrap_or_default() as usize, lines.len());
        Self { first, lines, ends }
    }

    /// One past its last message.
    fn next(&self) -> Offset {
        Offset::new(self.first.get() + self.ends.len() as u64)
    }

    /// Whether the message is in it.
    pub fn holds(&self, offset: Offset) -> bool {
        self.first <= offset && offset < self.next()
    }

    fn start(&self, offset: Offset) -> usize {
        let at = usize::try_from(offset.get() - self.first.get()).expect("it is held");
        if at == 0 { 0 } else { self.ends[at - 1] as usize }
    }

    /// The line of a message in it.
    pub fn line(&self, offset: Offset) -> &[u8] {
        let end = self.start(offset.next());
        &self.lines[self.start(offset)..end]
    }

    fn cost(&self) -> usize {
        CHUNK_OVERHEAD_BYTES + self.lines.len() + self.ends.len() * size_of::<u32>()
    }
}

/// The room for chunks of all topics. When it is used up, the oldest chunk of all is dropped,
/// whoever has it.
#[derive(Debug)]
pub struct TailBudget {
    bytes_max: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    /// Whose chunks there are, oldest first, and what each costs.
    order: VecDeque<(Weak<Chunks>, usize)>,
}

type Chunks = Mutex<VecDeque<Arc<Chunk>>>;

/// The recent chunks of one topic, ascending, maybe with gaps.
#[derive(Debug)]
pub struct Tail {
    chunks: Arc<Chunks>,
    budget: Arc<TailBudget>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TailBudget {
    /// Room for `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, used: Mutex::default() }
    }

    /// Takes room for a chunk of `owner`, and drops the oldest until there is enough.
    fn take(&self, owner: &Arc<Chunks>, cost: usize) {
        let mut dropped = Vec::new();
        let mut used = lock(&self.used);
        used.bytes += cost;
        used.order.push_back((Arc::downgrade(owner), cost));
        while used.bytes > self.bytes_max {
            let Some((owner, cost)) = used.order.pop_front() else { break };
            used.bytes -= cost;
            dropped.push(owner);
        }
        drop(used);
        for chunks in dropped.iter().filter_map(Weak::upgrade) {
            lock(&chunks).pop_front();
        }
    }
}

impl Tail {
    pub(super) fn new(budget: Arc<TailBudget>) -> Self {
        Self { chunks: Arc::default(), budget }
    }

    /// Adds the newest chunk.
    pub fn push(&self, chunk: Chunk) {
        let cost = chunk.cost();
        lock(&self.chunks).push_back(Arc::new(chunk));
        self.budget.take(&self.chunks, cost);
    }

    /// The chunk that holds `offset`, if it is still there.
    pub fn chunk_at(&self, offset: Offset) -> Option<Arc<Chunk>> {
        let chunks = lock(&self.chunks);
        let at = chunks.partition_point(|chunk| chunk.next() <= offset);
        chunks.get(at).filter(|chunk| chunk.holds(offset)).map(Arc::clone)
    }

    /// The lines from `offset` to the end of its chunk, and the offset behind them.
    pub fn since(&self, offset: Offset) -> Option<(Bytes, Offset)> {
        let chunk = self.chunk_at(offset)?;
        Some((chunk.lines.slice(chunk.start(offset)..), chunk.next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first: u64, lines: &[&str]) -> Chunk {
        let mut ends = Vec::new();
        let mut all = String::new();
        for line in lines {
            all.push_str(line);
            ends.push(u32::try_from(all.len()).unwrap());
        }
        Chunk::new(Offset::new(first), Bytes::from(all), ends)
    }

    #[test]
    fn lines_are_found_by_offset_and_never_across_a_gap() {
        let tail = Tail::new(Arc::new(TailBudget::new(1 << 20)));
        tail.push(chunk(3, &["c\n", "dd\n"]));
        tail.push(chunk(5, &["e\n"]));
        tail.push(chunk(9, &["i\n"]));
        let since = |n| tail.since(Offset::new(n)).map(|(b, next)| (b.to_vec(), next.get()));
        assert_eq!(since(2), None);
        assert_eq!(since(3), Some((b"c\ndd\n".to_vec(), 5)));
        assert_eq!(since(4), Some((b"dd\n".to_vec(), 5)));
        assert_eq!(since(5), Some((b"e\n".to_vec(), 6)));
        assert_eq!(since(6), None);
        assert_eq!(since(9), Some((b"i\n".to_vec(), 10)));
        assert_eq!(since(10), None);
        assert_eq!(tail.chunk_at(Offset::new(4)).unwrap().line(Offset::new(4)), b"dd\n");
    }

    #[test]
    fn the_oldest_chunk_of_all_topics_makes_room() {
        let one = CHUNK_OVERHEAD_BYTES + 6;
        let budget = Arc::new(TailBudget::new(3 * one));
        let (a, b) = (Tail::new(Arc::clone(&budget)), Tail::new(Arc::clone(&budget)));
        let has = |tail: &Tail, n| tail.chunk_at(Offset::new(n)).is_some();
        a.push(chunk(1, &["x\n"]));
        b.push(chunk(1, &["x\n"]));
        a.push(chunk(2, &["x\n"]));
        assert!(has(&a, 1) && has(&b, 1) && has(&a, 2));
        b.push(chunk(2, &["x\n"]));
        assert!(!has(&a, 1) && has(&b, 1) && has(&a, 2) && has(&b, 2));
        drop(b);
        a.push(chunk(3, &["x\n"]));
        a.push(chunk(4, &["x\n"]));
        assert!(!has(&a, 2) && has(&a, 3) && has(&a, 4), "also of a topic that is gone");
    }
}
