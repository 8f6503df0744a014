//! What goes wrong, and the seeded choice of what survives.

use std::io;

use rustix::io::Errno;

use super::Crash;

/// A kind of operation, for counting and for choosing what fails.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "the methods of Disk and File, by name")]
pub enum Op {
    Open,
    /// `open` with `Open::Create`, whether or not the file was there.
    Create,
    List,
    CreateDir,
    Rename,
    Remove,
    SyncDir,
    Lock,
    Space,
    Len,
    Read,
    Write,
    Truncate,
    Sync,
}

const OPS: usize = Op::Sync as usize + 1;

impl Op {
    /// Whether it changes something, or makes a change durable.
    pub fn is_change(self) -> bool {
        match self {
            Op::Open | Op::List | Op::Lock | Op::Space | Op::Len | Op::Read => false,
            Op::Create | Op::CreateDir | Op::Rename | Op::Remove | Op::SyncDir => true,
            Op::Write | Op::Truncate | Op::Sync => true,
        }
    }
}

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// EIO.
    Io,
    /// ENOSPC; nothing is written.
    NoSpace,
    /// EMFILE; nothing is written.
    NoDescriptor,
    /// Something else; nothing is done.
    Other(Errno),
    /// ENOSPC after the first `written` bytes of a write; elsewhere as [`Failure::NoSpace`].
    Short {
        /// Bytes that were written before the error.
        written: usize,
    },
}

impl Failure {
    pub(super) fn error(self) -> io::Error {
        let errno = match self {
            Failure::Io => Errno::IO,
            Failure::NoDescriptor => Errno::MFILE,
            Failure::NoSpace | Failure::Short { .. } => Errno::NOSPC,
            Failure::Other(errno) => errno,
        };
        errno.into()
    }
}

/// A fault to come.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operations; `None` means all.
    pub op: Option<Op>,
    /// Only paths that contain this; "" means all. A rename goes by its old name.
    pub path_has: String,
    /// How many such operations go well before.
    pub skip: u64,
    /// How many fail then; `u64::MAX` means until [`super::SimDisk::heal`].
    pub times: u64,
    /// How.
    pub failure: Failure,
}

/// A fault that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// Of which operation.
    pub op: Op,
    /// Of which file or folder, without the leading slash; of what is written, by its name then.
    pub path: String,
    /// How it failed.
    pub failure: Failure,
}

pub(super) struct PowerCut;

#[derive(Default)]
pub(super) struct Faults {
    counts: [u64; OPS],
    changes: u64,
    cut_at: Option<u64>,
    to_come: Vec<Fault>,
    hits: Vec<Hit>,
}

impl Faults {
    pub(super) fn begin(&mut self, op: Op, key: &str) -> Result<Option<Failure>, PowerCut> {
        if op.is_change() {
            if self.cut_at == Some(self.changes) {
                return Err(PowerCut);
            }
            self.changes += 1;
        }
        self.counts[op as usize] += 1;
        let mut found = None;
        for fault in &mut self.to_come {
            if fault.op.is_some_and(|only| only != op) || !key.contains(&fault.path_has) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if found.is_none() && fault.times > 0 {
                fault.times = if fault.times == u64::MAX { u64::MAX } else { fault.times - 1 };
                found = Some(fault.failure);
            }
        }
        if let Some(failure) = found {
            self.hits.push(Hit { op, path: key.to_owned(), failure });
            self.to_come.retain(|fault| fault.times > 0);
        }
        Ok(found)
    }

    /// What was just hit has another name by now than when it was opened.
    pub(super) fn name_hit(&mut self, name: String) {
        if let Some(hit) = self.hits.last_mut() {
            hit.path = name;
        }
    }

    pub(super) fn take_hits(&mut self) -> Vec<Hit> {
        std::mem::take(&mut self.hits)
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.to_come.push(fault);
    }

    pub(super) fn heal(&mut self) {
        self.to_come.clear();
        self.cut_at = None;
    }

    pub(super) fn cut_power_after(&mut self, changes: u64) {
        self.cut_at = Some(self.changes + changes);
    }

    pub(super) fn count(&self, op: Op) -> u64 {
        self.counts[op as usize]
    }

    pub(super) fn operations(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

/// SplitMix64: the same numbers for the same seed on every machine and in every version.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Which of `count` pending operations survive: none, all, those up to a point, or any.
    pub(super) fn subset(&mut self, how: Crash, count: usize) -> Vec<bool> {
        let random = match how {
            Crash::LoseUnsynced => return vec![false; count],
            Crash::KeepAll => return vec![true; count],
            Crash::Random { .. } => self.below(4),
        };
        match random {
            0 => vec![false; count],
            1 => vec![true; count],
            2 => {
                let kept = self.below(count as u64 + 1);
                (0..count as u64).map(|n| n < kept).collect()
            }
            _ => (0..count).map(|_| self.coin()).collect(),
        }
    }
}
