//! A segment: its name, its header block, and how it comes into being.
//!
//! Header, little endian, in the first of 4096 bytes of which the rest is zero:
//! `"WiberWAL" │ version u32 │ recycled u32 (0 or 1) │ number u64 │ size u64 │ node u64 │
//! secret u64 │ crc u32`, where `crc` is the CRC-32C of the 48 bytes before it and `size` is the
//! length of the file.
//!
//! The secret makes the marks that records bear: what a client sends lands in segments, stays in
//! recycled ones, and must never pass for a record.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Identity, Settings, WalError, failed};
use crate::disk::{Disk, File, Open};
use crate::planted::{self, Bug};

/// Where the records begin, in bytes: the header has a block of its own, so that no torn write of a
/// record can reach it.
pub(super) const HEADER_BYTES: u64 = BLOCK as u64;

const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = BLOCK as u64;
const MAGIC: [u8; 8] = *b"WiberWAL";
const VERSION: u32 = 1;
const CRC: usize = 48;

/// What of the header is not zero.
pub(super) const HEADER_FIELDS_BYTES: usize = CRC + 4;

/// Zeros are written this many bytes at a time.
const ZEROS_BYTES: usize = 128 << 10;

/// And synced after so many.
const ZEROS_SYNCED_BYTES: u64 = 512 << 10;

/// Where the log lives, and what its headers say.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) segment_bytes: u64,
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) seq: u64,
    pub(super) size: u64,
    pub(super) file: Arc<dyn File>,
}

/// A valid header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) recycled: bool,
    pub(super) seq: u64,
    pub(super) size: u64,
    pub(super) identity: Identity,
}

/// What is wrong with a header block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadHeader {
    Unreadable,
    Version(u32),
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::from(MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&u32::from(self.recycled).to_le_bytes());
        block.extend_from_slice(&self.seq.to_le_bytes());
        block.extend_from_slice(&self.size.to_le_bytes());
        block.extend_from_slice(&self.identity.node.to_le_bytes());
        block.extend_from_slice(&self.identity.secret.to_le_bytes());
        debug_assert_eq!(block.len(), CRC);
        block.extend_from_slice(&crc32c::crc32c(&block).to_le_bytes());
        block.resize(BLOCK, 0);
        block
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Header, BadHeader> {
        let Some(bytes) = bytes.get(..HEADER_FIELDS_BYTES) else {
            return Err(BadHeader::Unreadable);
        };
        let u32_at = |at| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes[..8] != MAGIC || u32_at(CRC) != crc32c::crc32c(&bytes[..CRC]) {
            return Err(BadHeader::Unreadable);
        }
        if u32_at(8) != VERSION {
            return Err(BadHeader::Version(u32_at(8)));
        }
        let recycled = u32_at(12) != 0;
        let identity = Identity { node: u64_at(32), secret: u64_at(40) };
        Ok(Header { recycled, seq: u64_at(16), size: u64_at(24), identity })
    }
}

/// What records of the segment `seq` bear to be told from all else: never zero, different for every
/// segment, and not to be guessed without the secret (SplitMix64's mixing, which is one-to-one).
pub(super) fn mark(identity: Identity, seq: u64) -> u64 {
    let seq = if planted::has(Bug::StaleRecordTaken) { 1 } else { seq };
    let mut z = identity.secret.wrapping_add(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).max(1)
}

/// The number in a segment's file name; `None` if it is not one.
pub(super) fn seq_of(name: &str) -> Option<u64> {
    let seq: u64 = name.strip_suffix(".wal")?.parse().ok()?;
    (seq > 0 && name == file_name(seq)).then_some(seq)
}

fn file_name(seq: u64) -> String {
    format!("{seq:016}.wal")
}

/// Whether the name is that of a segment in preparation, which nobody needs after a restart.
pub(super) fn is_leftover(name: &str) -> bool {
    let parts = name.strip_suffix(".new").and_then(|rest| rest.split_once('.'));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    parts.is_some_and(|(seq, attempt)| digits(seq) && digits(attempt))
}

/// The size of a segment by these settings.
pub(super) fn bytes_by(settings: Settings) -> u64 {
    settings.segment_bytes.max(2 * BLOCK_BYTES).next_multiple_of(BLOCK_BYTES)
}

impl Place {
    pub(super) fn path(&self, seq: u64) -> PathBuf {
        path(&self.dir, seq)
    }

    /// The size of a segment that has room for a record of `record_bytes`.
    pub(super) fn size_for(&self, record_bytes: u64) -> u64 {
        (HEADER_BYTES + record_bytes).next_multiple_of(BLOCK_BYTES).max(self.segment_bytes)
    }

    /// Where a new segment is prepared; no two preparations of one process share it.
    pub(super) fn preparation(&self, seq: u64, attempt: u64) -> PathBuf {
        self.dir.join(format!("{seq:016}.{attempt}.new"))
    }

    /// Writes a new segment to `path`: header and zeros, synced. Its name is not durable yet.
    pub(super) fn write_new(
        &self,
        path: &Path,
        seq: u64,
        size: u64,
        pause: &mut dyn FnMut(),
    ) -> Result<Segment, WalError> {
        let result = self.has_room(size).and_then(|()| {
            let file = self.disk.open(path, Open::Create)?;
            let header = Header { recycled: false, seq, size, identity: self.identity };
            fill(&*file, &header.encode(), size, pause)?;
            Ok(Segment { seq, size, file })
        });
        result.map_err(|source| {
            // Best effort: what stays behind is removed at the next start.
            drop(self.disk.remove(path));
            self.not_prepared(source, path, size)
        })
    }

    /// Gives the freed segment at `path` the number `seq`, synced. Its name is still the old one.
    pub(super) fn rewrite(&self, path: &Path, seq: u64, size: u64) -> Result<Segment, WalError> {
        let header = Header { recycled: true, seq, size, identity: self.identity };
        let file = self.disk.open(path, Open::Write).map_err(|source| {
            // Whoever tries again makes a new one, and nobody knows of this one any more.
            drop(self.disk.remove(path));
            self.not_prepared(source, path, size)
        })?;
        file.write_at(&header.encode(), 0).map_err(failed("write the header of", path))?;
        file.sync().map_err(failed("sync", path))?;
        Ok(Segment { seq, size, file })
    }

    /// Gives a prepared segment its name. Durable after [`Place::sync_names`].
    pub(super) fn rename_in(&self, prepared: &Path, segment: &Segment) -> Result<(), WalError> {
        self.disk.rename(prepared, &self.path(segment.seq)).map_err(|source| {
            drop(self.disk.remove(prepared));
            self.not_prepared(source, prepared, segment.size)
        })
    }

    pub(super) fn sync_names(&self) -> Result<(), WalError> {
        self.disk.sync_dir(&self.dir).map_err(failed("sync", &self.dir))
    }

    /// A failure before anything was written that matters.
    fn not_prepared(&self, source: io::Error, path: &Path, bytes: u64) -> WalError {
        if crate::disk::is_shortage(&source) {
            WalError::Shortage { dir: self.dir.clone(), bytes, source: Arc::new(source) }
        } else {
            failed("prepare", path)(source)
        }
    }

    /// Asks first, so that a full disk is not filled to the last byte again and again.
    fn has_room(&self, bytes: u64) -> io::Result<()> {
        let room = self.disk.space(&self.dir)?.free;
        if room < bytes { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

pub(super) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(file_name(seq))
}

fn fill(file: &dyn File, header: &[u8], size: u64, pause: &mut dyn FnMut()) -> io::Result<()> {
    file.truncate(0)?;
    file.write_at(header, 0)?;
    // Synced as it goes: whoever publishes meanwhile waits behind one piece and not behind all.
    let mut at = HEADER_BYTES;
    while at < size {
        let end = size.min(at + ZEROS_SYNCED_BYTES);
        zero(file, at, end)?;
        file.sync()?;
        pause();
        at = end;
    }
    Ok(())
}

/// Overwrites the bytes from `at` up to `until` with zeros.
pub(super) fn zero(file: &dyn File, mut at: u64, until: u64) -> io::Result<()> {
    // No buffer of its own: the allocator would keep it.
    static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];
    while at < until {
        let count = usize::try_from(until - at).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
        file.write_at(&ZEROS[..count], at)?;
        at += count as u64;
    }
    Ok(())
}
