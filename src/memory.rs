//! How much of what is freed the system's allocator keeps.
//!
//! Left to itself, glibc's learns from each large block that is freed: from then on it takes such blocks
//! from its heaps, and keeps up to twice as much at the end of each heap, up to 64 MiB. A broker frees a
//! large block in the first burst that it serves, and each of its threads has a heap.

/// Larger blocks are the system's own, in bytes: the highest that glibc allows for any thread. To ask
/// the system for each batch, and to touch its memory for the first time, took 40 % more processor time
/// for messages of 1 KiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_BYTES: libc::c_int = 32 << 20;

/// So much stays free at the end of a heap, in bytes. With a half of it the batches of one connection
/// gave it back and took it again all the time: 30 % more processor time with 1,000 on their way.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE_BYTES: libc::c_int = 2 << 20;

/// Has the allocator keep little at the ends of its heaps, from now on. After a burst of 64 connections
/// with 1,000 messages on their way on each a broker had 37 MiB instead of 53 to 70. Gives whether it
/// will; another allocator than glibc's goes by its own rules.
pub(crate) fn keep_little() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let set = |what, bytes| {
            #[expect(unsafe_code, reason = "there is no safe way to set what the allocator keeps")]
            // SAFETY: it takes two numbers, and may be called at any time by any thread.
            let is_set = unsafe { libc::mallopt(what, bytes) };
            is_set == 1
        };
        set(libc::M_MMAP_THRESHOLD, OWN_BYTES) && set(libc::M_TRIM_THRESHOLD, FREE_BYTES)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Gives back what is free between the blocks in use: after a burst of 16 connections 18 of 38 MiB. It
/// takes a millisecond or two, and whoever needs memory meanwhile waits.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "there is no safe way to ask for it")]
        // SAFETY: it takes a number, and may be called at any time by any thread.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// So much in looks that are not quiet is a burst, after which there may be something to give back, in
/// bytes.
const BURST_BYTES: u64 = 8 << 20;

/// Less than this between two looks is quiet, in bytes.
const QUIET_BYTES: u64 = 64 << 10;

/// So many quiet looks in a row are the end of a burst.
const QUIET_LOOKS: u32 = 4;

/// Says when a burst is over, by how much was written to the log and left sessions.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    moved: u64,
    /// Moved since memory was last given back, but for quiet looks.
    bytes: u64,
    quiet_looks: u32,
}

impl Burst {
    /// A look, from time to time: `moved` is all that was ever written, sent or dropped. True if memory
    /// should be given back now.
    pub(crate) fn is_over(&mut self, moved: u64) -> bool {
        let bytes = moved - self.moved;
        self.moved = moved;
        if bytes >= QUIET_BYTES {
            self.bytes += bytes;
            self.quiet_looks = 0;
            return false;
        }
        self.quiet_looks = self.quiet_looks.saturating_add(1);
        let is_over = self.quiet_looks >= QUIET_LOOKS && self.bytes >= BURST_BYTES;
        if is_over {
            self.bytes = 0;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn the_allocator_takes_both_bounds() {
        assert!(keep_little());
    }

    #[test]
    fn a_burst_is_over_once_after_quiet_looks() {
        let mut burst = Burst::default();
        let mut over = |moved| burst.is_over(moved);
        assert!(!over(BURST_BYTES), "it goes on");
        let looks: Vec<bool> = (1..8).map(|look| over(BURST_BYTES + look * 1000)).collect();
        assert_eq!(looks, [false, false, false, true, false, false, false]);
        assert!(!over(BURST_BYTES + QUIET_BYTES * 2), "too little since");
        assert!((0..8).all(|_| !over(BURST_BYTES + QUIET_BYTES * 2)));
        assert!(!over(3 * BURST_BYTES));
        let looks: Vec<bool> = (0..5).map(|_| over(3 * BURST_BYTES)).collect();
        assert_eq!(looks, [false, false, false, true, false]);
    }

    #[test]
    fn little_and_often_is_no_burst() {
        let mut burst = Burst::default();
        assert!((0..1000).all(|look| !burst.is_over(look * (QUIET_BYTES - 1))));
    }
}
