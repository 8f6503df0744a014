//! What lies behind the last good record of a segment: nothing, a torn tail, or the proof of damage.

use super::Lsn;
use super::record::{self, ALIGN, MARK};

/// Zeros are skipped in blocks of this many bytes.
const BLOCK_BYTES: usize = 4096;

/// A record that says that the bad one was durable when it was written itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Voucher {
    pub(super) at: u64,
    pub(super) lsn: Lsn,
}

/// The rest of a segment from some place on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tail {
    pub(super) from: u64,
    /// The end of what was written by this life of the segment; `from` if there is nothing.
    pub(super) until: u64,
    /// Whole records in it.
    pub(super) records: u64,
    /// The first record that vouches for the bad one.
    pub(super) voucher: Option<Voucher>,
}

impl Tail {
    pub(super) fn empty(from: u64) -> Tail {
        Tail { from, until: from, records: 0, voucher: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.until == self.from
    }
}

/// Examines the rest of a segment, from `from` on, where record `bad` should stand and does not. In a
/// recycled segment stale bytes of its earlier lives are nothing.
///
/// Whole records are looked for at every eighth byte, inside others too: a length that is wrong must
/// not lead past one.
pub(super) fn tail(rest: &[u8], mark: u64, from: u64, bad: Lsn, recycled: bool) -> Tail {
    let mut tail = Tail::empty(from);
    let mut until = 0;
    if !recycled {
        until = last_written(rest).map_or(0, |last| last + 1);
    } else if claims(rest, mark, bad)
        && let Some(claim) = record::claim(rest)
    {
        until = claim.size.min(rest.len());
    }
    for at in places(rest, mark) {
        let Some(found) = record::parse(&rest[at..], mark) else { continue };
        tail.records += 1;
        until = until.max(at + found.size);
        if tail.voucher.is_none() && found.lsn > bad && found.durable >= bad {
            tail.voucher = Some(Voucher { at: from + at as u64, lsn: found.lsn });
        }
    }
    tail.until = from + until as u64;
    tail
}

/// Whether the header at the front looks as if record `bad` had been meant to stand there.
pub(super) fn claims(rest: &[u8], mark: u64, bad: Lsn) -> bool {
    record::claim(rest).is_some_and(|claim| claim.mark == mark || claim.lsn == bad)
}

/// Whether a block holds nothing of this life of the segment: the quick answer, for most blocks.
pub(super) fn is_clean(block: &[u8], mark: u64, recycled: bool) -> bool {
    is_zero(block) || recycled && !block.chunks_exact(ALIGN).any(|word| u64_of(word) == mark)
}

/// Every place where a record of this segment may begin: where the mark stands.
fn places(rest: &[u8], mark: u64) -> impl Iterator<Item = usize> {
    debug_assert!(mark != 0, "zeros are no mark, so they can be skipped");
    let marks = rest.get(MARK..).unwrap_or_default();
    let blocks = marks.chunks(BLOCK_BYTES).enumerate().filter(|(_, block)| !is_zero(block));
    blocks.flat_map(move |(n, block)| {
        let words = block.chunks_exact(ALIGN).enumerate();
        words
            .filter(move |(_, word)| u64_of(word) == mark)
            .map(move |(word, _)| n * BLOCK_BYTES + word * ALIGN)
    })
}

fn u64_of(word: &[u8]) -> u64 {
    u64::from_le_bytes(word.try_into().expect("chunks of eight"))
}

/// Without a branch for each byte, so that it runs at the speed of memory.
fn is_zero(block: &[u8]) -> bool {
    block.iter().fold(0, |all, byte| all | byte) == 0
}

fn last_written(rest: &[u8]) -> Option<usize> {
    let blocks = rest.chunks(BLOCK_BYTES).enumerate().rev();
    let (n, block) = { blocks }.find(|(_, block)| !is_zero(block))?;
    Some(n * BLOCK_BYTES + block.iter().rposition(|byte| *byte != 0)?)
}
