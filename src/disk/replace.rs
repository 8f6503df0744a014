//! Replacing a file by another one, durably and atomically.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, File, Open};

/// A long file is written and synced a piece of so many bytes at a time: others who use the disk, or
/// the processor that copies it, do not wait long behind it.
const PIECE_BYTES: usize = 256 << 10;

/// A file that is written beside its place. Until [`Replacement::finish`] the old one is there.
#[derive(Debug)]
pub struct Replacement<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    temporary: PathBuf,
    file: Arc<dyn File>,
    /// What is not in the file yet.
    piece: Vec<u8>,
    at: u64,
}

impl<'a> Replacement<'a> {
    /// Begins with an empty file for the place `path`.
    ///
    /// # Errors
    /// What the disk says; the old file is then still there, and so for the others.
    pub fn begin(disk: &'a dyn Disk, path: &'a Path) -> io::Result<Self> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = disk.open(&temporary, Open::Create)?;
        file.truncate(0)?;
        Ok(Self { disk, path, temporary, file, piece: Vec::new(), at: 0 })
    }

    /// Adds to it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES { self.put() } else { Ok(()) }
    }

    /// Puts it in its place: a crash leaves the old one or this one, whole.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(mut self) -> io::Result<()> {
        self.put()?;
        self.disk.rename(&self.temporary, self.path)?;
        self.disk.sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }

    fn put(&mut self) -> io::Result<()> {
        for piece in self.piece.chunks(PIECE_BYTES) {
            self.file.write_at(piece, self.at)?;
            self.file.sync()?;
            self.at += piece.len() as u64;
        }
        self.piece.clear();
        Ok(())
    }
}

/// Replaces the file at `path` by one with `bytes`, durably and atomically: a crash leaves the old
/// one or the new one, whole.
///
/// # Errors
/// What the disk says; the old file is then still there.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut replacement = Replacement::begin(disk, path)?;
    replacement.write(bytes)?;
    replacement.finish()
}
