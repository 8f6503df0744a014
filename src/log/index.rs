//! The sparse index of one segment: offset and time → position.
//!
//! Derived from the segment and never trusted alone: whoever follows an entry looks whether the
//! line there has the offset. On disk, in `.wiber/index/<segment>.idx`, an entry is three
//! little-endian `u64`: offset, position in bytes, microseconds.

use crate::ids::Offset;
use crate::limits::INDEX_STRIDE_BYTES;
use crate::time::Timestamp;

const ENTRY_BYTES: usize = 24;

/// An entry: this line begins at this position, and no line before it is later than `ts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Of the line.
    pub offset: Offset,
    /// Where it begins.
    pub at: u64,
    /// The latest timestamp up to and including this line: a clock that stepped back does not
    /// disturb the order.
    pub ts: Timestamp,
}

/// The entries in the bytes of an index file, for who compares them with the segment.
pub fn entries(bytes: &[u8]) -> Vec<Entry> {
    Index::from_bytes(bytes).0
}

/// Entries about [`INDEX_STRIDE_BYTES`] apart.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Index(Vec<Entry>);

impl Index {
    /// Notes a line, if the last entry is far enough before it.
    pub(super) fn note(&mut self, entry: Entry) {
        if self.0.last().is_none_or(|last| entry.at >= last.at + INDEX_STRIDE_BYTES) {
            self.0.push(entry);
        }
    }

    /// Its entries, and behind them those of another that come later.
    pub(super) fn followed_by(mut self, later: &Index) -> Self {
        let last = self.0.last().map(|entry| entry.offset);
        self.0.extend(later.0.iter().filter(|entry| Some(entry.offset) > last));
        self
    }

    /// The first entry.
    pub(super) fn first(&self) -> Option<Entry> {
        self.0.first().copied()
    }

    /// The last entry.
    pub(super) fn last(&self) -> Option<Entry> {
        self.0.last().copied()
    }

    /// The last entry at or before `offset`.
    pub(super) fn before(&self, offset: Offset) -> Option<Entry> {
        let at = self.0.partition_point(|entry| entry.offset <= offset);
        at.checked_sub(1).map(|at| self.0[at])
    }

    /// The first entry behind `offset`.
    pub(super) fn behind_offset(&self, offset: Offset) -> Option<Entry> {
        self.0.get(self.0.partition_point(|entry| entry.offset <= offset)).copied()
    }

    /// The last entry before anything as late as `ts`.
    pub(super) fn before_time(&self, ts: Timestamp) -> Option<Entry> {
        let at = self.0.partition_point(|entry| entry.ts < ts);
        at.checked_sub(1).map(|at| self.0[at])
    }

    /// Whether entries ascend and lie in a segment of `len` bytes that begins with `first`.
    pub(super) fn is_plausible(&self, first: Offset, len: u64) -> bool {
        let starts = self.0.first().is_some_and(|entry| entry.offset == first && entry.at == 0);
        let ascends = self.0.windows(2).all(|pair| {
            pair[0].offset < pair[1].offset && pair[0].at < pair[1].at && pair[0].ts <= pair[1].ts
        });
        starts && ascends && self.0.last().is_some_and(|entry| entry.at < len)
    }

    /// Drops entries at or behind `len`.
    pub(super) fn truncate(&mut self, len: u64) {
        let keep = self.0.partition_point(|entry| entry.at < len);
        self.0.truncate(keep);
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.to_bytes_from(0)
    }

    /// How many entries there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The entries behind the first `count`, and where they stand in the file.
    pub(super) fn behind(&self, count: usize) -> (u64, Vec<u8>) {
        ((count * ENTRY_BYTES) as u64, self.to_bytes_from(count))
    }

    fn to_bytes_from(&self, first: usize) -> Vec<u8> {
        let numbers = |entry: &Entry| [entry.offset.get(), entry.at, entry.ts.as_micros()];
        self.0[first..].iter().flat_map(numbers).flat_map(u64::to_le_bytes).collect()
    }

    /// Reads what [`Index::to_bytes`] wrote; a cut last entry is dropped.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let entries = bytes.chunks_exact(ENTRY_BYTES).map(|entry| Entry {
            offset: Offset::new(number(&entry[..8])),
            at: number(&entry[8..16]),
            ts: Timestamp::from_micros(number(&entry[16..])),
        });
        Self(entries.collect())
    }
}
