//! The memory that all sessions share for what they hold for their peers. See
//! `docs/decisions/0009-sessions-share.md`.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::SESSION_OUT_BYTES_MAX;

/// Memory for what sessions hold for their peers, in bytes.
const SHARED_BYTES: usize = 64 << 20;

/// The least that a session may hold of it, in bytes, however many there are.
pub(super) const SHARE_BYTES_MIN: usize = 32 << 10;

/// The most, in bytes: as much as a session may have unsent, and what is read meanwhile.
const SHARE_BYTES_MAX: usize = 2 * SESSION_OUT_BYTES_MAX;

/// A session may hold as much as this part of what is free: 1/8.
const FREE_PART: usize = 8;

/// What all sessions hold for their peers, in bytes: unsent, about to be read for them, or not taken yet
/// of what they sent.
#[derive(Debug, Default)]
pub struct Shares(AtomicUsize);

impl Shares {
    /// What all of them hold.
    pub(crate) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// How much a session may hold now: a part of what nobody holds. However greedy the others are, and
    /// whoever came first, there is something left, and all together hold no more than there is but for
    /// the least that each may have.
    pub fn limit(&self) -> usize {
        let free = SHARED_BYTES.saturating_sub(self.held());
        (free / FREE_PART).clamp(SHARE_BYTES_MIN, SHARE_BYTES_MAX)
    }
}

/// What one session holds of it.
#[derive(Debug)]
pub struct Hold {
    shares: Arc<Shares>,
    bytes: usize,
}

impl Hold {
    /// Nothing yet.
    pub fn new(shares: &Arc<Shares>) -> Self {
        Self { shares: Arc::clone(shares), bytes: 0 }
    }

    /// It is so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        let all = &self.shares.0;
        match bytes.cmp(&self.bytes) {
            Less => drop(all.fetch_sub(self.bytes - bytes, Ordering::Relaxed)),
            Equal => return,
            Greater => drop(all.fetch_add(bytes - self.bytes, Ordering::Relaxed)),
        }
        self.bytes = bytes;
    }

    /// How much it may be.
    pub fn limit(&self) -> usize {
        self.shares.limit()
    }
}

/// How much more a session may hold that holds so much; `None` while that is more than half of what it
/// may: there is to be enough room for a read to be worth it.
pub(super) fn room(limit: usize, bytes: usize) -> Option<usize> {
    (bytes <= limit / 2).then(|| limit - bytes)
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_share_the_memory_whoever_comes_first_and_however_much_they_want() {
        let shares = Arc::<Shares>::default();
        let greedy = || {
            let mut hold = Hold::new(&shares);
            while let Some(room) = room(hold.limit(), hold.bytes) {
                hold.set(hold.bytes + room);
            }
            assert!((SHARE_BYTES_MIN / 2..=SHARE_BYTES_MAX).contains(&hold.bytes));
            hold
        };
        let first = greedy();
        assert_eq!(first.bytes, SHARE_BYTES_MAX);
        let all: Vec<Hold> = std::iter::once(first).chain((1..10_000).map(|_| greedy())).collect();
        let held = |count: usize| all[..count].iter().map(|hold| hold.bytes).sum::<usize>();
        assert_eq!(shares.held(), held(10_000));
        for count in [10, 100, 1_000, 10_000] {
            let most = SHARED_BYTES + count * SHARE_BYTES_MIN;
            assert!(held(count) <= most, "{} of {most} bytes for {count}", held(count));
        }
        // Those who come late find more than the least.
        assert!(all[50].bytes > SHARE_BYTES_MIN, "{}", all[50].bytes);
        drop(all);
        assert_eq!((shares.held(), shares.limit()), (0, SHARE_BYTES_MAX));
    }
}
