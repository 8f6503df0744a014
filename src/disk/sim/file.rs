//! One file: what is read, what is durable, and what lies between.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use super::faults::{Failure, Op, Rng};
use super::{Crash, Node, World, lock, power_is_off};
use crate::disk::File;

/// The unit in which a disk writes: a power cut keeps it whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Longest file, in bytes: a wrong position must be an error here and not an allocation.
const FILE_BYTES_MAX: u64 = 1 << 32;

#[derive(Default)]
pub(super) struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

struct Pending {
    change: Change,
    /// A sync that was to make it durable failed: no later one will.
    doomed: bool,
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if file.len() < at {
        file.resize(at, 0);
    }
    let overlap = bytes.len().min(file.len() - at);
    file[at..at + overlap].copy_from_slice(&bytes[..overlap]);
    file.extend_from_slice(&bytes[overlap..]);
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => write(file, *at, bytes),
            Change::Truncate { len } => file.resize(*len, 0),
        }
    }

    /// Applies those sectors of a write for which the coin says so.
    fn apply_torn(&self, file: &mut Vec<u8>, rng: &mut Rng) {
        let Change::Write { at, bytes } = self else {
            return self.apply(file);
        };
        let mut from = 0;
        while from < bytes.len() {
            let to_border = SECTOR_BYTES - (at + from) % SECTOR_BYTES;
            let until = bytes.len().min(from + to_border);
            if rng.coin() {
                write(file, at + from, &bytes[from..until]);
            }
            from = until;
        }
    }
}

impl Contents {
    pub(super) fn durable(bytes: Vec<u8>) -> Contents {
        Contents { live: bytes.clone(), durable: bytes, pending: Vec::new() }
    }

    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(Pending { change, doomed: false });
    }

    pub(super) fn sync(&mut self) {
        for pending in self.pending.drain(..).filter(|pending| !pending.doomed) {
            pending.change.apply(&mut self.durable);
        }
    }

    pub(super) fn sync_failed(&mut self) {
        for pending in &mut self.pending {
            pending.doomed = true;
        }
    }

    /// What is found after a crash.
    pub(super) fn after(&self, how: Crash, rng: &mut Rng) -> Vec<u8> {
        match how {
            Crash::LoseUnsynced => return self.durable.clone(),
            Crash::KeepAll => return self.live.clone(),
            Crash::Random { .. } => {}
        }
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let kept = rng.subset(how, self.pending.len());
        let torn = rng.coin();
        let mut found = self.durable.clone();
        let mut len = found.len();
        let mut lens = vec![len];
        for (pending, kept) in self.pending.iter().zip(kept) {
            len = match &pending.change {
                Change::Write { at, bytes } => len.max(at + bytes.len()),
                Change::Truncate { len } => *len,
            };
            lens.push(len);
            if kept && torn {
                pending.change.apply_torn(&mut found, rng);
            } else if kept {
                pending.change.apply(&mut found);
            }
        }
        if rng.coin() {
            let choice = rng.below(lens.len() as u64);
            found.resize(lens[usize::try_from(choice).expect("an index")], 0);
        }
        found
    }

    pub(super) fn flip_bit(&mut self, at: u64, bit: u8) -> io::Result<()> {
        let at = position(at)?;
        let flip = |bytes: &mut [u8], at: usize| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        };
        if at >= self.live.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        flip(&mut self.live, at);
        flip(&mut self.durable, at);
        for pending in &mut self.pending {
            if let Change::Write { at: start, bytes } = &mut pending.change
                && at >= *start
            {
                flip(bytes, at - *start);
            }
        }
        Ok(())
    }
}

fn position(at: u64) -> io::Result<usize> {
    if at > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    usize::try_from(at).map_err(io::Error::other)
}

/// A handle.
pub(super) struct SimFile {
    pub(super) world: Arc<World>,
    pub(super) node: Arc<Node>,
    pub(super) key: String,
    pub(super) writable: bool,
}

impl SimFile {
    fn contents(&self) -> io::Result<MutexGuard<'_, Contents>> {
        let contents = lock(&self.node.contents);
        if self.world.dead.load(Ordering::Acquire) { Err(power_is_off()) } else { Ok(contents) }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimFile").field(&self.key).finish()
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.world.begin_whole(Op::Len, &self.key)?;
        Ok(self.contents()?.live.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.world.begin_whole(Op::Read, &self.key)?;
        let contents = self.contents()?;
        let rest = contents.live.get(position(at)?..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.check_writable()?;
        let failure = self.world.begin(Op::Write, &self.key)?;
        if failure.is_some() {
            self.world.name_hit(&self.node);
        }
        position(at.saturating_add(bytes.len() as u64))?;
        let at = position(at)?;
        let written = match failure {
            None => bytes.len(),
            Some(Failure::Short { written }) => written.min(bytes.len()),
            Some(_) => 0,
        };
        let mut contents = self.contents()?;
        if written > 0 {
            contents.change(Change::Write { at, bytes: bytes[..written].to_vec() });
        }
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.world.begin_whole(Op::Truncate, &self.key)?;
        self.contents()?.change(Change::Truncate { len: position(len)? });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let failure = self.world.begin(Op::Sync, &self.key)?;
        drop(lock(&self.world.syncing));
        let mut contents = self.contents()?;
        match failure {
            None => {
                contents.sync();
                Ok(())
            }
            Some(failure) => {
                contents.sync_failed();
                Err(failure.error())
            }
        }
    }
}
