//! The only door to the file system.
//!
//! ```text
//!   wal/  log/  broker/ ──▶ dyn Disk, dyn File ──▶ os::OsDisk    real files
//!                                             └──▶ sim::SimDisk  memory; forgets what was not synced
//! ```
//!
//! * Reads and writes name their position: there is no cursor to get out of step.
//! * A write is durable after [`File::sync`]; a create, rename or remove after [`Disk::sync_dir`]
//!   of the folder.
//! * A failed sync leaves nothing known about the file's pages: the caller stops, it never retries.

mod ahead;
mod gentle;
pub mod os;
mod replace;
pub mod sim;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use ahead::{SyncAhead, SyncFailed, Written};
pub use gentle::Gentle;
pub use replace::{Replacement, replace};

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// Read only; the file must exist.
    Read,
    /// Read and write; the file must exist.
    Write,
    /// Read and write; created if absent.
    Create,
}

/// What a folder holds under one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// The last component of its path.
    pub name: String,
    /// Whether it is a folder, or a link to one.
    pub is_dir: bool,
    /// Its length in bytes (zero for a folder); of a link, that of the file which it leads to.
    pub len: u64,
    /// Whether it is a link: what it leads to may be on another file system.
    pub is_link: bool,
}

/// A lock on a folder, held until dropped.
pub trait Lock: Send + Sync {}

/// A file system.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Opens a file. To be read, what is none is refused, as [`is_no_file`] says of the error.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// What the folder `dir` holds, in name order. What is not UTF-8 in a name becomes U+FFFD: by that
    /// name the file can't be opened.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Creates a folder and those above it; no error if it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Whether a file has this name and no other, not even as what a link leads to.
    fn is_only_name(&self, path: &Path) -> io::Result<bool>;
    /// Keeps the folder `dir` open: from now on it is synced by way of that, and so is its file system. What
    /// fails from now on is then told, even if somebody else has been told of it meanwhile, and there is
    /// no want of a file descriptor. To be called before anything is written.
    fn hold_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes creates, renames and removes in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes everything durable on the file system that holds `dir`, whoever wrote it: less work than
    /// syncing many files one by one. `Unsupported` where a failure would not be told.
    fn sync_all(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock file at `path`, created if absent; `WouldBlock` if another has it. It need
    /// not be one that may be written to.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// Free and total bytes of the file system that holds `dir`, as an unprivileged user sees it.
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What can still be written.
    pub free: u64,
    /// What there is in all.
    pub total: u64,
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "a file's length can fail; emptiness has no use")]
pub trait File: Send + Sync + std::fmt::Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills as much of `buf` as the file holds from `at` on; less only at the end of the file.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `at`. After an error any part of it may have been written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Sets the length.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes the contents and the length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}

/// Whether an operation failed because the disk, or the user's share of it, is full.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a file could not be opened since what has its name is a folder, a pipe or the like.
pub fn is_no_file(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput)
}

/// Whether an operation failed for want of something that may be there later: room on the disk, or
/// a free file descriptor.
pub fn is_shortage(error: &io::Error) -> bool {
    let out_of_files = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    is_no_space(error)
        || out_of_files.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// Reads all of a file.
///
/// # Errors
/// What the disk says.
pub fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    let got = file.read_at(&mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}
